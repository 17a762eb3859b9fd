#!/usr/bin/python3
"""The FUSE front end and the real kernel: the file, the loop device, swap under a program short of memory."""
import ctypes
import errno
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from cgroup import MemoryCgroup  # noqa: E402
from program import DEADLINE_S, Server, limit_time, program, run, skip, wait_until  # noqa: E402

MIB = 1 << 20
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16

if os.geteuid() != 0:
    skip("needs root: it mounts and turns swap on")
if not MemoryCgroup.available():
    skip("no cgroup hierarchy with the memory controller is mounted")
for device in ("/dev/fuse", "/dev/loop-control", "/proc/swaps"):
    if not os.path.exists(device):
        skip("this machine has no " + device)

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, offset, length) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def swaps():
    """Used KiB by device."""
    with open("/proc/swaps", encoding="ascii") as file:
        return {line.split()[0]: int(line.split()[3]) for line in file.readlines()[1:]}


def discarded_pages(device):
    """Since the machine's start, whoever had the device."""
    with open("/sys/block/%s/stat" % os.path.basename(device), encoding="ascii") as file:
        return int(file.read().split()[13]) // (4096 // 512)


def loop_devices_of(path):
    found = []
    for name in os.listdir("/sys/block"):
        try:
            with open("/sys/block/%s/loop/backing_file" % name, encoding="utf-8") as file:
                if file.read().rstrip("\n") == path:
                    found.append("/dev/" + name)
        except FileNotFoundError:
            pass
    return found


def is_mounted(path):
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return any(line.split()[1] == path for line in file)


