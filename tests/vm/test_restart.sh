#!/bin/bash
# vm: --modules ublk_drv,sch_netem --cpus 2 --memory 1200M --limit 800
# A farswapd that is killed with swap over ublk and RDMA in use, and started again: programs wait, and then find every page.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=lib/rxe.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/rxe.sh"
# shellcheck source=lib/cgroup.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/cgroup.sh"
# shellcheck source=lib/farswap.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/farswap.sh"

state_file=/run/farswap/state/farswapd

is_idle()
{
	[ "$(farswap_in_flight)" = 0 ]
}

is_busy()
{
	[ "$(farswap_in_flight)" -gt 0 ]
}

kill_daemon()
{
	kill -KILL "$farswap_daemon"
	wait "$farswap_daemon" 2>/dev/null || true
}

by_rdma()
{
	farswap_ctl servers >servers.txt && [ "$(grep -c verbs servers.txt)" = 2 ]
}

# Goes on with the device, which must be as it was.
start_again()
{
	local device=$farswap_device

	farswap_start "${args[@]}"
	farswap_ready
	[ "$farswap_device" = "$device" ] || farswap_fail "$farswap_device is another device than $device"
	farswap_is_swap "$device" || farswap_fail "swap is off"
	grep -q "$device goes on" farswapd.log || farswap_fail "it does not say that it goes on"
	farswap_wait 60 "not all servers are reached by RDMA" by_rdma
}

check_books()
{
	farswap_ctl check >check.txt || farswap_fail "the books: $(cat check.txt)"
}

cd "$farswap_dir"
uname -r
rxe_up || farswap_fail "the RDMA devices"
farswap_address=${rxe_addresses[0]}
# So long may the servers be silent, with whom no packet is exchanged for a moment.
farswap_start_servers 2 96M --lease-term 60s
args=(--size 80M --queues 2 --frontend ublk --transport verbs --rdma-device "${rxe_names[1]}" --dead-after 30s --patience 60s
	--connect-timeout 5s)
farswap_start "${args[@]}"
farswap_ready
farswap_wait 60 "not all servers are reached by RDMA" by_rdma
[ -e "$state_file" ] || farswap_fail "there is no $state_file"
[ "$(stat -f -c %T /run/farswap/state)" = ramfs ] || farswap_fail "/run/farswap/state is on $(stat -f -c %T /run/farswap/state)"
# shellcheck disable=SC2034
cgroup_patient=1
(
	status=0
	cgroup_hog 24M 48 1 || status=$?
	echo "$status" >hog.status
) >/dev/null 2>&1 &
hog=$!

# ---- with nothing on its way ----

farswap_wait 90 "swap is not used" farswap_used_above 16384
pkill -STOP -x swap_hog
farswap_wait 30 "requests do not end" is_idle
farswap_ctl status -o json >before.json
kill_daemon
farswap_say "killed"
start_again
farswap_ctl status -o json >after.json
for count in pages_in_use pages_stored_remote pages_same pages_poisoned; do
	[ "$(grep "\"$count\"" before.json)" = "$(grep "\"$count\"" after.json)" ] ||
		farswap_fail "$count: $(grep "\"$count\"" before.json) before, $(grep "\"$count\"" after.json) after"
done
check_books
pkill -CONT -x swap_hog
farswap_say "goes on: $(grep pages_in_use after.json)"

# ---- with requests in its hands ----

# What the servers do not get, the daemon has. Packets are lost for that; with the link down, a process that dies puts the queue
# pair of rxe's connection manager into the error state (it tells the other end), and there Linux 6.12 leaves it. More requests do
# not come: Linux 6.12 has been seen to crash (io_fallback_tw) when a ublk server dies while they do.
sleep 2
rxe_loss 100
farswap_wait 60 "nothing is asked for" is_busy
pkill -STOP -x swap_hog
sleep 1
in_flight=$(farswap_in_flight)
[ "$in_flight" -gt 0 ] || farswap_fail "no request is in its hands"
kill_daemon
rxe_loss 0
farswap_say "killed with $in_flight requests in its hands"
start_again
farswap_wait 60 "requests do not come again" is_idle
pkill -CONT -x swap_hog

# ---- all is as it was ----

farswap_ctl drain "$farswap_address:7771" >drain.txt 2>&1 || farswap_fail "the drain: $(cat drain.txt)"
farswap_say "drained: $(tail -n 1 drain.txt)"
wait "$hog"
[ "$(cat hog.status)" = 0 ] || farswap_fail "the program ended with $(cat hog.status)"
farswap_say "the program has found all its pages"
check_books
farswap_ctl status -o json >status.json
for counter in bad_requests io_errors kernel_errors pages_poisoned; do
	grep -q "\"$counter\": 0" status.json || farswap_fail "$(cat status.json)"
done

# ---- a start that is refused, and one that is told to begin anew ----

kill_daemon
farswap_start "${args[@]}" --size 40M
! wait "$farswap_daemon" || farswap_fail "another size is taken"
grep -q "error: size: " farswapd.log || farswap_fail "it does not say that it is the size"
start_again
kill_daemon
# Not with a setting that leads past the file; and another farswapd, with a file of its own, leaves the device alone.
farswap_start "${args[@]}" --compress-limit 8M
! wait "$farswap_daemon" || farswap_fail "it is led past the state file"
grep -q "error: state_file: $state_file has the pages" farswapd.log || farswap_fail "it does not say why"
dead=$farswap_device
farswap_start "${args[@]}" --state-file /run/farswap/state/other
farswap_ready
if [ "$farswap_device" = "$dead" ] || ! farswap_is_swap "$dead"; then
	farswap_fail "$dead was not its device"
fi
kill -TERM "$farswap_daemon"
wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"
farswap_device=$dead
start_again
kill_daemon
rm "$state_file"
farswap_start "${args[@]}"
farswap_ready
grep -q "turns off the swap of a dead farswapd on $dead" farswapd.log || farswap_fail "it does not give up what it cannot have"
kill -TERM "$farswap_daemon"
wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"
[ ! -e "$farswap_device" ] || farswap_fail "$farswap_device is still there"
[ ! -e "$state_file" ] || farswap_fail "$state_file is still there"
kill -TERM "${farswap_servers[@]}"
for server in "${farswap_servers[@]}"; do
	# 3: it has slabs of the farswapd that has not come again, whose lease has not ended yet.
	wait "$server" || [ $? = 3 ] || farswap_fail "farmemd ended badly"
done
