#!/bin/bash
# vm: --modules nbd --limit 170
# Real swap over the kernel's NBD client: a program with less memory than it needs, while a server is drained; and a daemon
# that is killed with swap in use.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=lib/cgroup.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/cgroup.sh"

mkdir -p /tmp/farswap
cd /tmp/farswap
ctl=("$FARSWAP_BIN_DIR/farswapctl" --socket /tmp/farswap/admin)
servers=()

fail()
{
	echo "FAIL: $*"
	tail -n 20 /tmp/farswap/*.log
	cat /proc/swaps
	exit 1
}

say()
{
	echo "$SECONDS s: $*"
}

# wait_for SECONDS WHAT COMMAND...
wait_for()
{
	local until=$((SECONDS + $1)) what=$2

	shift 2
	until "$@"; do
		[ "$SECONDS" -lt "$until" ] || fail "$what"
		sleep 0.2
	done
}

start_servers()
{
	local i

	for i in 1 2; do
		"$FARSWAP_BIN_DIR/farmemd" --memory 96M --slab-size 8M --name "m$i" --listen "127.0.0.1:777$i" \
			--data-listen "127.0.0.1:778$i" --ready-file "m$i.ready" >"m$i.log" 2>&1 &
		servers+=($!)
	done
	for i in 1 2; do
		wait_for 30 "farmemd $i does not start" test -e "m$i.ready"
	done
}

# start_daemon ARG...
daemon=
start_daemon()
{
	rm -f ready
	"$FARSWAP_BIN_DIR/farswapd" --frontend nbd-kernel --size 80M --servers 127.0.0.1:7771,127.0.0.1:7772 --ahead 16M \
		--admin-socket /tmp/farswap/admin --ready-file ready "$@" >farswapd.log 2>&1 &
	daemon=$!
}

is_over()
{
	[ -e "$1" ] || ! kill -0 "$daemon" 2>/dev/null
}

daemon_ready()
{
	wait_for 30 "farswapd does not start" is_over ready
	[ -e ready ] || fail "farswapd has ended"
	device=$(sed -n 's/^endpoint=//p' ready)
	name=${device#/dev/}
}

is_swap()
{
	grep -q "^$1 " /proc/swaps
}

is_gone()
{
	[ ! -e "/sys/block/$name/pid" ] && [ "$(cat "/sys/block/$name/size")" = 0 ]
}

swap_used_above()
{
	local used

	used=$(awk -v device="$device" '$1 == device { print $4 }' /proc/swaps)
	[ "${used:-0}" -gt "$1" ]
}

uname -r
start_servers

# What cannot be is said in words.
start_daemon --nbd-index 1048575
wait "$daemon" && fail "a device that there cannot be"
grep -q '/dev/nbd1048575' farswapd.log || fail "the device that cannot be had is not named"

start_daemon --nbd-connections 2
daemon_ready
say "up: $device"
is_swap "$device" || fail "swap is not on"
grep -q 'nbd-kernel' ready || fail "the ready file: $(cat ready)"
queues=("/sys/block/$name/mq"/*)
[ ${#queues[@]} = 1 ] || fail "more hardware queues than processors: ${queues[*]}"
[ "$(cat "/sys/block/$name/queue/max_sectors_kb")" = 64 ] || fail "max_sectors_kb"
grep -q '\[none\]' "/sys/block/$name/queue/scheduler" || fail "the scheduler: $(cat "/sys/block/$name/queue/scheduler")"
[ "$(cat "/sys/block/$name/queue/rotational")" = 0 ] || fail "rotational"
[ "$(cat "/sys/block/$name/queue/read_ahead_kb")" = 0 ] || fail "read_ahead_kb"
[ "$(cat "/sys/block/$name/queue/discard_max_bytes")" -gt 0 ] || fail "discard_max_bytes"
"${ctl[@]}" status >status.txt
grep -Eq "endpoint +$device" status.txt || fail "status: $(cat status.txt)"
grep -Eq 'connections +2$' status.txt || fail "status: $(cat status.txt)"

(
	wait_for 60 "swap is not used" swap_used_above 8192
	say "drain"
	timeout 60 "${ctl[@]}" drain 127.0.0.1:7771 >drain.txt 2>&1
) &
drain=$!
cgroup_hog 24M 48 1 || fail "a program with less memory than it needs: exit status $?"
wait "$drain" || fail "the drain: $(cat drain.txt)"
[ "$cgroup_swap_peak_kib" -gt 16384 ] || fail "it used no more than $cgroup_swap_peak_kib KiB of swap"
say "drained: $(tail -n 1 drain.txt); $cgroup_swap_peak_kib KiB of swap at most"
# What the program had is free again, and the kernel says so.
discards=$(awk '{ print $14 }' "/sys/block/$name/stat")
[ "$discards" -gt 0 ] || fail "no discards"
timeout 60 "${ctl[@]}" check >check.txt || fail "the books: $(cat check.txt)"
timeout 60 "${ctl[@]}" swapoff --wait --exit || fail "swapoff"
wait "$daemon" || fail "farswapd ended with $?"
is_swap "$device" && fail "swap is still on"
is_gone || fail "$device is still there"
! grep -q 'was to last' farswapd.log || fail "a connection was lost"
say "down, $((discards / 8)) pages discarded"

# ---- killed with swap in use ----

start_daemon
daemon_ready
is_swap "$device" || fail "swap is not on"
(
	status=0
	cgroup_hog 24M 48 100 || status=$?
	echo "$status" >hog.status
) >/dev/null 2>&1 &
hog=$!
wait_for 60 "swap is not used" swap_used_above 16384
kill -KILL "$daemon"
wait "$daemon" 2>/dev/null || true
say "killed"
# Who comes next ends what was under way, and says what is to be done.
start_daemon
wait "$daemon" && fail "a dead daemon's swap is still on, and the next one does not mind"
grep -q "$device of a process that has died is still in use as swap" farswapd.log || fail "it does not say why"
wait "$hog"
# 135: SIGBUS.
case $(cat hog.status) in
0) fail "the program has not noticed" ;;
135 | 137) ;;
*) fail "the program ended with $(cat hog.status)" ;;
esac
say "the program ended with $(cat hog.status)"
timeout 60 swapoff "$device" || fail "swapoff: $?"
is_swap "$device" && fail "swap is still on"
say "swap is off"

old=$name
start_daemon --nbd-index "${name#nbd}"
daemon_ready
[ "$name" = "$old" ] || fail "$device instead of $old"
cgroup_hog 24M 32 1 || fail "a program with less memory than it needs, afterwards: exit status $?"
kill -TERM "$daemon"
wait "$daemon" || fail "farswapd ended with $?"
is_gone || fail "$device is still there"
say "another one came, and went"
kill -TERM "${servers[@]}"
wait "${servers[@]}" || fail "farmemd ended with $?"
