#!/usr/bin/python3
"""farswapd is killed while its device is in use, and started again: it goes on with what the state file has."""
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from farmemd import Farmemd  # noqa: E402
from farswapd import DRAINED, FARSWAPD, Farswapd  # noqa: E402
from verifier import Verifier  # noqa: E402

UP, SERVER_DRAINED = 2, 6
PAGES_PER_MIB = 256
NR_PAGES = 32 * PAGES_PER_MIB


class Restart(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.state_file = os.path.join(self.folder, "state", "farswapd")
        self.addCleanup(lambda: subprocess.run(["umount", os.path.dirname(self.state_file)], check=False))

    def start_server(self, name, *args):
        server = Farmemd(self.folder, "--memory", "48M", *args, name=name)
        self.addCleanup(server.kill)
        return server

    def start_daemon(self, servers, *args, **options):
        daemon = Farswapd(self.folder, servers, "--ahead", "16M", "--state-file", self.state_file, *args, **options)
        self.addCleanup(daemon.stop)
        return daemon

    def kill(self, daemon):
        daemon.process.kill()
        daemon.process.wait()
        daemon.admin.close()
        os.remove(os.path.join(self.folder, "test-client.ready"))

    def connect(self, daemon, verifier=None):
        if verifier:
            verifier.reconnect(daemon.nbd_uri())
            return verifier
        verifier = Verifier(daemon.nbd_uri(), NR_PAGES)
        self.addCleanup(verifier.close)
        return verifier

    def assert_books_are_right(self, daemon):
        reply = daemon.admin.Check()
        self.assertEqual(reply.differences, 0, reply)

    def assert_none_is_forgotten(self, daemon, server):
        """The server lends as many slabs as the daemon knows of, when no call for some is under way."""
        until = time.monotonic() + 30
        while True:
            capacity = server.service().GetCapacity()
            lent = capacity.arena_bytes // capacity.slab_bytes - capacity.slabs_free
            if daemon.server(server).leased_slabs == lent:
                return
            self.assertLess(time.monotonic(), until, "%d slabs are lent, %d known" % (lent, daemon.server(server).leased_slabs))
            time.sleep(0.1)

    def refused(self, servers, *args, size="64M"):
        """What a farswapd that cannot go on says."""
        done = subprocess.run([FARSWAPD, "--name", "test-client", "--size", size, "--frontend", "nbd", "--state-file",
                               self.state_file, "--admin-socket", os.path.join(self.folder, "other.sock"), "--nbd-listen",
                               "unix:" + os.path.join(self.folder, "other.nbd"), "--servers",
                               ",".join(server.control_address for server in servers), *args],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        return done.stderr

    def test_every_page_is_there_again(self):
        alpha, beta = self.start_server("alpha"), self.start_server("beta")
        daemon = self.start_daemon([alpha, beta])
        verifier = self.connect(daemon)
        verifier.fill(NR_PAGES)
        self.assertEqual(verifier.work(3000), 0)
        self.assertGreater(daemon.server(alpha).used_slots, 500)
        self.assertGreater(daemon.server(beta).used_slots, 500)
        before = daemon.status().device

        for _ in range(3):
            self.kill(daemon)
            daemon = self.start_daemon([alpha, beta])
            self.assertIn("goes on with the device of a dead farswapd", daemon.log())
            self.connect(daemon, verifier)
            after = daemon.status().device
            self.assertEqual(after.pages_stored_remote, before.pages_stored_remote)
            self.assertEqual(after.pages_same, before.pages_same)
            self.assertEqual(after.pages_poisoned, 0)
            self.assertEqual(verifier.check_all(), [])
            self.assert_books_are_right(daemon)
            for server in (alpha, beta):
                self.assert_none_is_forgotten(daemon, server)
            self.assertEqual(verifier.work(1000), 0)
            before = daemon.status().device

        # It is a daemon like any other: what it holds can be moved, and it ends.
        self.assertEqual(daemon.drain(alpha).state, DRAINED)
        self.assertEqual(verifier.check_all(), [])
        verifier.close()
        self.assertEqual(daemon.stop(), 0)
        self.assertFalse(os.path.exists(self.state_file))
        # The servers have everything back.
        for server in (alpha, beta):
            capacity = server.service().GetCapacity()
            self.assertEqual(capacity.slabs_free, capacity.arena_bytes // capacity.slab_bytes)

    def test_under_load_and_in_a_drain(self):
        alpha, beta = self.start_server("alpha", "--memory", "80M"), self.start_server("beta", "--memory", "80M")
        daemon = self.start_daemon([alpha, beta])
        verifier = self.connect(daemon)
        verifier.fill(NR_PAGES)
        for i in range(6):
            server = (alpha, beta)[i % 2]
            drain = threading.Thread(target=self.drain_until_it_dies, args=(daemon, server))
            drain.start()
            life = threading.Timer(random.uniform(0.02, 0.3), daemon.process.kill)
            life.start()
            verifier.work_until_it_fails()
            life.join()
            drain.join()
            self.kill(daemon)
            daemon = self.start_daemon([alpha, beta])
            self.connect(daemon, verifier)
            daemon.admin.Undrain(server=server.control_address)
            # What was under way was not acknowledged: it may be there or not, and is written again.
            verifier.write_doubtful()
            self.assertEqual(verifier.check_all(), [], daemon.log())
            self.assert_books_are_right(daemon)

    def drain_until_it_dies(self, daemon, server):
        try:
            daemon.drain(server)
        except Exception:  # pylint: disable=broad-except
            pass  # the daemon's death ends the stream, as it may

    def test_a_server_that_is_gone_meanwhile(self):
        alpha, beta = self.start_server("alpha"), self.start_server("beta")
        daemon = self.start_daemon([alpha, beta], "--lost-after", "1s", "--patience", "0")
        verifier = self.connect(daemon)
        verifier.fill(NR_PAGES)
        most = daemon.server(alpha).used_slots
        self.kill(daemon)
        alpha.kill()
        daemon = self.start_daemon([alpha, beta], "--lost-after", "1s", "--patience", "0")
        self.connect(daemon, verifier)
        daemon.wait_for(alpha, lambda row: row.used_slots == 0)
        lost = verifier.check_all()
        self.assertGreater(len(lost), 0)
        self.assertLessEqual(len(lost), most)
        self.assertEqual(daemon.status().device.pages_poisoned, len(lost))
        for page in lost:
            verifier.write(page)
        self.assertEqual(verifier.check_all(), [])

    def test_a_drained_server_stays_empty(self):
        alpha, beta = self.start_server("alpha", "--memory", "80M"), self.start_server("beta", "--memory", "80M")
        daemon = self.start_daemon([alpha, beta])
        verifier = self.connect(daemon)
        verifier.fill(NR_PAGES)
        self.assertEqual(daemon.drain(alpha).state, DRAINED)
        self.kill(daemon)
        daemon = self.start_daemon([alpha, beta])
        self.connect(daemon, verifier)
        daemon.wait_for(alpha, lambda row: row.state == SERVER_DRAINED)
        verifier.fill(NR_PAGES)
        self.assertEqual(daemon.server(alpha).used_slots, 0)
        daemon.admin.Undrain(server=alpha.control_address)
        self.kill(daemon)
        daemon = self.start_daemon([alpha, beta])
        self.connect(daemon, verifier)
        daemon.wait_for(alpha, lambda row: row.state == UP)
        self.assertEqual(verifier.check_all(), [])

    def test_servers_that_are_full(self):
        alpha = self.start_server("alpha", "--memory", "32M", "--slab-size", "8M")
        daemon = self.start_daemon([alpha])
        verifier = self.connect(daemon)
        verifier.fill(NR_PAGES)
        row = daemon.server(alpha)
        self.assertEqual((row.leased_slabs, row.used_slots), (4, NR_PAGES))
        self.kill(daemon)
        # What is there can be read without room for more, for which it would wait longer than this test is given.
        daemon = self.start_daemon([alpha], "--start-timeout", "1h")
        self.connect(daemon, verifier)
        self.assertEqual(verifier.check_all(), [])

    def test_pages_on_disk(self):
        disk = os.path.join(self.folder, "disk")
        args = ("--disk", disk, "--disk-size", "64M", "--disk-slab-size", "1M")
        daemon = self.start_daemon([], *args)
        verifier = self.connect(daemon)
        verifier.fill(NR_PAGES)
        self.kill(daemon)
        daemon = self.start_daemon([], *args)
        self.connect(daemon, verifier)
        self.assertEqual(verifier.check_all(), [])
        self.assertEqual(verifier.work(2000), 0)
        self.assert_books_are_right(daemon)

    def test_what_pages_depend_on_cannot_change(self):
        alpha, beta = self.start_server("alpha"), self.start_server("beta")
        daemon = self.start_daemon([alpha, beta])
        verifier = self.connect(daemon)
        verifier.fill(NR_PAGES)
        self.assertIn("another farswapd has it", self.refused([alpha, beta]))
        self.kill(daemon)
        self.assertIn("size: ", self.refused([alpha, beta], size="32M"))
        self.assertIn("servers: '%s' holds pages" % alpha.control_address, self.refused([beta]))
        self.assertIn("disk, disk_size, disk_slab_size: ", self.refused([alpha, beta], "--disk-slab-size", "4M"))
        # Nothing is lost by all that.
        daemon = self.start_daemon([alpha, beta])
        self.connect(daemon, verifier)
        self.assertEqual(verifier.check_all(), [])

    def test_one_that_died_before_anybody_could_have_pages(self):
        daemon = subprocess.Popen([FARSWAPD, "--name", "early", "--size", "32M", "--frontend", "nbd", "--state-file",
                                   self.state_file, "--admin-socket", os.path.join(self.folder, "early.sock"), "--nbd-listen",
                                   "unix:" + os.path.join(self.folder, "early.nbd"), "--servers", "127.0.0.1:1",
                                   "--start-timeout", "1h"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 60
            while not os.path.exists(os.path.join(self.folder, "early.sock")):
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)
        finally:
            daemon.kill()
            daemon.wait()
        self.assertGreater(os.stat(self.state_file).st_size, 0)
        # Of another size, too: there is nothing that would have to fit.
        daemon = self.start_daemon([self.start_server("alpha")])
        self.assertIn("is of no use any more", daemon.log())
        verifier = self.connect(daemon)
        verifier.fill(PAGES_PER_MIB)
        self.assertEqual(verifier.check_all(), [])
        self.assert_books_are_right(daemon)

    def test_a_file_that_is_none(self):
        server = self.start_server("alpha")
        os.mkdir(os.path.dirname(self.state_file))
        subprocess.run(["mount", "-t", "ramfs", "none", os.path.dirname(self.state_file)], check=True)
        with open(self.state_file, "wb") as file:
            file.write(os.urandom(100000))
        self.assertIn("is not what a farswapd leaves", self.refused([server]))
        self.assertEqual(os.stat(self.state_file).st_size, 100000)


if __name__ == "__main__":
    unittest.main(verbosity=2)
