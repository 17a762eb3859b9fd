# What a user would take instead of farswap, for tests/vm/bench_swap. Each function makes a block device of the size asked for,
# in MiB, and sets peer_device; or prints why it cannot, in one line, and fails.
# shellcheck shell=bash source-path=SCRIPTDIR disable=SC2034

# shellcheck source=rxe.sh
. "$FARSWAP_SOURCE_DIR/tests/vm/lib/rxe.sh"

peer_device=
peer_daemon= # the process that serves it, if it is one
readonly peer_brds=3 # RAM disks: one alone, one behind each NVMe transport

# _peer_modules NAME...
_peer_modules()
{
	modprobe -a "$@" 2>/dev/null || { echo "the kernel has not all of these modules: $*"; return 1; }
}

# peer_brd MIB [N]: the kernel's RAM disk.
peer_brd()
{
	[ -b /dev/ram0 ] || modprobe brd "rd_nr=$peer_brds" "rd_size=$(($1 << 10))" 2>/dev/null ||
		{ echo "the kernel has no module brd"; return 1; }
	peer_device=/dev/ram${2:-0}
}

# peer_zram MIB
peer_zram()
{
	_peer_modules zram && echo "$1M" >/sys/block/zram0/disksize || return 1
	peer_device=/dev/zram0
}

# _peer_namespace UUID: sets peer_device to the NVMe disk that has it, once it is there.
_peer_namespace()
{
	local disk until=$((SECONDS + 15))

	while [ "$SECONDS" -lt "$until" ]; do
		for disk in /sys/block/nvme*n*; do
			if grep -qs "$1" "$disk/uuid"; then
				peer_device=/dev/${disk##*/}
				[ -b "$peer_device" ] && return 0
			fi
		done
		sleep 0.1
	done
	echo "no disk of the NVMe target's has come"
	return 1
}

# _peer_target TRANSPORT NUMBER UUID: the kernel's NVMe target on the first end of the link, with peer_device.
_peer_target()
{
	local subsystem=/sys/kernel/config/nvmet/subsystems/farswap-$1 port=/sys/kernel/config/nvmet/ports/$2

	mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config || return 1
	mkdir "$subsystem" "$subsystem/namespaces/1" "$port" || return 1
	echo 1 >"$subsystem/attr_allow_any_host" || return 1
	echo "$peer_device" >"$subsystem/namespaces/1/device_path" || return 1
	echo "$3" >"$subsystem/namespaces/1/device_uuid" || return 1
	echo 1 >"$subsystem/namespaces/1/enable" || return 1
	echo "$1" >"$port/addr_trtype" || return 1
	echo ipv4 >"$port/addr_adrfam" || return 1
	echo "${rxe_addresses[0]}" >"$port/addr_traddr" || return 1
	echo "$((4420 + $2))" >"$port/addr_trsvcid" || return 1
	ln -s "$subsystem" "$port/subsystems/"
}

# peer_nvme MIB tcp|rdma: a RAM disk behind the kernel's NVMe target, and the kernel's initiator on the second end of the link,
# with one queue.
peer_nvme()
{
	local transport=$2 number uuid to

	number=$([ "$2" = tcp ] && echo 1 || echo 2)
	uuid=00000000-0000-4000-8000-00000000000$number
	_peer_modules nvmet "nvmet-$transport" "nvme-$transport" && peer_brd "$1" "$number" || return 1
	_peer_target "$transport" "$number" "$uuid" || { echo "the NVMe target over $transport cannot be set up"; return 1; }
	to=traddr=${rxe_addresses[0]},trsvcid=$((4420 + number)),host_traddr=${rxe_addresses[1]}
	echo "transport=$transport,$to,nqn=farswap-$transport,nr_io_queues=1" >/dev/nvme-fabrics ||
		{ echo "no connection to the NVMe target over $transport"; return 1; }
	_peer_namespace "$uuid"
}

# peer_nbdkit MIB: nbdkit's memory plugin on the first end of the link, and the kernel's NBD client on the second.
peer_nbdkit()
{
	_peer_modules nbd || return 1
	# The last, since those who ask the kernel for one get the first.
	peer_device=$(find /dev -maxdepth 1 -name 'nbd*' | sort -V | tail -n 1)
	nbdkit --foreground --ipaddr "${rxe_addresses[0]}" --port 10809 memory "$1M" >/tmp/nbdkit.log 2>&1 &
	peer_daemon=$!
	rxe_wait_port 10809 || { echo "nbdkit does not listen: $(tail -n 1 /tmp/nbdkit.log)"; return 1; }
	timeout 30 nbd-client -N '' -b 4096 "${rxe_addresses[0]}" 10809 "$peer_device" >/tmp/nbd-client.log 2>&1 ||
		{ echo "nbd-client: $(tail -n 1 /tmp/nbd-client.log)"; return 1; }
}
