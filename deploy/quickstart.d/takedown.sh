# Takes down what one run has set up, from what it noted in its folder; right at any half-way point, and any number of times.
#
# The order is what matters. While swap is on, farswapd is what the kernel gets pages back from: first the program goes,
# then swap, and only then the daemons.
# shellcheck shell=bash
# shellcheck source-path=SCRIPTDIR

# shellcheck source=process.sh
. "${BASH_SOURCE[0]%/*}/process.sh"
# shellcheck source=cgroup.sh
. "${BASH_SOURCE[0]%/*}/cgroup.sh"

takedown_say()
{
	echo "quickstart: $*" >&2
}

# takedown_loop_devices MOUNT: those whose file is there.
takedown_loop_devices()
{
	local name backing

	losetup -n -l -O NAME,BACK-FILE 2>/dev/null | while read -r name backing; do
		case $backing in
		"$1"/*) echo "$name" ;;
		esac
	done
}

takedown_swap_is_on()
{
	grep -q "^$1[[:space:]\\\\]" /proc/swaps
}

# swapoff(8) cannot be interrupted, so it is not waited for beyond its time.
takedown_swapoff()
{
	local until=$((SECONDS + 60)) pid

	takedown_swap_is_on "$1" || return 0
	swapoff "$1" &
	pid=$!
	while takedown_swap_is_on "$1"; do
		if [ "$SECONDS" -ge "$until" ] || ! kill -0 "$pid" 2>/dev/null; then
			takedown_swap_is_on "$1" || break
			return 1
		fi
		sleep 0.1
	done
	wait "$pid"
}

# takedown_mount MOUNT: its loop devices, which are not in use as swap, and then itself. A mount of a dead daemon cannot even
# be looked at.
takedown_mount()
{
	local device status=0

	for device in $(takedown_loop_devices "$1"); do
		losetup -d "$device" || status=1
	done
	while grep -qF " $1 " /proc/self/mounts; do
		if ! umount "$1" 2>/dev/null && ! umount -l "$1"; then
			takedown_say "$1 cannot be unmounted"
			return 1
		fi
	done
	return "$status"
}

# takedown_dead_mounts: those of a farswapd that has died, wherever they are; also one that dies while it is asked.
takedown_dead_mounts()
{
	local point

	findmnt -n -r -t fuse.farswap -o TARGET | while read -r point; do
		case $(LC_ALL=C timeout 5 stat -f -- "$point" 2>&1) in
		*"endpoint is not connected"* | *"caused connection abort"*) echo "$point" ;;
		esac
	done
}

# takedown_dead: 0, or 1 when something is left, which has been said. What was swapped out there is lost; the kernel gives
# its swap up all the same.
takedown_dead()
{
	local mount device status=0

	while read -r mount; do
		takedown_say "taking down $mount, whose farswapd has died"
		for device in $(takedown_loop_devices "$mount"); do
			if ! takedown_swapoff "$device"; then
				takedown_say "$device is still in use as swap"
				status=1
				continue 2
			fi
		done
		takedown_mount "$mount" || status=1
	done < <(takedown_dead_mounts)
	return "$status"
}

# takedown DIR: 0, or 1 when something is left, which has been said.
takedown()
{
	local dir=$1 status=0 device process

	# The folder is there before anything else is, and what is noted in it is noted before it is set up.
	[ -d "$dir" ] || return 0

	process_kill "$dir/steps.pid"
	if [ -s "$dir/cgroup" ] && ! cgroup_remove "$(cat "$dir/cgroup")"; then
		takedown_say "the cgroup $(cat "$dir/cgroup") cannot be removed"
		status=1
	fi
	for process in "$dir"/helper-*.pid; do
		process_kill "$process"
	done

	# Its SIGTERM: swap off, loop device and mount gone.
	if process_alive "$dir/farswapd.pid"; then
		kill -TERM "$process_pid" 2>/dev/null
		process_wait_end "$dir/farswapd.pid" 60
	fi
	for device in $(takedown_loop_devices "$dir/mnt"); do
		if ! takedown_swapoff "$device"; then
			takedown_say "$device is still in use as swap: not touched, nor the daemons behind it; see $dir"
			return 1
		fi
	done
	process_kill "$dir/farswapd.pid"
	takedown_mount "$dir/mnt" || status=1

	for process in "$dir"/farmemd-*.pid; do
		process_end "$process" 10
	done
	[ "$status" -ne 0 ] || rm -rf "$dir"
	return "$status"
}
