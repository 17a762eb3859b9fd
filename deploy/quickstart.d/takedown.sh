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

# takedown DIR: 0, or 1 when something is left, which has been said.
takedown()
{
	local dir=$1 status=0 device process

	# The folder is there before anything else is, and what is noted in it is noted before it is set up.
	[ -d "$dir" ] || return 0

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
	for device in $(takedown_loop_devices "$dir/mnt"); do
		losetup -d "$device" || status=1
	done
	# Of a dead daemon, whose mount cannot even be looked at.
	while grep -q " $dir/mnt " /proc/self/mounts; do
		if ! umount "$dir/mnt" 2>/dev/null && ! umount -l "$dir/mnt"; then
			takedown_say "$dir/mnt cannot be unmounted"
			return 1
		fi
	done

	for process in "$dir"/farmemd-*.pid; do
		process_end "$process" 10
	done
	[ "$status" -ne 0 ] || rm -rf "$dir"
	return "$status"
}
