#!/usr/bin/python3
"""The whole over NBD, for clients that are not ours: fio with verification, qemu-img, and libnbd."""
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from farmemd import MIB, Farmemd  # noqa: E402
from farswapd import DRAINED, Farswapd  # noqa: E402

PAGE = 4096
TOOLS = ("fio", "qemu-img")

FIO_JOB = """
[global]
ioengine=nbd
uri={uri}
direct=1
iodepth=16
size=256m
verify=crc32c
verify_fatal=1
do_verify=1
randrepeat=1
bsrange=4k-128k
blockalign=4k
[writer]
rw=randwrite
numjobs=4
offset_increment=256m
"""

TRIM_JOB = """
[global]
ioengine=nbd
uri={uri}
direct=1
iodepth=16
bs=64k
size=256m
[trimmer]
rw=randtrim
numjobs=4
offset_increment=256m
io_size=64m
[writer]
stonewall
rw=randwrite
numjobs=4
offset_increment=256m
io_size=128m
norandommap=0
verify=crc32c
verify_fatal=1
do_verify=1
"""


class Nbd(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Once for all: the memory of the servers takes longer than many a test.
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-", dir="/var/tmp")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.servers = []
        for name in ("alpha", "beta"):
            server = Farmemd(cls.folder, "--memory", "1280M", "--slab-size", "64M", name=name)
            cls.addClassCleanup(server.kill)
            cls.servers.append(server)
        cls.daemon = Farswapd(cls.folder, cls.servers, size="1G")
        cls.addClassCleanup(cls.daemon.stop)

    def setUp(self):
        self.python("h.trim(512 << 20, 0); h.trim(512 << 20, 512 << 20)")
        self.assertEqual(self.daemon.status().device.pages_in_use, 0)

    def python(self, program):
        """A client with libnbd, in a process of its own."""
        head = "import nbd\nh = nbd.NBD()\nh.connect_uri(%r)\n" % self.daemon.nbd_uri()
        subprocess.run(["/usr/bin/python3", "-c", head + program], check=True, timeout=100)

    def fio(self, job):
        path = os.path.join(self.folder, "job.fio")
        with open(path, "w", encoding="utf-8") as file:
            file.write(job.format(uri=self.daemon.nbd_uri()))
        result = subprocess.run(["fio", path], cwd=self.folder, capture_output=True, text=True, timeout=200,
                                check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr + self.daemon.log())

    def assert_no_errors(self):
        io = self.daemon.status().io
        self.assertEqual((io.read_errors, io.write_errors, io.checksum_errors), (0, 0, 0), self.daemon.log())

    def test_fio_verifies_random_writes_and_trims(self):
        self.fio(FIO_JOB)
        self.fio(TRIM_JOB)
        self.assertGreater(self.daemon.status().io.discards, 0)
        self.assert_no_errors()

    def test_qemu_img_there_and_back(self):
        there, back = (os.path.join(self.folder, name) for name in ("there.raw", "back.raw"))
        generator = random.Random(20)
        with open(there, "wb") as file:
            file.truncate(1024 * MIB)
            for _ in range(300):
                file.seek(generator.randrange(1024 * MIB // PAGE - 256) * PAGE)
                file.write(generator.randbytes(generator.randrange(1, 256) * PAGE))
        uri = self.daemon.nbd_uri()
        for command in (["convert", "-n", "-f", "raw", "-O", "raw", there, uri],
                        ["convert", "-f", "raw", "-O", "raw", uri, back],
                        ["compare", "-f", "raw", "-F", "raw", there, uri]):
            subprocess.run(["qemu-img", *command], check=True, timeout=120, stdout=subprocess.DEVNULL)
        self.assertEqual(digest(there), digest(back))
        self.assert_no_errors()

    def test_drain_while_fio_verifies(self):
        path = os.path.join(self.folder, "job.fio")
        with open(path, "w", encoding="utf-8") as file:
            file.write(FIO_JOB.format(uri=self.daemon.nbd_uri()))
        with open(os.path.join(self.folder, "fio.out"), "w", encoding="utf-8") as out:
            fio = subprocess.Popen(["fio", path], cwd=self.folder, stdout=out, stderr=out)
        self.addCleanup(lambda: fio.poll() is None and fio.kill())
        alpha, beta = self.servers
        for server in (alpha, beta, alpha):
            self.daemon.wait_for(server, lambda row: row.used_slots > 1000 or fio.poll() is not None)
            last = self.daemon.drain(server)
            self.assertEqual((last.state, last.pages_left), (DRAINED, 0), last)
            self.daemon.admin.Undrain(server=server.control_address)
        self.assertEqual(fio.wait(200), 0, self.daemon.log())
        self.assert_no_errors()

    def test_discarded_slabs_go_back_to_their_server(self):
        # Every word of a page another, or the page would need no slot.
        self.python("page = bytes(range(256)) * 16\n"
                    "for at in range(0, 512 << 20, 1 << 20): h.pwrite(page * 256, at)")
        rows = [self.daemon.server(server) for server in self.servers]
        self.assertEqual(sum(row.used_slots for row in rows), 512 * MIB // PAGE)
        leased = sum(row.leased_slabs for row in rows)
        self.python("for at in range(0, 512 << 20, 32 << 20): h.trim(32 << 20, at)\n"
                    "assert h.pread(1 << 20, 7 << 20) == bytes(1 << 20)")
        for server in self.servers:
            self.daemon.wait_for(server, lambda row: row.used_slots == 0)
        for server in self.servers:
            self.daemon.wait_for(server, lambda row: row.leased_slabs < leased // 2)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        print("not installed: " + " ".join(missing))
        sys.exit(77)
    unittest.main(verbosity=2)
