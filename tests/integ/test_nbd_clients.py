#!/usr/bin/python3
"""The NBD front end and the clients that people have: libnbd, qemu-img, nbdcopy, fio."""
import os
import shutil
import socket
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from program import Server, program, run, skip  # noqa: E402

for tool in ("nbdinfo", "nbdcopy", "qemu-img", "fio"):
    if not shutil.which(tool):
        skip(tool + " is not installed")
try:
    import nbd
except ImportError:
    skip("python3-libnbd is not installed")

MIB = 1 << 20
SIZE_MIB = 256


class NbdClientsTest(unittest.TestCase):
    SPIN_US = 0
    NR_QUEUES = 1

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-nbd-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.socket = os.path.join(self.folder, "socket")
        self.uri = "nbd+unix:///?socket=" + self.socket
        self.server = Server(program("nbd_ram"), "unix:" + self.socket, str(SIZE_MIB), str(self.SPIN_US),
                             str(self.NR_QUEUES))
        self.addCleanup(self.server.kill)

    def path(self, name):
        return os.path.join(self.folder, name)

    def check(self, *command):
        done = run(*command)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def make_image(self):
        path = self.path("image")
        with open(path, "wb") as file:
            for _ in range(64):
                file.write(os.urandom(MIB))
            file.truncate(SIZE_MIB * MIB)
        return path

    def assert_same(self, a, b):
        with open(a, "rb") as first, open(b, "rb") as second:
            while True:
                one, two = first.read(MIB), second.read(MIB)
                self.assertTrue(one == two, "images differ")
                if not one:
                    return

    def test_nbdinfo(self):
        text = self.check("nbdinfo", self.uri)
        for line in ("export-size: %d" % (SIZE_MIB * MIB), "can_multi_conn: true", "can_trim: true",
                     "can_zero: true", "can_fast_zero: true", "can_flush: true", "can_fua: true", "can_df: true",
                     "block_size_minimum: 4096", "block_size_maximum: 2097152", "using structured packets"):
            self.assertIn(line, text)
        self.assertIn('export="farswap"', self.check("nbdinfo", "--list", self.uri))
        self.assertNotEqual(run("nbdinfo", "nbd+unix:///nosuch?socket=" + self.socket).returncode, 0)

    def test_qemu_img_there_and_back(self):
        image, back = self.make_image(), self.path("back")
        self.check("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, self.uri)
        self.check("qemu-img", "convert", "-f", "raw", "-O", "raw", self.uri, back)
        os.truncate(back, SIZE_MIB * MIB)
        self.assert_same(image, back)
        counters = self.server.terminate()
        self.assertEqual(counters["bad_requests"], 0)
        self.assertEqual(counters["io_errors"], 0)

    def test_nbdcopy_with_several_connections(self):
        image, back = self.make_image(), self.path("back")
        self.check("nbdcopy", "--connections=4", image, self.uri)
        self.check("nbdcopy", "--connections=4", self.uri, back)
        self.assert_same(image, back)
        # As many as it has threads, there and back.
        self.assertGreater(self.server.terminate()["accepted"], 2)

    def fio(self, *options):
        self.check("fio", "--name=job", "--ioengine=nbd", "--uri=" + self.uri, "--verify=crc32c",
                   "--verify_fatal=1", "--output=" + self.path("fio"), *options)

    def test_fio_writes_and_trims(self):
        self.fio("--rw=randtrimwrite", "--bs=4k", "--iodepth=32", "--size=64m", "--numjobs=4",
                 "--offset_increment=64m")
        counters = self.server.terminate()
        self.assertGreater(counters["trims"], 0)
        self.assertEqual(counters["bad_requests"], 0)

    def test_fio_all_sizes(self):
        self.fio("--rw=randwrite", "--bsrange=4k-2m", "--blockalign=4k", "--iodepth=32", "--size=256m")
        self.assertGreater(self.server.terminate()["most_pages"], 256)

    def test_libnbd_with_and_without_structured_replies(self):
        for structured in (True, False):
            handle = nbd.NBD()
            handle.set_request_structured_replies(structured)
            handle.connect_uri(self.uri)
            self.assertEqual(handle.get_structured_replies_negotiated(), structured)
            data = os.urandom(2 * MIB)
            handle.pwrite(data, 4 * MIB, nbd.CMD_FLAG_FUA)
            self.assertEqual(handle.pread(2 * MIB, 4 * MIB), data)
            handle.zero(MIB, 4 * MIB, nbd.CMD_FLAG_FAST_ZERO)
            self.assertEqual(handle.pread(2 * MIB, 4 * MIB), bytes(MIB) + data[MIB:])
            handle.trim(SIZE_MIB * MIB, 0)
            self.assertEqual(handle.pread(2 * MIB, 4 * MIB), bytes(2 * MIB))
            handle.flush()
            handle.set_strict_mode(0)
            for wrong in (lambda: handle.pread(512, 0), lambda: handle.pread(4096, SIZE_MIB * MIB),
                          lambda: handle.pwrite(bytes(4096), SIZE_MIB * MIB), lambda: handle.trim(4096, 100)):
                self.assertRaises(nbd.Error, wrong)
            self.assertEqual(handle.pread(4096, 0), bytes(4096))
            handle.shutdown()
        self.assertEqual(self.server.terminate()["bad_requests"], 8)

    def test_export_name_option(self):
        handle = nbd.NBD()
        # Without fixed newstyle there is only EXPORT_NAME.
        handle.set_handshake_flags(0)
        handle.connect_uri(self.uri)
        handle.pwrite(b"x" * 4096, 0)
        self.assertEqual(handle.pread(4096, 0), b"x" * 4096)
        handle.shutdown()

    def test_garbage_beside_a_good_client(self):
        handle = nbd.NBD()
        handle.connect_uri(self.uri)

        def rubbish():
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(self.socket)
                try:
                    sock.sendall(os.urandom(100000))
                except OSError:
                    pass

        threads = [threading.Thread(target=rubbish) for _ in range(20)]
        for thread in threads:
            thread.start()
        for i in range(200):
            handle.pwrite(bytes([i]) * 4096, i * 4096)
            self.assertEqual(handle.pread(4096, i * 4096), bytes([i]) * 4096)
        for thread in threads:
            thread.join()
        handle.shutdown()
        self.assertGreaterEqual(self.server.terminate()["protocol_errors"], 1)


class NbdClientsSpinningTest(NbdClientsTest):
    """The same with pollers and two reactors."""
    SPIN_US = 100
    NR_QUEUES = 2


if __name__ == "__main__":
    unittest.main()
