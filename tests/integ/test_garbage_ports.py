#!/usr/bin/python3
"""Random bytes, cut-off and enormous messages on every port, while a client works and notices nothing. The operator sees how
many there were."""
import json
import os
import random
import socket
import struct
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from farmemd import DataConnection, Farmemd, Refused  # noqa: E402
from farswapd import FARSWAPCTL, Farswapd  # noqa: E402
from program import run, wait_until  # noqa: E402
from verifier import Verifier  # noqa: E402

NR_PAGES = 2048
NR_ROUNDS = 150
NBD_OPTION_MAGIC = 0x49484156454F5054
NBD_REQUEST_MAGIC = 0x25609513
AUTH_BYTES = 104  # of the handshake of a data connection
REJECTED = ("refused", "protocol_errors", "truncated", "timeouts")


def nr_rejected(counters):
    return sum(getattr(counters, name) for name in REJECTED)


class GarbagePorts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-")
        self.addCleanup(folder.cleanup)
        self.server = Farmemd(folder.name, "--memory", "32M")
        self.addCleanup(self.server.kill)
        self.memory = self.server.service()
        self.addCleanup(self.memory.close)
        self.daemon = Farswapd(folder.name, [self.server], "--ahead", "4M", size="16M")
        self.addCleanup(self.daemon.stop)
        self.random = random.Random(7)
        self.stopping = threading.Event()
        self.trouble = []
        self.rounds = 0
        self.nr_writes = 0
        self.worker = threading.Thread(target=self.work)
        self.worker.start()
        self.addCleanup(self.worker.join)
        self.addCleanup(self.stopping.set)

    def work(self):
        """The client that must not notice."""
        try:
            verifier = Verifier(self.daemon.nbd_uri(), NR_PAGES)
            verifier.fill(NR_PAGES)
            while not self.stopping.is_set():
                self.trouble += ["a read failed"] * verifier.work(200)
                self.rounds += 1
            self.trouble += ["page %d cannot be read" % page for page in verifier.check_all()]
            self.nr_writes = verifier.sequence
            verifier.close()
        except Exception as error:  # pylint: disable=broad-except
            self.trouble.append(repr(error))

    def finish(self):
        rounds = self.rounds
        while self.worker.is_alive() and self.rounds < rounds + 2:
            time.sleep(0.01)
        self.stopping.set()
        self.worker.join()
        self.assertEqual(self.trouble, [])
        self.assertTrue(self.daemon.alive(), self.daemon.log())
        self.assertIsNone(self.server.process.poll(), self.server.log())
        row = self.daemon.server(self.server)
        self.assertEqual((row.reconnects, row.read_errors, row.write_errors), (0, 0, 0))
        # Its requests are all that has reached the device.
        status = self.daemon.status()
        self.assertEqual((status.io.read_errors, status.io.write_errors, status.frontend.counters.io_errors), (0, 0, 0))
        self.assertEqual(status.io.writes, self.nr_writes)

    def farswapctl(self, *args):
        result = run(FARSWAPCTL, "--socket", self.daemon.socket, *args)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def connect(self, address):
        if address.startswith("/"):
            client = socket.socket(socket.AF_UNIX)
            client.connect(address)
        else:
            host, port = address.rsplit(":", 1)
            client = socket.create_connection((host, int(port)))
        client.settimeout(20)
        return client

    def throw(self, address, data, hello_bytes=0):
        """Sends it after what the other side says first, and waits for the end; whatever happens then is right, but for
        silence without end."""
        with self.connect(address) as client:
            try:
                if hello_bytes:
                    client.recv(hello_bytes, socket.MSG_WAITALL)
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except TimeoutError:
                raise
            except OSError:
                pass

    def junk(self):
        return self.random.randbytes(self.random.choice((0, 1, 7, 31, 100, 4096, 100000)))

    def data_port(self):
        return self.memory.GetCapacity().data_port

    def test_data_port(self):
        lease = self.memory.OpenLease(client_name="stranger")
        address = self.server.data_address
        before = self.data_port()
        self.assertEqual((nr_rejected(before), before.denied_access, before.denied_range), (0, 0, 0))
        refused = protocol_errors = truncated = 0
        for number in range(NR_ROUNDS):
            junk = self.junk()
            self.throw(address, junk)
            protocol_errors += len(junk) >= AUTH_BYTES
            truncated += 0 < len(junk) < AUTH_BYTES
            junk = b"farswap\x02" + self.junk()
            self.throw(address, junk, hello_bytes=56)
            protocol_errors += len(junk) >= AUTH_BYTES
            truncated += len(junk) < AUTH_BYTES
            if number % 10 == 0:
                for token in (bytes(32), self.random.randbytes(32)):
                    with self.assertRaises(Refused):
                        DataConnection(address, lease, token=token)
                    refused += 1
        # Behind the handshake: lengths and numbers that mean nothing, and a frame that ends in the middle.
        for opcode, slab, key, offset, length in ((1, 0, 0, 0, 1 << 31), (2, 1 << 31, 1, 1 << 62, 4096),
                                                  (9, 0, 0, 0, 0), (2, 0, 0, 0, 0xffffffff), (1, 0, 0, (1 << 64) - 1, 1)):
            connection = DataConnection(address, lease)
            head = struct.pack("<B3xIIIQI", opcode, 1, slab, key, offset, length)
            connection.socket.sendall(head + self.random.randbytes(4 + self.random.randrange(4096)))
            self.assertTrue(connection.is_cut())
            connection.close()
            protocol_errors += 1
        connection = DataConnection(address, lease)
        connection.socket.sendall(self.random.randbytes(10))
        connection.socket.shutdown(socket.SHUT_WR)
        self.assertTrue(connection.is_cut())
        connection.close()
        truncated += 1

        # Each of them was counted, and as what it was; so the client of the server reports as well, when it asks next.
        port = self.data_port()
        self.assertEqual((port.refused, port.protocol_errors, port.truncated), (refused, protocol_errors, truncated))
        self.assertEqual((port.timeouts, port.denied_access, port.denied_range), (0, 0, 0))
        self.assertEqual(port.accepted - before.accepted, 2 * NR_ROUNDS + refused + 6)
        self.assertEqual(port.admitted - before.admitted, 6)
        wait_until(lambda: nr_rejected(self.daemon.server(self.server).data_port) == nr_rejected(port),
                   "the client's view of the server's port")
        row = json.loads(self.farswapctl("servers", "-o", "json"))["servers"][0]
        self.assertEqual({name: row["data_port"][name] for name in REJECTED}, {name: getattr(port, name) for name in REJECTED})
        head, line = (text.split() for text in self.farswapctl("servers").splitlines())
        self.assertEqual(line[head.index("REJECTED")], str(nr_rejected(port)))
        self.memory.CloseLease(lease_id=lease.lease_id, token=lease.token)
        self.finish()

    def test_control_ports(self):
        for address in (self.server.control_address, self.daemon.socket):
            for _ in range(NR_ROUNDS // 3):
                self.throw(address, self.junk())
                # An HTTP/2 preface, and then a frame with a length of 16 MiB.
                self.throw(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff\xff\xff" + self.junk())
        self.finish()

    def test_nbd_port(self):
        rejected = bad_requests = 0
        for _ in range(NR_ROUNDS):
            junk = self.junk()
            self.throw(self.daemon.nbd_socket, junk, hello_bytes=18)
            rejected += len(junk) > 0
            # An option, with data of another length than it says, or with something behind it.
            length, junk = self.random.choice((0, 5, 0xffffffff)), self.junk()
            option = struct.pack(">IQII", 3, NBD_OPTION_MAGIC, self.random.choice((1, 3, 7, 99)), length)
            self.throw(self.daemon.nbd_socket, option + junk, hello_bytes=18)
            rejected += length > 0 or len(junk) > 0
            # Into transmission by EXPORT_NAME, and then requests beyond all bounds. A write of such a length ends it; others
            # are answered, and what follows them ends it.
            export = struct.pack(">IQII", 3, NBD_OPTION_MAGIC, 1, 0)
            command, junk = self.random.choice((0, 1, 99)), self.junk()
            request = struct.pack(">IHHQQI", NBD_REQUEST_MAGIC, self.random.randrange(65536), command,
                                  self.random.getrandbits(64), self.random.getrandbits(64) | 1 << 60, 0xffffffff)
            self.throw(self.daemon.nbd_socket, export + request + junk, hello_bytes=18)
            bad_requests += command != 1
            rejected += command == 1 or len(junk) > 0
        self.finish()

        counters = self.daemon.status().frontend.counters
        self.assertEqual((nr_rejected(counters), counters.bad_requests), (rejected, bad_requests))
        self.assertEqual(counters.accepted, 3 * NR_ROUNDS + 1)  # the good client is one
        for name in ("refused", "protocol_errors", "truncated"):
            self.assertGreater(getattr(counters, name), 0, name)
        self.assertEqual(counters.timeouts, 0)
        told = json.loads(self.farswapctl("status", "-o", "json"))["frontend"]["counters"]
        self.assertEqual({name: told[name] for name in REJECTED}, {name: getattr(counters, name) for name in REJECTED})
        self.assertEqual(told["bad_requests"], bad_requests)
        rows = dict(line.split(maxsplit=1) for line in self.farswapctl("status").splitlines() if line.startswith("  rejected"))
        self.assertTrue(rows["rejected"].startswith("%d of %d " % (rejected, counters.accepted)), rows)


if __name__ == "__main__":
    unittest.main(verbosity=2)
