#!/bin/bash
# vm: --memory 1200M --limit 800
# Nobody but the holder of a lease reads or writes a byte over RDMA, and he none after its end.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=lib/rxe.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/rxe.sh"

rxe_up || { echo "FAIL: the RDMA devices"; exit 1; }
"$FARSWAP_BIN_DIR/../tests/vm/verbs_keys" "${rxe_addresses[0]}:0" "${rxe_addresses[1]}"
echo "ok: $SECONDS s"
