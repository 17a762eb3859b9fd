# Process 1 of the machine, in its final file system: prepares it, runs the command, and reports how it ended.
# All by busybox, which is in memory: to start a program of the host's takes ten times as long.
# shellcheck shell=dash disable=SC2154
b=/run/vm/busybox
# shellcheck source=/dev/null
. /run/vm/settings

$b mkdir -p /dev/shm /dev/pts /run/lock "/lib/modules/$release"
$b mount -t tmpfs shm /dev/shm
$b mount -t devpts -o ptmxmode=666 pts /dev/pts
$b mount -t cgroup2 cgroup /sys/fs/cgroup
$b mount -t debugfs debug /sys/kernel/debug
$b mount -t tracefs trace /sys/kernel/tracing
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose modules "/lib/modules/$release"
$b ln -s /proc/self/fd /dev/fd
$b ln -s fd/0 /dev/stdin
$b ln -s fd/1 /dev/stdout
$b ln -s fd/2 /dev/stderr
$b hostname farswap-vm
$b ip link set lo up
ulimit -l unlimited
i=0
while read -r share; do
	$b mkdir -p "$share"
	$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap "share$i" "$share"
	i=$((i + 1))
done </run/vm/shares

output=
status=
for port in /sys/class/virtio-ports/*; do
	case $($b cat "$port/name") in
	output) output=/dev/${port##*/} ;;
	status) status=/dev/${port##*/} ;;
	esac
done
exec 3>"$status"
echo up >&3

if [ "$interactive" = yes ]; then
	$b setsid -c /bin/bash /run/vm/command </dev/hvc0 >/dev/hvc0 2>&1 3>&-
	result=$?
else
	$b mkfifo /run/vm/pipe
	$b cat </run/vm/pipe >"$output" 3>&- &
	relay=$!
	$b setsid /bin/bash /run/vm/command </dev/null >/run/vm/pipe 2>&1 3>&- &
	wait $!
	result=$?
	# What the command has left behind would keep the pipe open. Threads of the kernel have no program.
	for process in /proc/[0-9]*; do
		process=${process#/proc/}
		[ "$process" = 1 ] || [ "$process" = "$relay" ] || ! $b readlink "/proc/$process/exe" >/dev/null 2>&1 ||
			$b kill -9 "$process" 2>/dev/null
	done
	wait "$relay"
fi
$b sync
echo "ended $result $($b cat /proc/sys/kernel/tainted)" >&3
exec 3>&-
echo b >/proc/sysrq-trigger
while :; do
	$b sleep 1
done
