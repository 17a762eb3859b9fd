#!/usr/bin/python3
"""Drains that have nowhere to go, that are run again, and that go to the disk; and the way back."""
import os
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

import grpc  # noqa: E402
from farmemd import MIB, Farmemd  # noqa: E402
from farswapd import DRAINED, NO_ROOM, Farswapd  # noqa: E402
from verifier import Verifier  # noqa: E402

UP, STATE_DRAINED = 2, 6
PAGES_PER_MIB = 256


class Drain(unittest.TestCase):
    def start(self, server_mib, *args, nr_servers=2):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-")
        self.addCleanup(folder.cleanup)
        self.servers = []
        for name in ("alpha", "beta")[:nr_servers]:
            server = Farmemd(folder.name, "--memory", "%dM" % server_mib, name=name)
            self.addCleanup(server.kill)
            self.servers.append(server)
        if "--disk" in args:
            args = [os.path.join(folder.name, arg) if arg == "disk.img" else arg for arg in args]
            with open(os.path.join(folder.name, "disk.img"), "wb") as file:
                file.truncate(64 * MIB)
        self.daemon = Farswapd(folder.name, self.servers, "--ahead", "8M", *args, size="64M")
        self.addCleanup(self.daemon.stop)
        self.verifier = Verifier(self.daemon.nbd_uri(), 64 * PAGES_PER_MIB)
        self.addCleanup(self.verifier.close)
        return self.servers

    def test_no_room_loses_nothing_and_can_be_run_again(self):
        alpha, beta = self.start(32)
        self.verifier.fill(44 * PAGES_PER_MIB)
        for _ in range(2):
            last = self.daemon.drain(alpha)
            self.assertEqual(last.state, NO_ROOM, last)
            self.assertGreater(last.pages_left, 0)
            self.assertIn(alpha.control_address, last.message)
            self.assertEqual(self.verifier.check_all(), [])
        self.verifier.trim(0, 24 * PAGES_PER_MIB)
        last = self.daemon.drain(alpha)
        self.assertEqual((last.state, last.pages_left, last.pages_stuck), (DRAINED, 0, 0), last)
        self.assertEqual(self.daemon.wait_for(alpha, lambda row: row.leased_slabs == 0).state, STATE_DRAINED)
        self.assertEqual(self.verifier.check_all(), [])
        self.assertEqual(self.daemon.status().io.read_errors, 0)
        self.assertEqual(self.daemon.server(beta).state, UP)

    def drain_in_turn(self, servers, states):
        for server in servers:
            states.append(self.daemon.drain(server).state)
            self.daemon.admin.Undrain(server=server.control_address)

    def test_the_books_are_right_all_the_while(self):
        alpha, beta = self.start(96)
        self.verifier.fill(32 * PAGES_PER_MIB)
        states = []
        drains = threading.Thread(target=self.drain_in_turn, args=((alpha, beta) * 5, states))
        drains.start()
        nr_checks = 0
        while drains.is_alive():
            self.assertEqual(self.verifier.work(500), 0)
            found = self.daemon.admin.Check()
            self.assertEqual((found.differences, list(found.difference)), (0, []))
            nr_checks += 1
        drains.join()
        self.assertGreater(nr_checks, 0)
        self.assertEqual(states, [DRAINED] * 10)
        self.assertEqual(self.verifier.check_all(), [])
        found = self.daemon.admin.Check()
        self.assertEqual((found.differences, found.unsettled), (0, 0))

    def test_undrain_takes_it_back_into_use(self):
        alpha, _ = self.start(96)
        self.verifier.fill(32 * PAGES_PER_MIB)
        self.assertEqual(self.daemon.drain(alpha).state, DRAINED)
        self.assertEqual(self.verifier.work(3000), 0)
        self.assertEqual(self.daemon.server(alpha).used_slots, 0)
        self.daemon.admin.Undrain(server=alpha.control_address)
        self.assertEqual(self.daemon.server(alpha).state, UP)
        self.verifier.fill(64 * PAGES_PER_MIB)
        self.assertEqual(self.verifier.work(5000), 0)
        self.daemon.wait_for(alpha, lambda row: row.used_slots > 0)
        self.assertEqual(self.verifier.check_all(), [])

    def test_to_the_disk_and_on_without_servers(self):
        alpha, = self.start(64, "--disk", "disk.img", "--disk-size", "64M", "--disk-slab-size", "1M", nr_servers=1)
        self.verifier.fill(40 * PAGES_PER_MIB)
        last = self.daemon.drain(alpha, target="disk")
        self.assertEqual((last.state, last.pages_left), (DRAINED, 0), last)
        self.assertEqual(self.daemon.server("disk").used_slots, 40 * PAGES_PER_MIB)
        self.daemon.wait_for(alpha, lambda row: row.leased_slabs == 0)
        alpha.kill()
        self.assertEqual(self.verifier.check_all(), [])
        self.assertEqual(self.verifier.work(2000), 0)

    def test_a_server_that_is_stopped_is_left_by_itself(self):
        alpha, _ = self.start(96)
        self.verifier.fill(48 * PAGES_PER_MIB)
        alpha.terminate()
        self.assertEqual(self.verifier.work(2000), 0)
        self.assertEqual(alpha.wait(), 0, alpha.log())
        self.assertEqual(self.verifier.check_all(), [])
        self.assertEqual(self.verifier.work(2000), 0)
        self.assertEqual(self.daemon.status().io.read_errors, 0)

    def test_what_makes_no_sense(self):
        alpha, _ = self.start(16)
        for code, fields in ((grpc.StatusCode.NOT_FOUND, {"server": "10.1.2.3:4"}),
                             (grpc.StatusCode.INVALID_ARGUMENT, {"server": alpha.control_address, "target": "moon"})):
            with self.assertRaises(grpc.RpcError) as caught:
                list(self.daemon.admin.Drain(timeout=20, **fields))
            self.assertEqual(caught.exception.code(), code)
            self.assertIn(fields.get("target", fields["server"]), caught.exception.details())
        self.assertEqual(self.daemon.server(alpha).state, UP)


if __name__ == "__main__":
    unittest.main(verbosity=2)
