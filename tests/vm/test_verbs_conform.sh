#!/bin/bash
# vm: --limit 800
# The transports' conformance suite over verbs, with soft-RoCE devices and real packets between them.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=lib/rxe.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/rxe.sh"

rxe_up || { echo "FAIL: the RDMA devices"; exit 1; }
before=$(rxe_packets 0)
FARSWAP_TRANSPORT=verbs FARSWAP_VERBS_ADDRESS="${rxe_addresses[0]}:0" FARSWAP_VERBS_DEVICE="${rxe_names[1]}" \
	"$FARSWAP_BIN_DIR/../tests/conform/conform_transport_device"
packets=$(($(rxe_packets 0) - before))
# Else they have found a way within the machine.
[ "$packets" -ge 1000 ] || { echo "FAIL: only $packets packets on the link"; exit 1; }
echo "ok: $packets packets, $SECONDS s"

# IPv6, by the routing table: within one device, for which no route has to be made.
ip addr add fd00:9::1/64 dev "${rxe_links[0]}" nodad
until grep -q fd00:0009 "/sys/class/infiniband/${rxe_names[0]}/ports/1/gids/"*; do sleep 0.1; done
FARSWAP_TRANSPORT=verbs FARSWAP_VERBS_ADDRESS="[fd00:9::1]:0" "$FARSWAP_BIN_DIR/../tests/conform/conform_transport_device"
echo "ok: IPv6, $SECONDS s"
