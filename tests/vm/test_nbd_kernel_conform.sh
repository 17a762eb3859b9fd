#!/bin/bash
# vm: --kernel 6.1 --modules nbd --cpus 2 --limit 800
# The front end suite over the kernel's NBD client, on the oldest kernel there is for it, and Debian's that has no ublk, so that
# farswapd takes this one. Two processors: the kernel makes no more hardware queues than that.
set -euo pipefail

exec "${FARSWAP_BIN_DIR%/*}/tests/conform/conform_frontend_nbd_kernel"
