#!/bin/bash
# vm: --modules ublk_drv --cpus 2 --memory 2G --limit 800
# The suite of all block front ends, on the kernel's ublk driver.
set -euo pipefail

exec "${FARSWAP_BIN_DIR%/*}/tests/conform/conform_frontend_ublk"
