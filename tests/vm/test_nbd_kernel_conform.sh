#!/bin/bash
# vm: --modules nbd --cpus 2 --limit 800
# The front end suite over the kernel's NBD client. Two processors: the kernel makes no more hardware queues than that.
set -euo pipefail

exec "${FARSWAP_BIN_DIR%/*}/tests/conform/conform_frontend_nbd_kernel"
