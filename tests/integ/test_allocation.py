#!/usr/bin/python3
"""Nothing is allocated or freed on the threads of the data path once the daemons are up: not for requests, not for a drain,
not when a server dies."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from farmemd import Farmemd, BIN_DIR  # noqa: E402
from farswapd import DRAINED, Farswapd  # noqa: E402
from verifier import Verifier  # noqa: E402

WATCH = os.path.join(os.path.dirname(BIN_DIR), "tests", "lib", "allocwatch.so")
NR_PAGES = 16 * 256


class Allocation(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.found = os.path.join(self.folder, "allocations")
        os.environ.update(LD_PRELOAD=WATCH, FARSWAP_ALLOCWATCH=self.found)
        self.addCleanup(os.environ.pop, "LD_PRELOAD")
        self.servers = [self.start_server(name) for name in ("alpha", "beta")]
        self.daemon = Farswapd(self.folder, self.servers, "--ahead", "8M", "--disk", os.path.join(self.folder, "disk"),
                               "--disk_size", "16M", "--disk_slab_size", "1M", "--lost_after", "1s", "--patience",
                               "100ms")
        self.addCleanup(self.daemon.stop)

    def start_server(self, name):
        server = Farmemd(self.folder, "--memory", "32M", "--lease_term", "2s", name=name)
        self.addCleanup(server.kill)
        return server

    def watch(self, on):
        if on:
            with open(self.found + ".on", "w", encoding="utf-8"):
                pass
        else:
            os.remove(self.found + ".on")

    def check(self, but="nothing"):
        with open(self.found, encoding="utf-8") as file:
            found = [line for line in file if " of " in line and not line.startswith(but)]
            if found:
                file.seek(0)
                self.fail(file.read())

    def test_nothing_is_allocated(self):
        self.watch(True)
        verifier = Verifier(self.daemon.nbd_uri(), NR_PAGES)
        self.addCleanup(verifier.close)
        verifier.fill(NR_PAGES)
        self.assertEqual(verifier.work(3000), 0)
        self.check()
        self.assertEqual(self.daemon.drain(self.servers[0]).state, DRAINED)
        self.assertEqual(verifier.work(1000), 0)
        self.check()
        self.daemon.admin.Undrain(server=self.servers[0].control_address)
        self.assertEqual(self.daemon.drain("disk").state, DRAINED)
        self.check()
        self.servers[1].kill()
        verifier.work(1000)
        self.check(but="free")  # of the connections that broke, and of nothing else

    def test_the_watch_sees(self):
        """The other test could not fail if the preloaded library did not work: here a thread of that name allocates."""
        program = ("import ctypes, os\n"
                   "libc = ctypes.CDLL(None)\n"
                   "libc.prctl(15, b'queue-0', 0, 0, 0)\n"
                   "libc.malloc.restype = ctypes.c_void_p\n"
                   "libc.malloc(12345)\n")
        self.watch(True)
        self.assertEqual(os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", program), 0)
        with open(self.found, encoding="utf-8") as file:
            self.assertIn("malloc of 12345 bytes", file.read())


if __name__ == "__main__":
    if not os.path.exists(WATCH):
        print("not with a sanitizer: it has an allocator of its own")
        sys.exit(77)
    unittest.main()