class AlignedFile:
    """A file read and written past the page cache."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_DIRECT)

    def close(self):
        os.close(self.fd)

    def write(self, data, offset):
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            return os.pwritev(self.fd, [buffer], offset)

    def read(self, length, offset):
        with mmap.mmap(-1, length) as buffer:
            return buffer[:os.preadv(self.fd, [buffer], offset)]


class FuseSwapTest(unittest.TestCase):
    SPIN_US = 0
    NR_QUEUES = 1

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="farswap-fuse-")
        self.addCleanup(shutil.rmtree, folder, True)
        self.mount = os.path.join(folder, "mount")
        self.name = os.path.basename(folder)
        self.addCleanup(self.take_down)
        self.servers = []
        limit_time(self, 120)

    def make_cgroup(self):
        cgroup = MemoryCgroup(self.name, 48 * MIB)
        # Before the take-down: swap is needed as long as a program of the cgroup is there.
        self.addCleanup(cgroup.remove)
        return cgroup

    def start(self, kind, mib=128):
        server = Server(program("fuse_ram"), self.mount, str(mib), kind, str(self.SPIN_US), str(self.NR_QUEUES))
        self.servers.append(server)
        return server

    def take_down(self):
        """Whatever has happened: no swap, no loop device, no mount, no process is left."""
        for device in loop_devices_of(self.mount + "/swap"):
            if device in swaps():
                run("swapoff", device)
        for server in self.servers:
            if server.process.poll() is None:
                server.process.send_signal(signal.SIGTERM)
                try:
                    server.process.wait(DEADLINE_S)
                except subprocess.TimeoutExpired:
                    pass
            server.kill()
        for device in loop_devices_of(self.mount + "/swap"):
            run("losetup", "-d", device)
        while is_mounted(self.mount):
            run("umount", "-l", self.mount)

    def assert_nothing_left(self):
        self.assertEqual(loop_devices_of(self.mount + "/swap"), [])
        self.assertFalse(is_mounted(self.mount))
        self.assertFalse(os.path.exists(self.mount))

    def test_file(self):
        server = self.start("file")
        path = self.mount + "/swap"
        self.assertEqual(os.listdir(self.mount), ["swap"])
        self.assertEqual(os.stat(path).st_size, 128 * MIB)
        file = AlignedFile(path)
        data = os.urandom(4 * MIB)
        self.assertEqual(file.write(data, 3 * 4096), len(data))
        self.assertEqual(file.read(len(data), 3 * 4096), data)
        self.assertEqual(file.read(8192, 128 * MIB - 4096), bytes(4096))
        self.assertEqual(file.read(4096, 128 * MIB), b"")
        fallocate(file.fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 3 * 4096, 4096)
        fallocate(file.fd, FALLOC_ZERO_RANGE, 5 * 4096, 4096)
        self.assertEqual(file.read(4 * 4096, 3 * 4096),
                         bytes(4096) + data[4096:8192] + bytes(4096) + data[12288:16384])
        os.fsync(file.fd)
        for wrong in (lambda: file.read(512, 0), lambda: file.write(bytes(512), 0),
                      lambda: file.write(bytes(4096), 128 * MIB),
                      lambda: fallocate(file.fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 100, 4096),
                      lambda: open(self.mount + "/other", "rb"), lambda: os.truncate(path, 0)):
            self.assertRaises(OSError, wrong)
        file.close()
        counters = server.terminate()
        self.assertEqual(counters["kernel_errors"], 0)
        self.assertEqual(counters["most_pages"], 256)
        self.assert_nothing_left()

    def test_loop_device(self):
        if not shutil.which("fio"):
            self.skipTest("fio is not installed")
        server = self.start("loop")
        device = server.ready[1]
        done = run("fio", "--name=job", "--filename=" + device, "--ioengine=libaio", "--direct=1",
                   "--rw=randtrimwrite", "--bs=4k", "--iodepth=32", "--size=64m", "--verify=crc32c",
                   "--verify_fatal=1", "--verify_state_save=0")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        done = run("fio", "--name=job", "--filename=" + device, "--ioengine=libaio", "--direct=1",
                   "--rw=randwrite", "--bsrange=4k-1m", "--blockalign=4k", "--iodepth=16", "--size=128m",
                   "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        counters = server.terminate()
        self.assertGreater(counters["discards"], 0)
        for name in ("bad_requests", "io_errors", "kernel_errors"):
            self.assertEqual(counters[name], 0)
        self.assert_nothing_left()

    def test_swap_under_a_program_short_of_memory(self):
        cgroup = self.make_cgroup()
        server = self.start("swap", 256)
        device = server.ready[1]
        self.assertIn(device, swaps())
        discarded_before = discarded_pages(device)
        done = run(program("swap_hog"), 112, 2, preexec_fn=cgroup.enter)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "0 wrong words\n")
        # The kernel discards the clusters of an ended program from a work queue, and swapoff drops what is left there.
        wait_until(lambda: discarded_pages(device) - discarded_before >= 64 << 8, "the kernel's discards")
        counters = server.terminate()
        self.assertNotIn(device, swaps())
        self.assertGreater(counters["pages_written"], 2 * (64 << 8))
        self.assertGreater(counters["pages_read"], 2 * (48 << 8))
        self.assertGreaterEqual(counters["pages_discarded"], 64 << 8)
        self.assertEqual(counters["kernel_errors"], 0)
        self.assert_nothing_left()

    def test_stop_while_in_use_brings_everything_back(self):
        """swapoff reads the pages of a living program back through the server that is being stopped."""
        cgroup = self.make_cgroup()
        server = self.start("swap", 256)
        hog = subprocess.Popen([program("swap_hog"), "112", "1", "HOLD"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, preexec_fn=cgroup.enter)
        self.addCleanup(hog.kill)
        self.assertEqual(hog.stdout.readline(), "filled\n")
        self.assertGreater(swaps()[server.ready[1]], 48 << 10)
        cgroup.set_limit(512 * MIB)
        counters = server.terminate()
        self.assertGreater(counters["pages_written"], 48 << 8)
        self.assert_nothing_left()
        self.assertEqual(hog.communicate(timeout=DEADLINE_S)[0], "0 wrong words\n")

    def test_swap_that_was_turned_on_by_hand(self):
        server = self.start("loop")
        device = server.ready[1]
        for command in (["mkswap", device], ["swapon", device]):
            self.assertEqual(run(*command).returncode, 0, command)
        self.assertIn(device, swaps())
        server.terminate()
        self.assertNotIn(device, swaps())
        self.assert_nothing_left()

    def test_no_room_to_turn_swap_off(self):
        cgroup = self.make_cgroup()
        if not cgroup.disable_oom_killer():
            self.skipTest("cgroup v2 cannot keep its OOM killer away")
        server = self.start("swap", 256)
        device = server.ready[1]
        hog = subprocess.Popen([program("swap_hog"), "112", "1", "HOLD"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, preexec_fn=cgroup.enter)
        self.addCleanup(hog.kill)
        self.assertEqual(hog.stdout.readline(), "filled\n")
        server.process.send_signal(signal.SIGTERM)
        # It says its counters at the attempt, and stays.
        self.assertTrue(server.process.stdout.readline())
        wait_until(lambda: "still up" in server.process.stdout.readline(), "the refusal")
        self.assertIn(device, swaps())
        # The program's pages are served as before, and once it is gone there is room.
        self.assertEqual(hog.communicate(timeout=DEADLINE_S)[0], "0 wrong words\n")
        server.terminate()
        self.assertNotIn(device, swaps())
        self.assert_nothing_left()

    def test_one_server_for_one_place(self):
        self.start("file")
        done = run(program("fuse_ram"), self.mount, 128, "file")
        self.assertEqual(done.returncode, 1)
        self.assertIn("another process serves " + self.mount, done.stderr)

    def test_remains_of_a_dead_server(self):
        first = self.start("swap")
        device = first.ready[1]
        first.kill()
        with self.assertRaises(OSError) as caught:
            os.listdir(self.mount)
        self.assertEqual(caught.exception.errno, errno.ENOTCONN)
        # In use as swap it cannot be taken away, and the message says what to do.
        done = run(program("fuse_ram"), self.mount, 128, "swap")
        self.assertEqual(done.returncode, 1)
        self.assertIn(device + " of a process that has died is still in use as swap", done.stderr)
        self.assertEqual(run("swapoff", device).returncode, 0)
        self.start("swap").terminate()
        # A loop device that somebody still holds, too.
        second = self.start("loop")
        with open(second.ready[1], "rb"):
            second.kill()
            self.assertEqual(loop_devices_of(self.mount + "/swap"), [second.ready[1]])
            third = self.start("loop")
            self.assertNotEqual(third.ready[1], second.ready[1])
            third.terminate()
        self.assertFalse(is_mounted(self.mount))

    def test_foreign_mount_is_left_alone(self):
        os.mkdir(self.mount)
        self.assertEqual(run("mount", "-t", "tmpfs", "none", self.mount).returncode, 0)
        self.addCleanup(run, "umount", self.mount)
        done = run(program("fuse_ram"), self.mount, 128, "file")
        self.assertEqual(done.returncode, 1)
        self.assertIn("a file system of type tmpfs is mounted at " + self.mount, done.stderr)
        self.assertTrue(is_mounted(self.mount))

    def test_aborted_connection_does_not_end_the_server(self):
        server = self.start("file")
        device = os.stat(self.mount).st_dev
        abort = "/sys/fs/fuse/connections/%d/abort" % os.minor(device)
        if not os.path.exists(abort):
            if run("mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections").returncode != 0:
                self.skipTest("fusectl cannot be mounted")
            self.addCleanup(run, "umount", "/sys/fs/fuse/connections")
        with open(abort, "w", encoding="ascii") as file:
            file.write("1")
        with self.assertRaises(OSError):
            os.listdir(self.mount)
        self.assertIsNone(server.process.poll())
        server.terminate()
        self.assert_nothing_left()


class FuseSwapSpinningTest(FuseSwapTest):
    """The same with pollers and two reactors."""
    SPIN_US = 100
    NR_QUEUES = 2


if __name__ == "__main__":
    unittest.main()
