# RDMA without hardware: two soft-RoCE devices on the two ends of a veth pair, in the one network namespace that rxe works in,
# with real packets in between; so `tc netem` and `ip link set down` are real faults. For scripts in a machine of tests/vm.
# shellcheck shell=bash disable=SC2034

readonly rxe_names=(rxe0 rxe1)
readonly rxe_links=(veth0 veth1)
readonly rxe_addresses=(10.9.0.1 10.9.0.2)
# The GID of the IPv4 address, RoCE v2, which is what programs call a GID index; index 0 is that of the link-local IPv6.
readonly rxe_gid_index=1

# rxe_up: makes both. An MTU of 4200, so that RDMA's is 4096: with 1024 it is several times slower.
rxe_up()
{
	local i

	modprobe rdma_rxe && modprobe rdma_ucm || return 1
	ip link add "${rxe_links[0]}" type veth peer name "${rxe_links[1]}" || return 1
	for i in 0 1; do
		ip link set "${rxe_links[i]}" mtu 4200 up && ip addr add "${rxe_addresses[i]}/24" dev "${rxe_links[i]}" || return 1
	done
	_rxe_route || return 1
	for i in 0 1; do
		rdma link add "${rxe_names[i]}" type rxe netdev "${rxe_links[i]}" || return 1
	done
	rxe_wait_active
}

# Packets from one end to the other leave by the first and come in by the second, although both addresses are this machine's:
# the table "local" is asked for what came in, and for the rest only after tables that know the link.
_rxe_route()
{
	local name i

	for name in all "${rxe_links[@]}"; do
		echo 1 >"/proc/sys/net/ipv4/conf/$name/accept_local" && echo 0 >"/proc/sys/net/ipv4/conf/$name/rp_filter" || return 1
	done
	for i in 0 1; do
		ip rule add pref 1 iif "${rxe_links[i]}" lookup local &&
			ip rule add pref 2 from "${rxe_addresses[i]}" to "${rxe_addresses[1 - i]}" lookup $((21 + i)) &&
			ip route add "${rxe_addresses[1 - i]}" dev "${rxe_links[i]}" src "${rxe_addresses[i]}" table $((21 + i)) || return 1
	done
	ip rule add pref 5 lookup local && ip rule del pref 0
}

# rxe_route_unbound: over the link as well what goes to one of both addresses from a socket that is bound to none, such as that
# of a program which knows nothing of the two ends; it begins at the other end's address then.
rxe_route_unbound()
{
	local i

	for i in 0 1; do
		ip rule add pref 3 to "${rxe_addresses[1 - i]}" lookup $((21 + i)) || return 1
	done
}

# rxe_wait_active: until both ports are up.
rxe_wait_active()
{
	local name until=$((SECONDS + 20))

	for name in "${rxe_names[@]}"; do
		until grep -q ACTIVE "/sys/class/infiniband/$name/ports/1/state" 2>/dev/null &&
			grep -q . "/sys/class/infiniband/$name/ports/1/gid_attrs/types/$rxe_gid_index" 2>/dev/null; do
			[ "$SECONDS" -lt "$until" ] || return 1
			sleep 0.1
		done
	done
}

# rxe_packets I: how many packets that end has sent.
rxe_packets()
{
	cat "/sys/class/net/${rxe_links[$1]}/statistics/tx_packets"
}

# rxe_lost: how many packets rxe_loss has taken, from both ends together, since it was last called with another percentage.
rxe_lost()
{
	local name

	for name in "${rxe_links[@]}"; do
		tc -s qdisc show dev "$name" root
	done | awk '/dropped/ { gsub(/,/, ""); sum += $7 } END { print sum + 0 }'
}

# rxe_naks: how often one of both devices was told by the other that a packet before had not come: only loss makes that.
rxe_naks()
{
	local name sum=0

	for name in "${rxe_names[@]}"; do
		sum=$((sum + $(cat "/sys/class/infiniband/$name/ports/1/hw_counters/rcvd_seq_err")))
	done
	echo "$sum"
}

# rxe_link_down I, rxe_link_up I: pulls the plug, and puts it in again. The address stays; the route of its table does not.
rxe_link_down()
{
	ip link set "${rxe_links[$1]}" down
}

rxe_link_up()
{
	ip link set "${rxe_links[$1]}" up &&
		ip route replace "${rxe_addresses[1 - $1]}" dev "${rxe_links[$1]}" src "${rxe_addresses[$1]}" table $((21 + $1)) &&
		rxe_wait_active
}

# rxe_loss PERCENT: of the packets in both directions; 0 ends it.
rxe_loss()
{
	local name

	modprobe sch_netem || return 1
	for name in "${rxe_links[@]}"; do
		tc qdisc replace dev "$name" root netem loss "$1%" || return 1
	done
}

# rxe_wait_port PORT: until somebody listens there.
rxe_wait_port()
{
	local until=$((SECONDS + 20))

	until ss -Hltn "sport = :$1" | grep -q .; do
		[ "$SECONDS" -lt "$until" ] || return 1
		sleep 0.1
	done
}

# rxe_down: takes all of it away.
rxe_down()
{
	local name

	for name in "${rxe_names[@]}"; do
		rdma link delete "$name"
	done
	ip link delete "${rxe_links[0]}"
}
