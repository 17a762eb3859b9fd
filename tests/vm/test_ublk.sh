#!/bin/bash
# vm: --modules ublk_drv --cpus 2 --limit 800
# Real swap over ublk: a program with less memory than it needs, while a server is drained; and a daemon that is killed with
# swap in use.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=lib/cgroup.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/cgroup.sh"
# shellcheck source=lib/farswap.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/farswap.sh"

is_gone()
{
	[ ! -e "$farswap_device" ] && [ ! -e "/dev/ublkc${farswap_name#ublkb}" ]
}

is_idle()
{
	[ "$(farswap_in_flight)" = 0 ]
}

cd "$farswap_dir"
uname -r
farswap_start_servers 2 96M

# ---- as it should be ----

farswap_start --size 80M --queues 2
farswap_ready
farswap_say "up: $farswap_device"
[[ $farswap_name == ublkb* ]] || farswap_fail "another front end than ublk"
farswap_is_swap "$farswap_device" || farswap_fail "swap is not on"
farswap_queue_is logical_block_size 4096
farswap_queue_is rotational 0
farswap_queue_is scheduler '*\[none\]*'
farswap_queue_is max_sectors_kb 2048
farswap_queue_is max_hw_sectors_kb 2048
farswap_queue_is discard_granularity 4096
for limit in discard_max_bytes write_zeroes_max_bytes; do
	[ "$(cat "/sys/block/$farswap_name/queue/$limit")" -gt 0 ] || farswap_fail "$limit is 0"
done
[ "$(find "/sys/block/$farswap_name/mq" -mindepth 1 -maxdepth 1 | wc -l)" = 2 ] || farswap_fail "not a queue per reactor"
farswap_ctl status >status.txt
grep -Eq 'front end +ublk$' status.txt || farswap_fail "$(cat status.txt)"
grep -Eq 'chosen because +ublk: ' status.txt || farswap_fail "$(cat status.txt)"

farswap_drain_when_used 8192 drain.txt
cgroup_hog 24M 48 1 || farswap_fail "a program with less memory than it needs: exit status $?"
wait "$farswap_drain" || farswap_fail "the drain: $(cat drain.txt)"
[ "$cgroup_swap_peak_kib" -gt 16384 ] || farswap_fail "it used no more than $cgroup_swap_peak_kib KiB of swap"
farswap_say "drained: $(tail -n 1 drain.txt); $cgroup_swap_peak_kib KiB of swap at most"
# What the program had is free again, and the kernel says so.
discards=$(awk '{ print $14 }' "/sys/block/$farswap_name/stat")
[ "$discards" -gt 0 ] || farswap_fail "no discards"
farswap_ctl check >check.txt || farswap_fail "the books: $(cat check.txt)"
farswap_no_errors
farswap_ctl swapoff --wait --exit || farswap_fail "swapoff"
wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"
! farswap_is_swap "$farswap_device" || farswap_fail "swap is still on"
is_gone || farswap_fail "$farswap_device is still there"
farswap_say "down, $((discards / 8)) pages discarded"

# ---- turned on by hand ----

farswap_swap_by_hand --size 80M --frontend ublk
is_gone || farswap_fail "$farswap_device is still there"

# ---- to whom process numbers mean something else ----

farswap_start --size 80M --queues 1 --frontend ublk --state-file none
farswap_ready
unshare --pid --fork --kill-child=KILL --mount-proc "$FARSWAP_BIN_DIR/farswapd" --servers "$farswap_address:7771" --size 40M \
	--queues 1 --frontend ublk --state-file none --name other --admin-socket "$farswap_dir/other.admin" --ready-file "$farswap_dir/other.ready" \
	>"$farswap_dir/other.log" 2>&1 &
other=$!
farswap_wait 60 "a farswapd in a namespace of its own does not start" test -e other.ready
grep -q "is left alone" other.log || farswap_fail "it does not say that there is another one"
farswap_is_swap "$farswap_device" || farswap_fail "it has taken what belongs to another one"
other_device=$(sed -n 's/^endpoint=//p' other.ready)
farswap_say "a farswapd in a namespace of its own: $other_device"
kill -KILL "$other"
wait "$other" 2>/dev/null || true
kill -TERM "$farswap_daemon"
wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"

# ---- killed with swap in use, and without a state file: test_restart.sh has one ----

farswap_start --size 80M --queues 2 --frontend ublk --state-file none
farswap_ready
grep -q "turns off the swap of a dead farswapd on $other_device" farswapd.log ||
	farswap_fail "it does not see that the one in a namespace of its own is dead"
dead=$farswap_device
(
	status=0
	cgroup_hog 24M 48 100 || status=$?
	echo "$status" >hog.status
) >/dev/null 2>&1 &
hog=$!
farswap_wait 90 "swap is not used" farswap_used_above 16384
# With nothing on its way: Linux 6.12 has been seen to crash (io_fallback_tw) when a ublk server dies while requests come in.
pkill -STOP -x swap_hog
farswap_wait 30 "requests do not end" is_idle
kill -KILL "$farswap_daemon"
wait "$farswap_daemon" 2>/dev/null || true
pkill -CONT -x swap_hog
farswap_say "killed"
# Whoever comes next takes the device down: with the pages that it had, which are lost.
farswap_start --size 80M --queues 1 --frontend ublk
farswap_ready
grep -q "turns off the swap of a dead farswapd on $dead" farswapd.log || farswap_fail "it does not say what is lost"
! farswap_is_swap "$dead" || [ "$dead" = "$farswap_device" ] || farswap_fail "the swap of the dead one is still on"
wait "$hog"
case $(cat hog.status) in
0 | 1) farswap_fail "the program ended with $(cat hog.status), and must not see what it has lost" ;;
135 | 137) ;; # SIGBUS, or killed
*) farswap_fail "the program ended with $(cat hog.status)" ;;
esac
farswap_say "the program ended with $(cat hog.status); $farswap_device"
farswap_forget_errors
cgroup_hog 24M 32 1 || farswap_fail "a program with less memory than it needs, afterwards: exit status $?"
farswap_no_errors
kill -TERM "$farswap_daemon"
wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"
is_gone || farswap_fail "$farswap_device is still there"
farswap_say "another one came, and went"
kill -TERM "${farswap_servers[@]}"
wait "${farswap_servers[@]}" || farswap_fail "farmemd ended with $?"
