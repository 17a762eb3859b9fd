#!/bin/bash
# vm: --modules ublk_drv,nbd,sch_netem --cpus 2 --memory 1200M --limit 880
# Real swap over RDMA, to two servers at the other end of a link: by ublk and by the kernel's NBD client, with a drain in the
# middle; on a link that loses packets, and one that goes away for three seconds and comes back.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=lib/rxe.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/rxe.sh"
# shellcheck source=lib/cgroup.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/cgroup.sh"
# shellcheck source=lib/farswap.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/farswap.sh"

# up FRONTEND ARG...: of farswapd, with both servers reached by RDMA.
up()
{
	local frontend=$1

	shift
	# Emulated, both ends share two processors: what is slow is not dead.
	farswap_start --frontend "$frontend" --size 80M --queues 2 --transport verbs --rdma-device "${rxe_names[1]}" \
		--dead-after 3s --connect-timeout 5s "$@"
	farswap_ready
	farswap_wait 60 "not all servers are reached by RDMA" all_by_rdma
	farswap_is_swap "$farswap_device" || farswap_fail "swap is not on"
	farswap_say "up: $farswap_device"
}

all_by_rdma()
{
	farswap_ctl servers >servers.txt && [ "$(grep -c verbs servers.txt)" = 2 ]
}

down()
{
	farswap_ctl check >check.txt || farswap_fail "the books: $(cat check.txt)"
	farswap_no_errors
	farswap_ctl swapoff --wait --exit >/dev/null || farswap_fail "swapoff"
	wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"
	farswap_kernel_no_errors
}

# A program with less memory than it needs. hog MIB ROUNDS
hog()
{
	cgroup_hog 24M "$1" "$2" || farswap_fail "a program with less memory than it needs: exit status $?"
}

drain_ended()
{
	wait "$farswap_drain" || farswap_fail "the drain: $(cat drain.txt)"
	farswap_say "drained: $(tail -n 1 drain.txt)"
}

drain_is_over()
{
	! kill -0 "$farswap_drain" 2>/dev/null
}

# outage_when BEGIN END COMMAND...: in the background, three seconds between these two once the command succeeds.
outage_when()
{
	local begin=$1 end=$2

	shift 2
	(
		farswap_wait 120 "no outage: $*" "$@"
		$begin
		sleep 3
		in_flight=$(farswap_in_flight)
		$end
		[ "$in_flight" -gt 0 ] || farswap_fail "nobody has missed the link"
		farswap_say "the link is back, for which $in_flight requests have waited"
	) &
	plug=$!
}

outage_ended()
{
	wait "$plug" || farswap_fail "the link"
	farswap_wait 60 "not all servers are reached again" all_by_rdma
	farswap_say "3 s without a link, and no word lost"
}

uname -r
cd "$farswap_dir"
rxe_up || farswap_fail "the RDMA devices"
farswap_address=${rxe_addresses[0]}
# So long may the link be away, and connections take to be made again.
farswap_start_servers 2 96M --lease-term 60s
before=$(rxe_packets 1)

up ublk
farswap_drain_when_used 8192 drain.txt
hog 40 1
drain_ended
down

# The kernel's NBD client has timeouts, which must not take a device for dead that is only slow. All packets are lost for that:
# with the link down, the queue pair of rxe's connection manager has been seen in the error state afterwards, not every time,
# and there Linux 6.12 leaves it, so that nothing is connected again.
# shellcheck disable=SC2034
cgroup_patient=1
up nbd-kernel --patience 60s --lost-after 60s
farswap_drain_when_used 8192 drain.txt
outage_when 'rxe_loss 100' 'rxe_loss 0' drain_is_over
hog 40 1
drain_ended
outage_ended
farswap_ctl status >status.txt
grep -Eq 'connections +2$' status.txt || farswap_fail "status: $(cat status.txt)"
! grep -q 'was to last' farswapd.log || farswap_fail "a connection was lost"
down
[ $(($(rxe_packets 1) - before)) -gt 20000 ] || farswap_fail "only $(($(rxe_packets 1) - before)) packets on the link"

# ---- a bad link ----

up ublk --patience 60s --lost-after 60s
naks=$(rxe_naks)
rxe_loss 2
hog 32 1
lost=$(rxe_lost)
rxe_loss 0
naks=$(($(rxe_naks) - naks))
[ "$lost" -ge 20 ] || farswap_fail "no more than $lost packets were lost"
[ "$naks" -ge 10 ] || farswap_fail "of $lost lost packets, RDMA has missed no more than $naks"
farswap_say "2 % of the packets lost, $lost of them, $naks of which RDMA asked for, and no word"
outage_when 'rxe_link_down 0' 'rxe_link_up 0' farswap_used_above 8192
hog 36 1
outage_ended
down
kill -TERM "${farswap_servers[@]}"
wait "${farswap_servers[@]}" || farswap_fail "farmemd ended with $?"
