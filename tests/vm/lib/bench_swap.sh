#!/bin/bash
# vm: --memory 3G
# The part of tests/vm/bench_swap that runs in the machine: sets up all rows, and measures each in turn, round by round.
#
#   bench_swap.sh wall|instructions plain|profile MIB LIMIT_MIB ROUNDS PAGE_CLUSTER [ROW...]
#
# In FARSWAP_VM_RESULTS it leaves rows.tsv (row, path, "link" or "local", why it was skipped), passes.jsonl (swap_meter's), the
# kernel's release, and with `profile` for each row what perf says of its last round.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=peers.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/peers.sh"
# shellcheck source=farswap.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/farswap.sh"

readonly clock=$1 profile=$2 mib=$3 limit_mib=$4 rounds=$5 page_cluster=$6
shift 6
readonly only=("$@")
# More than twice of what is used: else the kernel frees the copy of each page that it reads, and must store the page anew.
readonly device_mib=$((2 * mib + 16))
readonly ahead_mib=16
readonly meter=${FARSWAP_BIN_DIR%/*}/tests/vm/swap_meter
readonly results=$FARSWAP_VM_RESULTS
readonly cgroup=/sys/fs/cgroup/meter
readonly farswap_kinds=(ublk nbd-kernel fuse)
declare -rA farswap_transports=([tcp]=TCP [verbs]="RDMA (rxe)")

rows=()
declare -A device processes

is_wanted()
{
	local row

	[ ${#only[@]} -gt 0 ] || return 0
	for row in "${only[@]}"; do
		[ "$row" != "$1" ] || return 0
	done
	return 1
}

# row_add ROW PATH LINK DEVICE [PROCESS=PID...]
row_add()
{
	rows+=("$1")
	printf '%s\t%s\t%s\t\n' "$1" "$2" "$3" >>"$results/rows.tsv"
	device[$1]=$4
	processes[$1]=${*:5}
	[ -z "$4" ] || mkswap "$4" >/dev/null 2>&1 || farswap_fail "mkswap $4"
	farswap_say "$1: ${4:-no device}"
}

# row_skip ROW PATH LINK REASON
row_skip()
{
	printf '%s\t%s\t%s\t%s\n' "$@" >>"$results/rows.tsv"
	farswap_say "$1: skipped: $4"
}

# row_peer ROW PATH LINK FUNCTION ARG...: one of peers.sh. Not in a subshell, for what it sets.
row_peer()
{
	local row=$1 path=$2 link=$3

	is_wanted "$row" || return 0
	shift 3
	peer_daemon=
	if "$@" >"$farswap_dir/reason"; then
		row_add "$row" "$path" "$link" "$peer_device" ${peer_daemon:+"nbdkit=$peer_daemon"}
	else
		row_skip "$row" "$path" "$link" "$(tail -n 1 "$farswap_dir/reason")"
	fi
}

# ---- farswap ----

# farswap_knows ARG...: whether this farswapd has these choices. It looks at them before it misses a size.
farswap_knows()
{
	! "$FARSWAP_BIN_DIR/farswapd" --servers localhost:1 "$@" >"$farswap_dir/reason" 2>&1 &&
		grep -q '^farswapd: size:' "$farswap_dir/reason"
}

farswap_server=
farswap_server_up()
{
	local nr=$((${#farswap_kinds[@]} * ${#farswap_transports[@]}))

	"$FARSWAP_BIN_DIR/farmemd" --memory "$((nr * (device_mib / 8 * 8 + 8 + ahead_mib)))M" --slab-size 8M --name lender \
		--listen "${rxe_addresses[0]}:7771" --data-listen "${rxe_addresses[0]}:7781" --ready-file "$farswap_dir/farmemd.ready" \
		>"$farswap_dir/farmemd.log" 2>&1 &
	farswap_server=$!
	farswap_wait 60 "farmemd does not start" test -e "$farswap_dir/farmemd.ready"
}

# farswap_row KIND TRANSPORT: begins to start it.
farswap_begun=()
farswap_row()
{
	local kind=$1 transport=$2 row=farswap-$1-$2 path arguments

	is_wanted "$row" || return 0
	path="$kind, farswapd, ${farswap_transports[$transport]}, farmemd"
	arguments=(--frontend "$kind" --transport "$transport")
	# TCP is what a farswapd does that knows of no transports.
	[ "$transport" != tcp ] || farswap_knows --transport tcp || arguments=(--frontend "$kind")
	# Each with a file of its own: one is what there is by default, and two daemons cannot have the same.
	[ "$kind" != ublk ] || arguments+=(--state-file "/run/farswap/state/$row")
	if ! farswap_knows "${arguments[@]}"; then
		row_skip "$row" "$path" link "$(sed -n '1s/^farswapd: //p' "$farswap_dir/reason")"
		return
	fi
	[ -n "$farswap_server" ] || farswap_server_up
	"$FARSWAP_BIN_DIR/farswapd" "${arguments[@]}" --swap=no --size "${device_mib}M" --queues 1 --ahead "${ahead_mib}M" \
		--servers "${rxe_addresses[0]}:7771" --dead-after 5s --start-timeout 60s --name "$row" \
		--admin-socket "$farswap_dir/$row.admin" --mount-dir "$farswap_dir/$row.mount" \
		--ready-file "$farswap_dir/$row.ready" >"$farswap_dir/$row.log" 2>&1 &
	farswap_begun+=("$row $! $path")
}

farswap_is_there()
{
	[ -e "$farswap_dir/$1.ready" ] || ! kill -0 "$2" 2>/dev/null
}

farswap_rows_finish()
{
	local row daemon path endpoint

	[ ${#farswap_begun[@]} -gt 0 ] || return 0
	while read -r row daemon path; do
		farswap_wait 60 "$row does not start" farswap_is_there "$row" "$daemon"
		if [ -e "$farswap_dir/$row.ready" ]; then
			endpoint=$(sed -n 's/^endpoint=//p' "$farswap_dir/$row.ready")
			row_add "$row" "$path" link "$endpoint" "farswapd=$daemon" "farmemd=$farswap_server"
		else
			# What the kernel does not have is said in the log's last line.
			row_skip "$row" "$path" link "$(tail -n 1 "$farswap_dir/$row.log")"
		fi
	done < <(printf '%s\n' "${farswap_begun[@]}")
}

# ---- all rows ----

# TCP as on a network for storage, for all rows alike: with a small window, or with acknowledgments that are delayed for 40 ms, a
# few waits would be most of what is measured; nvme-tcp does not even sleep in them.
link_up()
{
	local i name

	rxe_up && rxe_route_unbound || return 1
	for name in tcp_rmem tcp_wmem; do
		echo "4096 4194304 8388608" >"/proc/sys/net/ipv4/$name" || return 1
	done
	for i in 0 1; do
		ip route change "${rxe_addresses[1 - i]}" dev "${rxe_links[i]}" src "${rxe_addresses[i]}" table $((21 + i)) rto_min 5ms ||
			return 1
	done
}

rows_up()
{
	local kind transport

	: >"$results/rows.tsv"
	: >"$results/passes.jsonl"
	modprobe -a loop fuse ublk_drv nbd 2>/dev/null || true
	for transport in tcp verbs; do
		for kind in "${farswap_kinds[@]}"; do
			farswap_row "$kind" "$transport"
		done
	done
	farswap_rows_finish
	row_peer nvme-tcp "nvme-tcp, TCP, nvmet-tcp, brd; all in the kernel" link peer_nvme "$device_mib" tcp
	row_peer nvme-rdma "nvme-rdma, RDMA (rxe), nvmet-rdma, brd; all in the kernel" link peer_nvme "$device_mib" rdma
	row_peer nbd-nbdkit-tcp "nbd of the kernel, TCP, nbdkit's memory plugin" link peer_nbdkit "$device_mib"
	row_peer zram "zram; local, compressed" local peer_zram "$device_mib"
	row_peer brd "brd, a RAM disk; local" local peer_brd "$device_mib"
	! is_wanted none || row_add none "no swap and no limit: the program itself" local ""
}

# ---- measuring ----

# profile_of ROW: of perf.data.
profile_of()
{
	{
		perf report -i "$farswap_dir/perf.data" --stdio --sort comm &&
			perf report -i "$farswap_dir/perf.data" --stdio --sort comm,dso,symbol --percent-limit 0.5
	} >"$results/profile-$1.txt" 2>"$farswap_dir/perf.log"
}

# measure ROW ROUND
measure()
{
	local row=$1 disk=${device[$1]} arguments=() perf=() process status=0

	for process in ${processes[$row]}; do
		arguments+=(--process "$process")
	done
	[ "$clock" = wall ] || arguments+=(--spin)
	if [ -n "$disk" ]; then
		swapon --discard=pages "$disk" || farswap_fail "$row: swapon $disk"
		arguments+=(--cgroup "$cgroup" --limit-mib "$limit_mib")
	fi
	# A sample each 100 us of the machine's clock.
	if [ "$profile" = profile ] && [ "$2" = "$rounds" ]; then
		perf=(perf record -q -a -e cpu-clock -c 100000 -o "$farswap_dir/perf.data" --)
	fi
	timeout 240 "${perf[@]}" "$meter" --row "$row" --round "$2" --mib "$mib" "${arguments[@]}" \
		--count "sent_0=/sys/class/net/${rxe_links[0]}/statistics/tx_packets" \
		--count "sent_1=/sys/class/net/${rxe_links[1]}/statistics/tx_packets" >>"$results/passes.jsonl" || status=$?
	[ -z "$disk" ] || swapoff "$disk" || farswap_fail "$row: swapoff $disk"
	[ ${#perf[@]} = 0 ] || profile_of "$row" || farswap_fail "$row: perf"
	# Wrong words are among its figures: they fail the row, and with it the run (swap_table.py).
	[ "$status" -le 1 ] || farswap_fail "$row: swap_meter ended with $status"
	farswap_say "round $2: $row$([ "$status" = 0 ] || echo ": words were wrong")"
}

cd "$farswap_dir"
uname -r | tee "$results/release"
link_up || farswap_fail "the link"
echo "$page_cluster" >/proc/sys/vm/page-cluster
[ "$(cat /sys/module/zswap/parameters/enabled 2>/dev/null || echo N)" = N ] || echo N >/sys/module/zswap/parameters/enabled
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir "$cgroup"
rows_up
for ((round = 1; round <= rounds; round++)); do
	for row in "${rows[@]}"; do
		measure "$row" "$round"
	done
done
