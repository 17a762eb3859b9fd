#!/usr/bin/python3
"""Compressed pages as the first tier of the daemon: what fits stays, what does not is written back, and no byte is lost."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from farmemd import MIB, Farmemd  # noqa: E402
from farswapd import DRAINED, Farswapd  # noqa: E402

LIMIT = 4 * MIB

# Most of what it writes can be compressed to a third or less: more than the pool holds.
JOB = """
[writer]
ioengine=nbd
uri={uri}
direct=1
iodepth=8
rw=randwrite
bsrange=4k-64k
blockalign=4k
size=96m
buffer_compress_percentage=70
buffer_compress_chunk=4k
refill_buffers=1
verify=crc32c
verify_fatal=1
do_verify=1
randrepeat=1
"""


class Compress(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-", dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.servers = []
        for name in ("alpha", "beta"):
            server = Farmemd(self.folder, "--memory", "128M", "--slab-size", "4M", name=name)
            self.addCleanup(server.kill)
            self.servers.append(server)

    def daemon(self, *args):
        daemon = Farswapd(self.folder, self.servers, "--ahead", "16M", *args, size="96M")
        self.addCleanup(daemon.stop)
        return daemon

    @staticmethod
    def status_text(daemon):
        return subprocess.run([os.path.join(os.environ["FARSWAP_BIN_DIR"], "farswapctl"), "--socket", daemon.socket,
                               "status"], capture_output=True, text=True, timeout=20, check=True).stdout

    def fio(self, daemon):
        path = os.path.join(self.folder, "job.fio")
        with open(path, "w", encoding="utf-8") as file:
            file.write(JOB.format(uri=daemon.nbd_uri()))
        result = subprocess.run(["fio", path], cwd=self.folder, capture_output=True, text=True, timeout=200, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr + daemon.log())

    def assert_stored(self, daemon):
        device, io = daemon.status().device, daemon.status().io
        self.assertGreater(device.pages_compressed, 0)
        self.assertEqual(device.compress_limit_bytes, LIMIT)
        self.assertLessEqual(device.compressed_bytes, LIMIT)
        self.assertEqual(device.pages_in_use, device.pages_compressed + device.pages_stored_remote + device.pages_same)
        self.assertEqual((io.read_errors, io.write_errors, io.checksum_errors), (0, 0, 0), daemon.log())
        found = daemon.admin.Check()
        self.assertEqual((found.differences, list(found.difference)), (0, []))

    def test_more_than_the_pool_holds(self):
        for algorithm in ("lz4", "zstd"):
            with self.subTest(algorithm):
                daemon = self.daemon("--compress-limit", str(LIMIT), "--compress-algorithm", algorithm)
                self.fio(daemon)
                self.assertGreater(daemon.status().device.pages_written_back, 1000, daemon.status().device)
                self.assert_stored(daemon)
                self.assertIn("written back", self.status_text(daemon))
                # What the servers hold can be moved; what is compressed is not on any of them.
                last = daemon.drain(self.servers[0])
                self.assertEqual((last.state, last.pages_left), (DRAINED, 0), last)
                self.assert_stored(daemon)
                daemon.stop()

    def test_a_wrong_limit_is_refused(self):
        for limit, complaint in (("1M", "compress_limit"), ("100T", "--compress-limit")):
            result = subprocess.run([os.path.join(os.environ["FARSWAP_BIN_DIR"], "farswapd"), "--size", "64M", "--servers",
                                     "127.0.0.1:1", "--frontend", "none", "--compress-limit", limit],
                                    capture_output=True, text=True, timeout=20, check=False)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(complaint, result.stderr)


if __name__ == "__main__":
    if not shutil.which("fio"):
        print("fio is not installed")
        sys.exit(77)
    unittest.main()
