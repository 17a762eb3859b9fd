#!/bin/bash
# vm: --modules nbd --limit 800
# Real swap over the kernel's NBD client: a program with less memory than it needs, while a server is drained; a daemon that is
# killed with swap in use; and what a daemon takes instead when the kernel has neither ublk nor NBD.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=lib/cgroup.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/cgroup.sh"

# shellcheck source=lib/farswap.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/farswap.sh"

cd "$farswap_dir"

# start_daemon ARG...
start_daemon()
{
	farswap_start --frontend nbd-kernel --size 80M "$@"
}

is_gone()
{
	[ ! -e "/sys/block/$farswap_name/pid" ] && [ "$(cat "/sys/block/$farswap_name/size")" = 0 ]
}

# Of all swap. How much a cgroup had at most is not told before Linux 6.5.
swapped_out_kib()
{
	awk '$1 == "pswpout" { print $2 * 4 }' /proc/vmstat
}

uname -r
farswap_start_servers 2 96M

# What cannot be is said in words.
start_daemon --nbd-index 1048575
wait "$farswap_daemon" && farswap_fail "a device that there cannot be"
grep -q '/dev/nbd1048575' farswapd.log || farswap_fail "the device that cannot be had is not named"

start_daemon --nbd-connections 2
farswap_ready
farswap_say "up: $farswap_device"
farswap_is_swap "$farswap_device" || farswap_fail "swap is not on"
grep -q 'nbd-kernel' ready || farswap_fail "the ready file: $(cat ready)"
queues=("/sys/block/$farswap_name/mq"/*)
[ ${#queues[@]} = 1 ] || farswap_fail "more hardware queues than processors: ${queues[*]}"
farswap_queue_is max_sectors_kb 64
farswap_queue_is scheduler '*\[none\]*'
farswap_queue_is rotational 0
farswap_queue_is read_ahead_kb 0
[ "$(cat "/sys/block/$farswap_name/queue/discard_max_bytes")" -gt 0 ] || farswap_fail "discard_max_bytes"
farswap_ctl status >status.txt
grep -Eq "endpoint +$farswap_device" status.txt || farswap_fail "status: $(cat status.txt)"
grep -Eq 'connections +2$' status.txt || farswap_fail "status: $(cat status.txt)"

before=$(swapped_out_kib)
farswap_drain_when_used 8192 drain.txt
cgroup_hog 24M 48 1 || farswap_fail "a program with less memory than it needs: exit status $?"
wait "$farswap_drain" || farswap_fail "the drain: $(cat drain.txt)"
swapped=$(($(swapped_out_kib) - before))
[ "$swapped" -gt 16384 ] || farswap_fail "no more than $swapped KiB were swapped out"
farswap_say "drained: $(tail -n 1 drain.txt); $swapped KiB were swapped out"
# What the program had is free again, and the kernel says so.
discards=$(awk '{ print $14 }' "/sys/block/$farswap_name/stat")
[ "$discards" -gt 0 ] || farswap_fail "no discards"
farswap_ctl check >check.txt || farswap_fail "the books: $(cat check.txt)"
farswap_no_errors
farswap_ctl swapoff --wait --exit || farswap_fail "swapoff"
wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"
farswap_is_swap "$farswap_device" && farswap_fail "swap is still on"
is_gone || farswap_fail "$farswap_device is still there"
! grep -q 'was to last' farswapd.log || farswap_fail "a connection was lost"
farswap_say "down, $((discards / 8)) pages discarded"

# ---- turned on by hand ----

farswap_swap_by_hand --size 80M --frontend nbd-kernel
is_gone || farswap_fail "$farswap_device is still there"

# ---- killed with swap in use ----

# With no ublk here, it is what auto takes.
farswap_start --size 80M
farswap_ready
farswap_ctl status >status.txt
grep -Eq 'chosen because +ublk: .*; nbd-kernel: ' status.txt || farswap_fail "status: $(cat status.txt)"
farswap_is_swap "$farswap_device" || farswap_fail "swap is not on"
(
	status=0
	cgroup_hog 24M 48 100 || status=$?
	echo "$status" >hog.status
) >/dev/null 2>&1 &
hog=$!
farswap_wait 90 "swap is not used" farswap_used_above 16384
kill -KILL "$farswap_daemon"
wait "$farswap_daemon" 2>/dev/null || true
farswap_say "killed"
# Who comes next ends what was under way, and says what is to be done.
start_daemon
wait "$farswap_daemon" && farswap_fail "a dead daemon's swap is still on, and the next one does not mind"
grep -q "$farswap_device of a process that has died is still in use as swap" farswapd.log || farswap_fail "it does not say why"
wait "$hog"
# 135: SIGBUS.
case $(cat hog.status) in
0) farswap_fail "the program has not noticed" ;;
135 | 137) ;;
*) farswap_fail "the program ended with $(cat hog.status)" ;;
esac
farswap_say "the program ended with $(cat hog.status)"
timeout 60 swapoff "$farswap_device" || farswap_fail "swapoff: $?"
farswap_is_swap "$farswap_device" && farswap_fail "swap is still on"
farswap_say "swap is off"
farswap_forget_errors

old=$farswap_name
start_daemon --nbd-index "${farswap_name#nbd}"
farswap_ready
[ "$farswap_name" = "$old" ] || farswap_fail "$farswap_device instead of $old"
cgroup_hog 24M 32 1 || farswap_fail "a program with less memory than it needs, afterwards: exit status $?"
farswap_no_errors
kill -TERM "$farswap_daemon"
wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"
is_gone || farswap_fail "$farswap_device is still there"
farswap_say "another one came, and went"

# ---- neither ublk nor NBD ----

# Who asks for it would load it again.
echo "install nbd /bin/false" >/etc/modprobe.d/farswap-test.conf
modprobe -r nbd
modprobe -a loop fuse
farswap_start --size 80M --mount-dir "$farswap_dir/mount"
farswap_ready
[[ $farswap_device == /dev/loop* ]] || farswap_fail "$farswap_device is no loop device"
farswap_is_swap "$farswap_device" || farswap_fail "swap is not on"
reason='ublk: .*; nbd-kernel: .*; fuse: the best that can be used here'
grep -q "frontend: auto: $reason" farswapd.log || farswap_fail "the log does not say why"
farswap_ctl status >status.txt
grep -Eq 'front end +fuse$' status.txt || farswap_fail "status: $(cat status.txt)"
grep -Eq "chosen because +$reason" status.txt || farswap_fail "status: $(cat status.txt)"
farswap_no_errors
kill -TERM "$farswap_daemon"
wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"
! farswap_is_swap "$farswap_device" || farswap_fail "swap is still on"
[ ! -e "/sys/block/$farswap_name/loop/backing_file" ] || farswap_fail "$farswap_device is still there"
! grep -q " $farswap_dir/mount" /proc/mounts || farswap_fail "$farswap_dir/mount is still mounted"
farswap_say "FUSE and loop, and why: $(sed -n 's/.*frontend: auto: //p' farswapd.log)"
kill -TERM "${farswap_servers[@]}"
wait "${farswap_servers[@]}" || farswap_fail "farmemd ended with $?"
