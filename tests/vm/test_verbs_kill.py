#!/usr/bin/python3
# vm: --limit 800
"""One of two memory servers is killed while farswapd uses both over RDMA: what it held is lost, and nothing else is; a read of
that is an error and never other bytes; and the server that is started anew at its addresses is used again."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.environ["FARSWAP_SOURCE_DIR"], "tests/lib"))

from farmemd import Farmemd  # noqa: E402
from farswapd import FARSWAPCTL, Farswapd  # noqa: E402
from program import run  # noqa: E402
from verifier import Verifier  # noqa: E402

RXE = os.path.join(os.environ["FARSWAP_SOURCE_DIR"], "tests/vm/lib/rxe.sh")
LENDER = "10.9.0.1"
UP, DOWN = 2, 3
PAGES_PER_MIB = 256
SERVER_MIB = 16
NR_PAGES = 8 * PAGES_PER_MIB
# That each of them must hold, for the test to say anything.
FEW = 128


class KillServer(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def start_server(self, name, *args):
        ready = os.path.join(self.folder, name + ".ready")
        if os.path.exists(ready):
            os.remove(ready)
        server = Farmemd(self.folder, "--memory", "%dM" % SERVER_MIB, "--lease-term", "6s", *args, name=name, address=LENDER)
        self.addCleanup(server.kill)
        with open(ready, encoding="utf-8") as file:
            addresses = dict(line.rstrip("\n").split("=", 1) for line in file)
        self.assertIn("rdma", addresses)
        server.rdma_address = addresses["rdma"]
        return server

    def restart_server(self, old):
        return self.start_server("alpha", "--listen", old.control_address, "--data-listen", old.data_address, "--rdma-listen",
                                 old.rdma_address)

    def start_daemon(self, servers):
        # Emulated, both ends share a processor: what is slow is not dead.
        daemon = Farswapd(self.folder, servers, "--transport", "verbs", "--rdma-device", "rxe1", "--queues", "1", "--ahead",
                          "4M", "--dead-after", "1500ms", "--patience", "0", "--lost-after", "3s", "--connect-timeout",
                          "5s", size="24M")
        self.addCleanup(daemon.stop)
        for server in servers:
            row = daemon.wait_for(server, lambda row: row.state == UP)
            self.assertEqual(row.transport, "verbs")
        verifier = Verifier(daemon.nbd_uri(), NR_PAGES)
        self.addCleanup(verifier.close)
        return daemon, verifier

    def fill(self, daemon, verifier, servers):
        """Until each server has some, which is drawn at random; the other has room for all of it."""
        verifier.nr_pages = NR_PAGES
        verifier.fill(NR_PAGES)
        while min(daemon.server(server).used_slots for server in servers) < FEW:
            self.assertLess(verifier.nr_pages, (SERVER_MIB - 3) * PAGES_PER_MIB)
            verifier.write(verifier.nr_pages)
            verifier.nr_pages += 1

    def check_books(self, daemon):
        done = run(FARSWAPCTL, "--socket", daemon.socket, "check")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_only_what_was_there_is_lost(self):
        alpha, beta = self.start_server("alpha"), self.start_server("beta")
        daemon, verifier = self.start_daemon([alpha, beta])
        self.fill(daemon, verifier, (alpha, beta))
        self.assertEqual(verifier.work(500), 0)
        self.check_books(daemon)

        # Every write goes through, from the first one after the death on.
        alpha.kill()
        most = daemon.server(alpha).used_slots
        verifier.work(500)
        print("killed: %d pages on it" % most, flush=True)
        daemon.wait_for(alpha, lambda row: row.state not in (UP, DOWN))
        self.assertTrue(daemon.alive(), daemon.log())
        verifier.work(500)
        row = daemon.server(beta)
        self.assertEqual((row.state, row.transport, row.reconnects), (UP, "verbs", 0))
        self.assertEqual(row.read_errors + row.write_errors, 0)

        # An error is what is left of what was there, and it is counted; all the rest is right, and a write makes it good.
        lost = verifier.check_all()
        print("lost: %d of %d pages" % (len(lost), verifier.nr_pages), flush=True)
        self.assertGreater(len(lost), 0)
        self.assertLessEqual(len(lost), most)
        self.assertEqual(daemon.status().device.pages_poisoned, len(lost))
        self.assertEqual(daemon.status().io.write_errors, 0, daemon.log())
        self.check_books(daemon)
        for page in lost:
            verifier.write(page)
        self.assertEqual(verifier.check_all(), [])
        self.assertEqual(daemon.status().device.pages_poisoned, 0)
        self.check_books(daemon)

        # It comes back empty, at the same addresses, and is used again, over RDMA; but not for everything.
        self.restart_server(alpha)
        row = daemon.wait_for(alpha, lambda row: row.state == UP)
        self.assertEqual(row.transport, "verbs")
        verifier.nr_pages = 20 * PAGES_PER_MIB
        verifier.fill(verifier.nr_pages)
        used = [daemon.server(server).used_slots for server in (alpha, beta)]
        print("back: %d pages on it, %d on the other" % tuple(used), flush=True)
        self.assertGreater(min(used), FEW)
        self.assertEqual(verifier.work(500), 0)
        self.assertEqual(verifier.check_all(), [])
        self.check_books(daemon)

    def test_it_comes_back_before_it_counts_as_lost(self):
        """Another instance at the same addresses is known for another at once; nothing that the first held is read of it."""
        alpha, beta = self.start_server("alpha"), self.start_server("beta")
        daemon, verifier = self.start_daemon([alpha, beta])
        self.fill(daemon, verifier, (alpha, beta))
        most = daemon.server(alpha).used_slots
        alpha.kill()
        self.restart_server(alpha)
        daemon.wait_for(alpha, lambda row: row.state == UP and row.used_slots == 0)
        lost = verifier.check_all()
        print("lost: %d of %d pages" % (len(lost), verifier.nr_pages), flush=True)
        self.assertEqual(len(lost), most)
        self.assertEqual(daemon.status().device.pages_poisoned, len(lost))
        for page in lost:
            verifier.write(page)
        self.assertEqual(verifier.check_all(), [])
        self.check_books(daemon)


if __name__ == "__main__":
    run("bash", "-c", '. "$0"; rxe_up', RXE).check_returncode()
    unittest.main(verbosity=2)
