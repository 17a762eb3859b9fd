#!/bin/bash
# vm: --modules nbd,ublk_drv --limit 800
# What later tests stand on: the machine's kernel has the modules, and two RDMA devices speak to each other over a link.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=lib/rxe.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/rxe.sh"
# shellcheck source=lib/cgroup.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/cgroup.sh"

fail()
{
	echo "FAIL: $*"
	exit 1
}

# over_link NAME PORT PROGRAM ARG...: the program as a server on the first device and as its client on the second.
over_link()
{
	local name=$1 port=$2 server before after

	shift 2
	before=$(rxe_packets 0)
	timeout 40 "$1" -d "${rxe_names[0]}" -p "$port" "${@:2}" >/tmp/server.log 2>&1 &
	server=$!
	rxe_wait_port "$port" || fail "$name: the server does not listen: $(cat /tmp/server.log)"
	timeout 40 "$1" -d "${rxe_names[1]}" -p "$port" "${@:2}" "${rxe_addresses[0]}" >/tmp/client.log 2>&1 ||
		fail "$name: the client: $(cat /tmp/client.log)"
	wait "$server" || fail "$name: the server: $(cat /tmp/server.log)"
	after=$(rxe_packets 0)
	# Else they have found a way within the machine.
	[ $((after - before)) -ge 200 ] || fail "$name: only $((after - before)) packets on the link"
	echo "$name: ok, $((after - before)) packets, $SECONDS s"
	grep -E 'bytes in|iters in|^ *[0-9]+ +[0-9]+ ' /tmp/client.log || true
}

uname -r
[ -c /dev/ublk-control ] || fail "no /dev/ublk-control"
[ -b /dev/nbd0 ] || fail "no /dev/nbd0"

rxe_up || fail "the RDMA devices"
rdma link show
over_link ibv_rc_pingpong 18515 ibv_rc_pingpong -e -g "$rxe_gid_index" -n 200 -m 4096 -c
over_link ib_read_lat 18516 ib_read_lat -x "$rxe_gid_index" -n 200 -s 4096 -F
rxe_link_down 0
! grep -q ACTIVE "/sys/class/infiniband/${rxe_names[0]}/ports/1/state" || fail "the port is active without a link"
rxe_link_up 0 || fail "the link does not come up again"
over_link "ibv_rc_pingpong, after the link was down" 18517 ibv_rc_pingpong -e -g "$rxe_gid_index" -n 200 -m 4096 -c
rxe_down

modprobe zram
echo 64M >/sys/block/zram0/disksize
mkswap /dev/zram0 >/dev/null
swapon /dev/zram0
cgroup_hog 12M 24 1 || fail "a program with less memory than it needs: exit status $?"
[ "$cgroup_swap_peak_kib" -gt 8192 ] || fail "it used no more than $cgroup_swap_peak_kib KiB of swap"
swapoff /dev/zram0
echo "swap: ok, $cgroup_swap_peak_kib KiB at most, $SECONDS s"
