#!/usr/bin/python3
"""One of two memory servers dies under load."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from farmemd import Farmemd  # noqa: E402
from farswapd import Farswapd  # noqa: E402
from verifier import Verifier  # noqa: E402

UP, DOWN, LOST = 2, 3, 4
PAGES_PER_MIB = 256
NR_PAGES = 32 * PAGES_PER_MIB


class KillServer(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def start_server(self, name, *args):
        # A server that is started again after a kill -9 finds no trace of the first, its ready file least of all.
        ready = os.path.join(self.folder, name + ".ready")
        if os.path.exists(ready):
            os.remove(ready)
        server = Farmemd(self.folder, "--memory", "48M", "--lease-term", "2s", *args, name=name)
        self.addCleanup(server.kill)
        return server

    def start_daemon(self, servers, *args):
        daemon = Farswapd(self.folder, servers, "--ahead", "16M", "--dead-after", "300ms", *args, size="64M")
        self.addCleanup(daemon.stop)
        verifier = Verifier(daemon.nbd_uri(), NR_PAGES)
        self.addCleanup(verifier.close)
        return daemon, verifier

    def test_only_what_was_there_is_lost(self):
        alpha, beta = self.start_server("alpha"), self.start_server("beta")
        daemon, verifier = self.start_daemon([alpha, beta], "--patience", "0", "--lost-after", "1s")
        verifier.fill(NR_PAGES)
        self.assertEqual(verifier.work(5000), 0)
        self.assertGreater(daemon.server(alpha).used_slots, 500)
        self.assertGreater(daemon.server(beta).used_slots, 500)

        # Every write goes through, from the first one after the death on.
        alpha.kill()
        most = daemon.server(alpha).used_slots
        verifier.work(5000)
        daemon.wait_for(alpha, lambda row: row.state not in (UP, DOWN))
        self.assertTrue(daemon.alive(), daemon.log())
        verifier.work(5000)
        self.assertEqual(daemon.server(beta).state, UP)
        self.assertEqual(daemon.server(beta).read_errors + daemon.server(beta).write_errors, 0)

        # An error is what is left of what was there, and it is counted; a write makes it good.
        lost = verifier.check_all()
        self.assertLessEqual(len(lost), most)
        self.assertEqual(daemon.status().device.pages_poisoned, len(lost))
        self.assertEqual(daemon.status().io.write_errors, 0, daemon.log())
        for page in lost:
            verifier.write(page)
        self.assertEqual(verifier.check_all(), [])
        self.assertEqual(daemon.status().device.pages_poisoned, 0)

        # It comes back empty, at the same addresses, and is used again; but not for everything.
        self.start_server("alpha", "--listen", alpha.control_address, "--data-listen", alpha.data_address)
        daemon.wait_for(alpha, lambda row: row.state == UP)
        verifier.fill(64 * PAGES_PER_MIB)
        self.assertGreater(daemon.server(alpha).used_slots, 0)
        self.assertGreater(daemon.server(beta).used_slots, 0)
        self.assertEqual(verifier.work(5000), 0)
        self.assertEqual(verifier.check_all(), [])
        self.assertLessEqual(daemon.server(alpha).reconnects, 20)

    def test_the_only_server(self):
        """With nowhere to go, writes fail; the daemon stays, and serves again when there is a server again."""
        alpha = self.start_server("alpha")
        daemon, verifier = self.start_daemon([alpha], "--patience", "0", "--lost-after", "1s")
        verifier.fill(1000)
        alpha.kill()
        daemon.wait_for(alpha, lambda row: row.state not in (UP, DOWN))
        self.assertEqual(len(verifier.check_all()), 1000)
        self.assertTrue(daemon.alive())
        self.start_server("alpha", "--listen", alpha.control_address, "--data-listen", alpha.data_address)
        daemon.wait_for(alpha, lambda row: row.state == UP and row.free_slots >= 2000)
        verifier.fill(1000)
        self.assertEqual(verifier.check_all(), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
