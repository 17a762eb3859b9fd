# Memory servers and a farswapd in a machine of tests/vm, in $farswap_dir.
# shellcheck shell=bash

farswap_dir=/tmp/farswap
farswap_address=127.0.0.1 # of the servers
mkdir -p "$farswap_dir"
farswap_daemon=
farswap_servers=()
farswap_device= # once it is ready: /dev/NAME
farswap_name=

farswap_say()
{
	echo "$SECONDS s: $*"
}

farswap_fail()
{
	echo "FAIL: $*"
	tail -n 20 "$farswap_dir"/*.log
	cat /proc/swaps
	exit 1
}

# farswap_wait SECONDS WHAT COMMAND...: until the command succeeds; else the test has failed: WHAT has not happened.
farswap_wait()
{
	local until=$((SECONDS + $1)) what=$2

	shift 2
	until "$@"; do
		[ "$SECONDS" -lt "$until" ] || farswap_fail "$what"
		sleep 0.2
	done
}

# farswap_start_servers NR SIZE ARG...: with control ports from 7771 and data ports from 7781 on.
farswap_start_servers()
{
	local i nr=$1 size=$2

	shift 2
	for ((i = 1; i <= nr; i++)); do
		"$FARSWAP_BIN_DIR/farmemd" --memory "$size" --slab-size 8M --name "m$i" --listen "$farswap_address:777$i" \
			--data-listen "$farswap_address:778$i" --ready-file "$farswap_dir/m$i.ready" "$@" \
			>"$farswap_dir/m$i.log" 2>&1 &
		farswap_servers+=($!)
	done
	for ((i = 1; i <= nr; i++)); do
		farswap_wait 30 "farmemd $i does not start" test -e "$farswap_dir/m$i.ready"
	done
}

# farswap_start ARG...: a farswapd, of two servers, which need not be ready yet.
farswap_start()
{
	rm -f "$farswap_dir/ready"
	"$FARSWAP_BIN_DIR/farswapd" --servers "$farswap_address:7771,$farswap_address:7772" --ahead 16M \
		--admin-socket "$farswap_dir/admin" --ready-file "$farswap_dir/ready" "$@" \
		>"$farswap_dir/farswapd.log" 2>&1 &
	farswap_daemon=$!
}

farswap_is_over()
{
	[ -e "$farswap_dir/ready" ] || ! kill -0 "$farswap_daemon" 2>/dev/null
}

# Waits for it, and learns its device.
farswap_ready()
{
	farswap_wait 60 "farswapd does not start" farswap_is_over
	[ -e "$farswap_dir/ready" ] || farswap_fail "farswapd has ended"
	farswap_device=$(sed -n 's/^endpoint=//p' "$farswap_dir/ready")
	farswap_name=${farswap_device#/dev/}
}

farswap_ctl()
{
	timeout 90 "$FARSWAP_BIN_DIR/farswapctl" --socket "$farswap_dir/admin" "$@"
}

# farswap_is_swap DEVICE
farswap_is_swap()
{
	grep -q "^$1 " /proc/swaps
}

# farswap_used_above KIB: of the device, as swap.
farswap_used_above()
{
	local used

	used=$(awk -v device="$farswap_device" '$1 == device { print $4 }' /proc/swaps)
	[ "${used:-0}" -gt "$1" ]
}

# farswap_swap_by_hand ARG...: of a farswapd that did not turn it on, and turns it off all the same before it ends.
farswap_swap_by_hand()
{
	farswap_start --swap=no "$@"
	farswap_ready
	! farswap_is_swap "$farswap_device" || farswap_fail "swap is on"
	mkswap "$farswap_device" >/dev/null || farswap_fail "mkswap $farswap_device"
	swapon "$farswap_device" || farswap_fail "swap cannot be turned on by hand"
	kill -TERM "$farswap_daemon"
	wait "$farswap_daemon" || farswap_fail "farswapd ended with $?"
	! farswap_is_swap "$farswap_device" || farswap_fail "swap that was turned on by hand is still on"
	farswap_say "swap that was turned on by hand is off"
}

# farswap_in_flight: requests that the device has, and has not answered.
farswap_in_flight()
{
	local reads writes

	read -r reads writes <"/sys/block/$farswap_name/inflight"
	echo $((reads + writes))
}

# farswap_queue_is ATTRIBUTE PATTERN: of the device's request queue.
farswap_queue_is()
{
	local value

	value=$(cat "/sys/block/$farswap_name/queue/$1")
	# shellcheck disable=SC2053
	[[ $value == $2 ]] || farswap_fail "$1 is $value, and not $2"
}

# What the kernel says of a device that fails or does not answer. console.py knows what fails every test.
readonly farswap_kernel_errors='I/O error|(Read|Write)-error on swap-device|critical .* error, dev|'\
'(nbd[0-9]+: .*(timed out|failed|[Ss]tuck|invalid|Unexpected|[Dd]ouble reply|Dead connection|returned error|Wrong magic))|'\
'loop: .*error|ublk.*(failed|timed? ?out)|Unable to handle swap'

# farswap_no_errors: neither the kernel has met one, since the start or farswap_forget_errors, nor the front end.
farswap_no_errors()
{
	local counter

	farswap_kernel_no_errors
	farswap_ctl status -o json >"$farswap_dir/status.json" || farswap_fail "no status"
	for counter in bad_requests io_errors kernel_errors; do
		grep -q "\"$counter\": 0\b" "$farswap_dir/status.json" || farswap_fail "$(cat "$farswap_dir/status.json")"
	done
}

farswap_kernel_no_errors()
{
	! dmesg | grep -E "$farswap_kernel_errors" || farswap_fail "the kernel has met errors"
}

# farswap_forget_errors: of the kernel's, those that the test has caused on purpose.
farswap_forget_errors()
{
	dmesg -C
}

# farswap_drain_when_used KIB FILE: in the background, when so much is swapped out, empties the first server. FILE has its
# words; farswap_drain is the process, which fails when the program that swaps has not outlived the drain.
farswap_drain=
farswap_drain_when_used()
{
	(
		farswap_wait 90 "swap is not used" farswap_used_above "$1"
		farswap_say "drain"
		farswap_ctl drain "$farswap_address:7771" >"$2" 2>&1
		pgrep -x swap_hog >/dev/null || farswap_fail "the program has ended before the drain"
	) &
	# shellcheck disable=SC2034
	farswap_drain=$!
}
