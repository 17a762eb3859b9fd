# Programs short of memory, in a machine of tests/vm.
# shellcheck shell=bash source-path=SCRIPTDIR

# The quickstart's, which knows both versions.
# shellcheck source=../../../deploy/quickstart.d/cgroup.sh
. "$FARSWAP_SOURCE_DIR/deploy/quickstart.d/cgroup.sh"

# Set: who is beyond the limit is slowed down, and not killed. For swap that is slow on purpose: once all that a program has is
# on its way to it, the kernel has nothing to take, and kills by the limit.
cgroup_patient=

# cgroup_run LIMIT COMMAND...: runs it with so much memory (48M) and any amount of swap. Its exit status. Sets
# cgroup_swap_peak_kib to the most swap it had.
cgroup_swap_peak_kib=
cgroup_run()
{
	local limit=$1 tender status

	shift
	cgroup_find && cgroup_create "farswap-vm-$$" "$limit" || return 1
	if [ -n "$cgroup_patient" ]; then
		echo "$limit" >"$cgroup_dir/memory.high" && echo max >"$cgroup_dir/memory.max" || return 1
	fi
	sh -c "$cgroup_tend" "$cgroup_dir" >/dev/null 2>&1 &
	tender=$!
	# The process that enters it is the one that becomes the command.
	(
		echo "$BASHPID" >"$cgroup_dir/cgroup.procs" && exec "$@"
	)
	status=$?
	kill "$tender" 2>/dev/null
	wait "$tender" 2>/dev/null
	# shellcheck disable=SC2034
	cgroup_swap_peak_kib=$(($(cat "$cgroup_dir/memory.swap.peak" 2>/dev/null || echo 0) >> 10))
	cgroup_remove "$cgroup_dir" || return 1
	return "$status"
}

# swap_hog of tests/integ: cgroup_hog LIMIT MIB ROUNDS. It checks every word of its memory; fails when one is wrong.
cgroup_hog()
{
	cgroup_run "$1" "${FARSWAP_BIN_DIR%/*}/tests/integ/swap_hog" "$2" "$3"
}
