# A memory cgroup, of version 1 or 2: whichever the machine has.
# shellcheck shell=bash

cgroup_version=
cgroup_root=
cgroup_dir=

# Sets cgroup_version and cgroup_root to the hierarchy that has the memory controller.
cgroup_find()
{
	local target

	while read -r target; do
		if grep -qw memory "$target/cgroup.controllers" 2>/dev/null; then
			cgroup_version=2
			cgroup_root=$target
			return 0
		fi
	done < <(findmnt -n -o TARGET -t cgroup2)
	while read -r target; do
		if [ -e "$target/memory.limit_in_bytes" ]; then
			cgroup_version=1
			cgroup_root=$target
			return 0
		fi
	done < <(findmnt -n -o TARGET -t cgroup)
	return 1
}

# cgroup_create NAME LIMIT_BYTES: sets cgroup_dir, whose processes get so much memory and any amount of swap.
cgroup_create()
{
	cgroup_dir=$cgroup_root/$1
	if [ "$cgroup_version" = 2 ] && ! grep -qw memory "$cgroup_root/cgroup.subtree_control"; then
		echo +memory >"$cgroup_root/cgroup.subtree_control" || return 1
	fi
	mkdir "$cgroup_dir" || return 1
	if [ "$cgroup_version" = 2 ]; then
		echo "$2" >"$cgroup_dir/memory.max"
	else
		echo "$2" >"$cgroup_dir/memory.limit_in_bytes" && echo 60 >"$cgroup_dir/memory.swappiness"
	fi
}

# For sh -c, with the cgroup's directory: until it is gone. Reclaim decides by counts of the cgroup's pages that the kernel
# brings up to date every two seconds (seen in Linux 6.18: mm_vmscan_lru_shrink_active comes at no other time). A program that
# swaps fast uses up the inactive pages in less, and is then killed for want of memory although most of it could be swapped
# out. To read memory.stat brings the counts up to date. A program of its own: a function would keep the shell's files open.
# shellcheck disable=SC2016,SC2034
readonly cgroup_tend='while cat "$0/memory.stat" >/dev/null 2>&1; do sleep 0.1; done'

# cgroup_remove DIR: kills what is in it and removes it.
cgroup_remove()
{
	local until=$((SECONDS + 20)) pid

	[ -d "$1" ] || return 0
	until rmdir "$1" 2>/dev/null; do
		[ "$SECONDS" -lt "$until" ] || return 1
		while read -r pid; do
			kill -KILL "$pid" 2>/dev/null
		done <"$1/cgroup.procs"
		sleep 0.05
	done
}
