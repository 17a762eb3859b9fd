#!/usr/bin/python3
"""Real kernel swap over FUSE and a loop device: a program that checks its own memory, while servers are drained."""
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from cgroup import MemoryCgroup  # noqa: E402
from farmemd import DEADLINE_S, MIB, Farmemd  # noqa: E402
from farswapd import DRAINED, Farswapd, loop_devices_over, mounts_below, swap_devices  # noqa: E402
from program import limit_time  # noqa: E402

PAGE = 4096
PROGRAM_PAGES = 128 * MIB // PAGE
LIMIT_BYTES = 48 * MIB
NR_CHECKS = 20000


def program():
    """The program, in the cgroup: rounds of random writes and checks until its stdin ends."""
    import mmap  # pylint: disable=import-outside-toplevel
    memory = mmap.mmap(-1, PROGRAM_PAGES * PAGE)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    generator = random.Random(3)
    sequences = [0] * PROGRAM_PAGES

    def write(page):
        sequences[page] += 1
        memory[page * PAGE:(page + 1) * PAGE] = struct.pack("<QQ", page, sequences[page]) * (PAGE // 16)

    def check(page):
        expected = struct.pack("<QQ", page, sequences[page]) * (PAGE // 16)
        if memory[page * PAGE:(page + 1) * PAGE] != expected:
            print("page %d is wrong" % page, flush=True)
            sys.exit(1)

    for page in range(PROGRAM_PAGES):
        write(page)
    while True:
        print("round", flush=True)
        for _ in range(NR_CHECKS):
            page = generator.randrange(PROGRAM_PAGES)
            check(page)
            if generator.random() < 0.3:
                write(page)
        if sys.stdin.read(1) != "g":
            break
    for page in range(PROGRAM_PAGES):
        check(page)
    print("right", flush=True)


class Swap(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-", dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.servers = []
        for name in ("alpha", "beta"):
            server = Farmemd(self.folder, "--memory", "224M", "--slab-size", "4M", name=name)
            self.addCleanup(server.kill)
            self.servers.append(server)
        self.daemon = Farswapd(self.folder, self.servers, "--ahead", "128M", "--swap-priority", "32767", frontend="fuse",
                               size="160M")
        self.addCleanup(self.daemon.stop)
        self.cgroup = MemoryCgroup(os.path.basename(self.folder), LIMIT_BYTES)
        self.addCleanup(self.cgroup.remove)
        self.process = subprocess.Popen([sys.executable, "-B", __file__, "program"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, preexec_fn=self.cgroup.enter)
        self.addCleanup(self.process.stdout.close)
        self.addCleanup(self.process.wait, DEADLINE_S)
        self.addCleanup(self.process.kill)
        limit_time(self, 120)

    def hear(self, word):
        """It says so; the failure tells how the program ended, if it did."""
        line = self.process.stdout.readline()
        self.assertEqual(line, word + "\n", "%s\n%s" % (line or self.process.wait(DEADLINE_S), self.daemon.log()))

    def round(self):
        self.hear("round")

    def go(self):
        self.process.stdin.write("g")
        self.process.stdin.flush()

    def finish(self):
        self.process.stdin.close()
        self.hear("right")
        self.assertEqual(self.process.wait(DEADLINE_S), 0)
        io = self.daemon.status().io
        self.assertEqual((io.read_errors, io.write_errors, io.checksum_errors), (0, 0, 0), self.daemon.log())
        counters = self.daemon.status().frontend.counters
        self.assertEqual((counters.bad_requests, counters.io_errors, counters.kernel_errors), (0, 0, 0))

    def assert_nothing_left(self):
        self.assertNotIn(self.daemon.endpoint, swap_devices())
        self.assertEqual((loop_devices_over(self.folder), mounts_below(self.folder)), ([], []))

    def test_drains_under_real_swap(self):
        alpha, beta = self.servers
        self.round()
        self.assertGreater(swap_devices()[self.daemon.endpoint], 64 * MIB)
        for server in (alpha, beta, alpha):
            # One round beside the drain, and one after it.
            self.go()
            last = self.daemon.drain(server)
            self.assertEqual((last.state, last.pages_left), (DRAINED, 0), last)
            self.round()
            self.go()
            self.round()
            self.assertEqual(self.daemon.server(server).used_slots, 0)
            self.daemon.admin.Undrain(server=server.control_address)
        self.finish()
        self.assertGreater(self.daemon.status().io.read_pages, 1000)
        self.assertEqual(self.daemon.stop(), 0, self.daemon.log())
        self.assert_nothing_left()

    def test_sigterm_with_swap_in_use(self):
        """Everything is read back first, and the program goes on."""
        self.round()
        # Else its memory finds no room.
        self.cgroup.set_limit(2 * PROGRAM_PAGES * PAGE)
        self.assertEqual(self.daemon.stop(), 0, self.daemon.log())
        self.assert_nothing_left()
        self.process.stdin.close()
        self.hear("right")


if __name__ == "__main__":
    if sys.argv[1:] == ["program"]:
        program()
        sys.exit(0)
    if os.geteuid() != 0:
        print("not root, and it turns swap on")
        sys.exit(77)
    if not MemoryCgroup.available():
        print("no cgroup hierarchy with the memory controller is mounted")
        sys.exit(77)
    unittest.main(verbosity=2)
