#!/bin/bash
# The part of tests/vm/bench_verbs that runs in the machine: a farmemd at one end of a link, and at the other, in turn,
# verbs_meter, which is farswap's transport, and the programs of perftest, on the same devices.
#
#   bench_verbs.sh ROUNDS SCALE
#
# In FARSWAP_VM_RESULTS it leaves passes.tsv (case, round, "farswap" or "perftest", what was printed in one line) and the
# kernel's release.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

# shellcheck source=rxe.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/rxe.sh"
# shellcheck source=farswap.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/farswap.sh"

readonly rounds=$1 scale=$2
readonly meter=${FARSWAP_BIN_DIR%/*}/tests/vm/verbs_meter
readonly results=$FARSWAP_VM_RESULTS
readonly port=18515

# perftest PROGRAM BYTES DEPTH NR ARG...: its server on the first device and its client on the second. The last line of figures.
perftest()
{
	local program=$1 arguments=(-F -x "$rxe_gid_index" -p "$port" -s "$2" -n "$4") server

	[ "$3" = 1 ] || arguments+=(-t "$3")
	arguments+=("${@:5}")
	"$program" -d "${rxe_names[0]}" "${arguments[@]}" >perftest-server.log 2>&1 &
	server=$!
	rxe_wait_port "$port" || farswap_fail "$program does not listen"
	timeout 120 "$program" -d "${rxe_names[1]}" "${arguments[@]}" 127.0.0.1 >perftest.log 2>&1 ||
		farswap_fail "$program: $(cat perftest.log)"
	wait "$server" || farswap_fail "the server of $program: $(cat perftest-server.log)"
	grep -E '^ *[0-9]+ +[0-9]+ ' perftest.log | tail -n 1
}

# ours OPTION BYTES DEPTH NR ARG...
ours()
{
	timeout 120 "$meter" --server "$farswap_address:7771" --device "${rxe_names[1]}" "$1" --bytes "$2" --depth "$3" --nr "$4" \
		"${@:5}"
}

# run_case CASE ROUND PROGRAM OPTION BYTES DEPTH NR [EVENTS]: one after the other; which is first changes from round to round.
run_case()
{
	local case=$1 round=$2 program=$3 option=$4 bytes=$5 depth=$6 nr=$(($7 * scale)) order=(farswap perftest) who line
	local our_events=() their_events=()

	[ "${8-}" != events ] || { our_events=(--events) their_events=(-e); }
	[ $((round % 2)) = 1 ] || order=(perftest farswap)
	for who in "${order[@]}"; do
		if [ "$who" = farswap ]; then
			line=$(ours "$option" "$bytes" "$depth" "$nr" "${our_events[@]}") || farswap_fail "$case: verbs_meter: $line"
		else
			line=$(perftest "$program" "$bytes" "$depth" "$nr" "${their_events[@]}") || farswap_fail "$case: $line"
		fi
		printf '%s\t%s\t%s\t%s\n' "$case" "$round" "$who" "$line" >>"$results/passes.tsv"
		farswap_say "round $round: $case: $who: $line"
	done
}

cd "$farswap_dir"
uname -r | tee "$results/release"
rxe_up || farswap_fail "the RDMA devices"
farswap_address=${rxe_addresses[0]}
farswap_start_servers 1 64M
before=$(rxe_packets 1)
: >"$results/passes.tsv"
for ((round = 1; round <= rounds; round++)); do
	run_case read-4k "$round" ib_read_lat --read 4096 1 400
	run_case read-4k-events "$round" ib_read_lat --read 4096 1 400 events
	run_case write-64k "$round" ib_write_bw --write 65536 32 128
	run_case write-1m "$round" ib_write_bw --write 1048576 8 16
done
packets=$(($(rxe_packets 1) - before))
[ "$packets" -gt 1000 ] || farswap_fail "only $packets packets on the link"
