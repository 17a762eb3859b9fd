#!/usr/bin/python3
"""farmemd as its clients and its operator see it, by clients that share no code with it."""
import os
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

import grpc  # noqa: E402
from farmemd import (BIN_DIR, DEADLINE_S, DENIED, FARMEMD, MIB, OK, RANGE, REFUSAL_DENIED,  # noqa: E402
                     REFUSAL_STALE, DataConnection, Farmemd, Refused)

CODE = grpc.StatusCode
NR_SLABS = 8


class FarmemdTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farmemd-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.request_number = 0

    def start(self, *args, **options):
        self.server = Farmemd(self.folder, *args, **options)
        self.addCleanup(self.server.kill)
        self.memory = self.server.service()
        self.addCleanup(self.memory.close)
        return self.server

    def proof(self, lease):
        return {"lease_id": lease.lease_id, "token": lease.token}

    def request(self, lease, count):
        """A new LeaseSlabs request."""
        self.request_number += 1
        return {"request_number": self.request_number, "count": count, **self.proof(lease)}

    def connect(self, lease, **options):
        connection = DataConnection(self.server.data_address, lease, **options)
        self.addCleanup(connection.close)
        return connection

    def assert_fails(self, code, words, method, **fields):
        with self.assertRaises(grpc.RpcError) as caught:
            result = method(**fields)
            if not hasattr(result, "DESCRIPTOR"):
                list(result)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(words, caught.exception.details())

    def wait_for_slabs(self, **expected):
        """Until the capacity is as expected; the scrubber takes its time."""
        while True:
            capacity = self.memory.GetCapacity()
            self.assertEqual(capacity.slabs_total,
                             capacity.slabs_free + capacity.slabs_leased + capacity.slabs_scrubbing)
            if all(getattr(capacity, name) == value for name, value in expected.items()):
                return capacity


class Lending(FarmemdTest):
    def test_capacity(self):
        server = self.start()
        capacity = self.memory.GetCapacity()
        self.assertEqual(capacity.server_name, "test-server")
        self.assertEqual(capacity.arena_bytes, NR_SLABS * MIB)
        self.assertEqual(capacity.slab_bytes, MIB)
        self.assertEqual((capacity.slabs_total, capacity.slabs_free, capacity.leases), (NR_SLABS, NR_SLABS, 0))
        self.assertTrue(capacity.accepting)
        self.assertEqual(list(capacity.data_addresses), [server.data_address])
        version = subprocess.run([FARMEMD, "--version"], capture_output=True, text=True, check=True).stdout
        self.assertEqual("farmemd %s\n" % capacity.version, version)
        first = capacity.instance_id
        server.kill()
        self.start(name="next")
        self.assertNotEqual(self.memory.GetCapacity().instance_id, first)

    def test_lease_write_read_release(self):
        self.start()
        lease = self.memory.OpenLease(client_name="node-a", client_id=7)
        self.assertEqual(len(lease.token), 32)
        self.assertEqual(lease.term_ms, 10000)
        self.assertEqual(lease.slab_bytes, MIB)
        self.assertGreater(lease.heartbeat_ms, 0)
        grants = self.memory.LeaseSlabs(**self.request(lease, 2)).slabs
        self.assertEqual(len({grant.index for grant in grants}), 2)
        self.assertNotIn(0, [grant.key for grant in grants])

        data = self.connect(lease)
        for i, grant in enumerate(grants):
            self.assertEqual(data.write(grant, MIB - 4096, bytes([i + 1]) * 4096), OK)
        for i, grant in enumerate(grants):
            self.assertEqual(data.read(grant, MIB - 4096, 4096), (OK, bytes([i + 1]) * 4096))
            self.assertEqual(data.read(grant, 0, 4096), (OK, bytes(4096)))
        self.assertEqual(data.read(grants[0], MIB - 4096, 4097)[0], RANGE)
        info, = self.memory.ListLeases().leases
        self.assertEqual((info.lease_id, info.client_name, info.client_id, info.slabs, info.connections),
                         (lease.lease_id, "node-a", 7, 2, 1))
        self.assertEqual((info.bytes_written, info.bytes_read), (8192, 16384))
        self.assertFalse(info.watching)

        self.assertEqual(self.memory.ReleaseSlabs(slabs=[grants[0]], **self.proof(lease)).released, 1)
        self.assertEqual(self.memory.ReleaseSlabs(slabs=[grants[0]], **self.proof(lease)).released, 0)
        self.assertEqual(data.read(grants[0], 0, 4096)[0], DENIED)
        self.assertEqual(data.read(grants[1], MIB - 4096, 4096), (OK, b"\2" * 4096))
        self.wait_for_slabs(slabs_leased=1, slabs_free=NR_SLABS - 1)
        port = self.memory.GetCapacity().data_port
        self.assertEqual((port.accepted, port.admitted, port.connections), (1, 1, 1))
        self.assertEqual((port.denied_access, port.denied_range), (1, 1))
        self.assertEqual((port.refused, port.protocol_errors, port.truncated, port.timeouts), (0, 0, 0, 0))

        self.memory.CloseLease(**self.proof(lease))
        self.wait_for_slabs(slabs_leased=0, slabs_free=NR_SLABS, leases=0)
        self.assertTrue(data.is_cut())
        with self.assertRaises(Refused) as caught:
            self.connect(lease)
        self.assertEqual(caught.exception.args[0], REFUSAL_STALE)
        # The connection that was cut with its lease, and the one that came too late.
        port = self.memory.GetCapacity().data_port
        self.assertEqual((port.accepted, port.admitted, port.refused), (2, 1, 2))

    def test_memory_is_zeroed_before_it_is_lent_again(self):
        self.start()
        for byte in (b"\xaa", b"\xbb"):
            lease = self.memory.OpenLease(client_name="node-a")
            grants = self.memory.LeaseSlabs(**self.request(lease, NR_SLABS)).slabs
            self.assertEqual(len(grants), NR_SLABS)
            data = self.connect(lease)
            for grant in grants:
                self.assertEqual(data.read(grant, 0, MIB), (OK, bytes(MIB)))
                self.assertEqual(data.write(grant, 0, byte * MIB), OK)
            self.memory.CloseLease(**self.proof(lease))
            self.wait_for_slabs(slabs_free=NR_SLABS)

    def test_lost_answers_and_late_calls(self):
        self.start("--max_lease_memory", "3M")
        lease = self.memory.OpenLease(client_name="node-a")

        def call(request_number, count):
            slabs = self.memory.LeaseSlabs(request_number=request_number, count=count, **self.proof(lease)).slabs
            return sorted((grant.index, grant.key) for grant in slabs)

        # Repeated by a client that has not heard the answer, or by the network: the same slabs, and no more of them.
        first = self.memory.LeaseSlabs(request_number=1, count=2, **self.proof(lease)).slabs
        known = sorted((grant.index, grant.key) for grant in first)
        data = self.connect(lease)
        self.assertEqual(data.write(first[0], 0, b"x" * 4096), OK)
        for _ in range(3):
            self.assertEqual(call(1, 2), known)
            self.assertEqual(call(1, 0), known)
        self.assertEqual(self.memory.GetCapacity().slabs_leased, 2)
        self.assertEqual(data.read(first[0], 0, 4096), (OK, b"x" * 4096))

        # A call that nobody waits for: whether it is carried out before its number is closed or after, nothing is left.
        second = call(2, 1)
        self.assertEqual(call(2, 0), second)
        self.assert_fails(CODE.RESOURCE_EXHAUSTED, "%016x" % lease.lease_id, self.memory.LeaseSlabs, request_number=3,
                          count=1, **self.proof(lease))
        self.assertEqual(call(3, 0), [])
        self.assertEqual(self.memory.ReleaseSlabs(slabs=first, **self.proof(lease)).released, 2)
        for late, count in ((3, 1), (2, 1), (1, 2), (1, 0)):
            self.assert_fails(CODE.ABORTED, "%016x" % lease.lease_id, self.memory.LeaseSlabs, request_number=late,
                              count=count, **self.proof(lease))
        self.wait_for_slabs(slabs_leased=1, slabs_free=NR_SLABS - 1)

        # A drain does not keep a client from hearing what it holds.
        fourth = call(4, 2)
        self.memory.RequestDrain()
        self.assertEqual(call(4, 2), fourth)
        self.assertEqual(call(5, 0), [])
        self.memory.CancelDrain()
        self.assert_fails(CODE.ABORTED, "%016x" % lease.lease_id, self.memory.LeaseSlabs, request_number=5, count=1,
                          **self.proof(lease))

    def test_late_release_takes_nothing_that_was_lent_anew(self):
        self.start()
        lease = self.memory.OpenLease(client_name="node-a")
        old = self.memory.LeaseSlabs(**self.request(lease, NR_SLABS)).slabs
        self.assertEqual(self.memory.ReleaseSlabs(slabs=old, **self.proof(lease)).released, NR_SLABS)
        self.wait_for_slabs(slabs_free=NR_SLABS)
        new = self.memory.LeaseSlabs(**self.request(lease, NR_SLABS)).slabs
        self.assertEqual({grant.index for grant in new}, {grant.index for grant in old})
        self.assertEqual(self.memory.ReleaseSlabs(slabs=old, **self.proof(lease)).released, 0)
        self.assertEqual(self.memory.GetCapacity().slabs_leased, NR_SLABS)
        data = self.connect(lease)
        for grant in new:
            self.assertEqual(data.write(grant, 0, b"n" * 4096), OK)

    def test_lease_whose_answer_was_lost_ends(self):
        self.start("--lease_term", "400ms", "--heartbeat", "100ms", "--max_leases", "1")
        self.memory.OpenLease(client_name="a", client_id=7)
        while self.memory.GetCapacity().leases > 0:
            self.wait_for_slabs(slabs_leased=0, slabs_free=NR_SLABS)
        self.memory.OpenLease(client_name="a", client_id=7)

    def test_limits_and_wrong_tokens(self):
        self.start("--max_leases", "2", "--max_lease_memory", "5M")
        a = self.memory.OpenLease(client_name="a")
        b = self.memory.OpenLease(client_name="b")
        self.assert_fails(CODE.RESOURCE_EXHAUSTED, "no room for another lease", self.memory.OpenLease, client_name="c")
        self.assertEqual(len(self.memory.LeaseSlabs(**self.request(a, 99)).slabs), 5)
        self.assert_fails(CODE.RESOURCE_EXHAUSTED, "%016x" % a.lease_id, self.memory.LeaseSlabs, **self.request(a, 1))
        self.assertEqual(len(self.memory.LeaseSlabs(**self.request(b, 99)).slabs), 3)
        self.assert_fails(CODE.RESOURCE_EXHAUSTED, "no free slab", self.memory.LeaseSlabs, **self.request(b, 1))
        self.assert_fails(CODE.INVALID_ARGUMENT, "request_number", self.memory.LeaseSlabs, count=1, **self.proof(b))

        mixed = {"lease_id": a.lease_id, "token": b.token}
        stranger = {"lease_id": a.lease_id ^ 1, "token": a.token}
        for method, fields in ((self.memory.LeaseSlabs, {"count": 1, "request_number": 99}),
                               (self.memory.ReleaseSlabs, {}), (self.memory.CloseLease, {}), (self.memory.Watch, {})):
            self.assert_fails(CODE.PERMISSION_DENIED, "%016x" % a.lease_id, method, **fields, **mixed)
            self.assert_fails(CODE.PERMISSION_DENIED, "%016x" % a.lease_id, method, **fields, lease_id=a.lease_id)
            self.assert_fails(CODE.NOT_FOUND, "%016x" % (a.lease_id ^ 1), method, **fields, **stranger)
        self.assertEqual(self.memory.GetCapacity().leases, 2)

    def test_bad_requests(self):
        self.start()
        for name in ("", "x" * 64, "a\nb", "a\x1b[2J", "\u202eabc"):
            self.assert_fails(CODE.INVALID_ARGUMENT, "client_name", self.memory.OpenLease, client_name=name)
        self.assert_fails(CODE.INVALID_ARGUMENT, "reason", self.memory.RequestDrain, reason="x" * 1000)
        for payload in (b"\xff" * 40, b"\x0a\x03a\xffb", b"\x0a\xff\xff\xff\xff\x0f"):
            with self.assertRaises(grpc.RpcError) as caught:
                self.memory.raw("OpenLease", payload)
            self.assertEqual(caught.exception.code(), CODE.INVALID_ARGUMENT)
        with self.assertRaises(grpc.RpcError) as caught:
            self.memory.raw("NoSuchMethod", b"")
        self.assertEqual(caught.exception.code(), CODE.UNIMPLEMENTED)
        self.assertEqual(self.memory.GetCapacity().leases, 0)
        self.assertTrue(self.memory.GetCapacity().accepting)

    def test_wildcard_gives_clients_the_port_alone(self):
        self.start("--data_listen", "0.0.0.0:0")
        port = self.server.data_address.rsplit(":", 1)[1]
        self.assertEqual(list(self.memory.GetCapacity().data_addresses), [":" + port])
        self.server.kill()
        self.start("--data_advertise", "memory.example:4711", name="next")
        self.assertEqual(list(self.memory.GetCapacity().data_addresses), ["memory.example:4711"])


class Isolation(FarmemdTest):
    def test_one_client_cannot_reach_anothers_memory(self):
        self.start()
        a = self.memory.OpenLease(client_name="a")
        b = self.memory.OpenLease(client_name="b")
        grant_a, = self.memory.LeaseSlabs(**self.request(a, 1)).slabs
        grant_b, = self.memory.LeaseSlabs(**self.request(b, 1)).slabs
        data_a, data_b = self.connect(a), self.connect(b)
        self.assertEqual(data_a.write(grant_a, 0, b"A" * 4096), OK)
        self.assertEqual(data_b.read(grant_a, 0, 4096), (DENIED, b""))
        self.assertEqual(data_b.write(grant_a, 0, b"B" * 4096), DENIED)
        guess = type(grant_a)(index=grant_b.index, key=grant_b.key ^ 1)
        self.assertEqual(data_b.read(guess, 0, 4096)[0], DENIED)
        # Somebody else's slab is not given back either, by whoever knows its key.
        self.assertEqual(self.memory.ReleaseSlabs(slabs=[grant_a], **self.proof(b)).released, 0)
        self.assertEqual(data_a.read(grant_a, 0, 4096), (OK, b"A" * 4096))

        for token in (b.token, bytes(32)):
            with self.assertRaises(Refused) as caught:
                self.connect(a, token=token)
            self.assertEqual(caught.exception.args[0], REFUSAL_DENIED)
        self.assertEqual(data_a.read(grant_a, 0, 4096), (OK, b"A" * 4096))

    def test_errors_and_death_of_one_client_leave_the_other_alone(self):
        self.start("--lease_term", "1s", "--heartbeat", "100ms")
        live = self.memory.OpenLease(client_name="live")
        dead = self.memory.OpenLease(client_name="dead")
        grant, = self.memory.LeaseSlabs(**self.request(live, 1)).slabs
        dead_grants = self.memory.LeaseSlabs(**self.request(dead, NR_SLABS - 1)).slabs
        data = self.connect(live)
        self.assertEqual(data.write(grant, 0, b"live" * 1024), OK)
        dead_data = self.connect(dead)
        for dead_grant in dead_grants:
            self.assertEqual(dead_data.write(dead_grant, 0, b"dead" * 1024), OK)

        # Bytes that are not ours, from a stranger and from a client that was admitted.
        host, port = self.server.data_address.rsplit(":", 1)
        for garbage in (b"GET / HTTP/1.1\r\n\r\n" * 100, bytes(4096), os.urandom(65536)):
            with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as stranger:
                try:
                    stranger.sendall(garbage)
                    while stranger.recv(65536):
                        pass
                except ConnectionError:
                    pass
        dead_data.socket.sendall(b"\xff" * 64)
        self.assertTrue(dead_data.is_cut())
        dead_data = self.connect(dead)
        self.assertEqual(dead_data.read(dead_grants[0], 0, 4096), (OK, b"dead" * 1024))
        dead_data.close()

        # Its lease ends by itself. The other one shows life, and keeps everything.
        while self.memory.GetCapacity().leases > 1:
            self.assertEqual(data.ping(), OK)
            self.assertEqual(data.read(grant, 0, 4096), (OK, b"live" * 1024))
        capacity = self.wait_for_slabs(slabs_scrubbing=0)
        self.assertEqual((capacity.slabs_leased, capacity.slabs_free), (1, NR_SLABS - 1))
        self.assert_fails(CODE.NOT_FOUND, "%016x" % dead.lease_id, self.memory.LeaseSlabs, **self.request(dead, 1))
        # What the dead one had is lent again, without what was in it.
        for new_grant in self.memory.LeaseSlabs(**self.request(live, NR_SLABS - 1)).slabs:
            self.assertEqual(data.read(new_grant, 0, MIB), (OK, bytes(MIB)))
        self.assertEqual(data.read(grant, 0, 4096), (OK, b"live" * 1024))

    def test_new_connection_on_a_channel_takes_the_place_of_the_old_one(self):
        self.start()
        lease = self.memory.OpenLease(client_name="a")
        grant, = self.memory.LeaseSlabs(**self.request(lease, 1)).slabs
        old = self.connect(lease, channel=3)
        other = self.connect(lease, channel=4)
        new = self.connect(lease, channel=3)
        self.assertTrue(old.is_cut())
        self.assertEqual(new.write(grant, 0, b"n" * 4096), OK)
        self.assertEqual(other.read(grant, 0, 4096), (OK, b"n" * 4096))


class Drains(FarmemdTest):
    def watch(self, lease):
        call = self.memory.Watch(**self.proof(lease))
        self.addCleanup(call.cancel)
        return call

    def next_event(self, call):
        event = next(call)
        return event.WhichOneof("event"), getattr(event, event.WhichOneof("event"))

    def test_request_cancel_and_watch(self):
        self.start()
        lease = self.memory.OpenLease(client_name="a")
        watch = self.watch(lease)
        kind, welcome = self.next_event(watch)
        self.assertEqual((kind, welcome.accepting, welcome.slabs_free), ("welcome", True, NR_SLABS))
        self.assertTrue(self.memory.ListLeases().leases[0].watching)

        self.assertEqual(self.memory.RequestDrain(deadline_ms=60000, reason="new memory").leases, 1)
        kind, drain = self.next_event(watch)
        self.assertEqual((kind, drain.reason), ("drain_requested", "new memory"))
        self.assertTrue(0 < drain.deadline_ms <= 60000)
        self.assertFalse(self.memory.GetCapacity().accepting)
        self.assert_fails(CODE.FAILED_PRECONDITION, "draining", self.memory.OpenLease, client_name="b")
        self.assert_fails(CODE.FAILED_PRECONDITION, "draining", self.memory.LeaseSlabs, **self.request(lease, 1))

        # Who comes late hears of it at once.
        late = self.watch(lease)
        self.assertEqual(self.next_event(late)[1].accepting, False)
        self.assertEqual(self.next_event(late)[0], "drain_requested")

        self.memory.CancelDrain()
        self.memory.CancelDrain()
        self.assertEqual(self.next_event(watch)[0], "drain_cancelled")
        self.assertEqual(len(self.memory.LeaseSlabs(**self.request(lease, 1)).slabs), 1)

        self.assert_fails(CODE.RESOURCE_EXHAUSTED, "watches", self.memory.Watch, **self.proof(lease))
        self.memory.CloseLease(**self.proof(lease))
        self.assertEqual(self.next_event(watch)[0], "lease_revoked")
        with self.assertRaises(StopIteration):
            next(watch)
        self.assertEqual(watch.code(), CODE.OK)

    def test_watch_ends_with_a_lease_that_runs_out(self):
        self.start("--lease_term", "400ms", "--heartbeat", "100ms")
        lease = self.memory.OpenLease(client_name="a")
        events = [event.WhichOneof("event") for event in self.watch(lease)]
        self.assertEqual(events, ["welcome", "lease_revoked"])

    def test_sigterm_waits_for_the_slabs(self):
        server = self.start()
        health = server.health()
        self.addCleanup(health.close)
        self.assertEqual(health.Check(service="").status, 1)
        lease = self.memory.OpenLease(client_name="a")
        grants = self.memory.LeaseSlabs(**self.request(lease, 2)).slabs
        data = self.connect(lease)
        self.assertEqual(data.write(grants[0], 0, b"x" * 4096), OK)
        watch = self.watch(lease)
        self.assertEqual(self.next_event(watch)[0], "welcome")

        server.terminate()
        self.assertEqual(self.next_event(watch)[0], "drain_requested")
        self.assertEqual(health.Check(service="farswap.memory.v1.MemoryServer").status, 2)
        self.assert_fails(CODE.FAILED_PRECONDITION, "draining", self.memory.LeaseSlabs, **self.request(lease, 1))
        self.assert_fails(CODE.UNAVAILABLE, "stopping", self.memory.CancelDrain)
        self.assertEqual(data.read(grants[0], 0, 4096), (OK, b"x" * 4096))
        self.assertEqual(self.memory.ReleaseSlabs(slabs=grants, **self.proof(lease)).released, 2)
        self.assertEqual(self.next_event(watch)[0], "server_stopping")
        self.assertEqual(server.wait(), 0, server.log())
        self.assertTrue(data.is_cut())
        self.assertFalse(os.path.exists(server.ready_file))

    def test_second_sigterm_or_the_end_of_the_grace_cut_leases(self):
        for grace in ("10min", "50ms"):
            server = self.start("--stop_grace", grace, name="grace-" + grace)
            lease = self.memory.OpenLease(client_name="a")
            self.memory.LeaseSlabs(**self.request(lease, 1))
            watch = self.watch(lease)
            self.assertEqual(self.next_event(watch)[0], "welcome")
            server.terminate()
            self.assertEqual(self.next_event(watch)[0], "drain_requested")
            if grace == "10min":
                server.terminate()
            self.assertEqual(self.next_event(watch)[0], "server_stopping")
            self.assertEqual(server.wait(), 3, server.log())
            self.assertIn("1 slabs", server.log())

    def test_sighup_is_no_end(self):
        server = self.start()
        server.process.send_signal(signal.SIGHUP)
        self.assertEqual(self.memory.GetCapacity().slabs_free, NR_SLABS)
        server.terminate()
        self.assertEqual(server.wait(), 0, server.log())


class CommandLine(FarmemdTest):
    def run_farmemd(self, *args):
        return subprocess.run([FARMEMD, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=DEADLINE_S, check=False)

    def assert_refused(self, status, words, *args):
        result = self.run_farmemd(*args)
        lines = result.stderr.splitlines()
        self.assertEqual((result.returncode, result.stdout, len(lines)), (status, "", 1), result.stderr)
        for word in words.split():
            self.assertIn(word, lines[0])
        self.assertIn("farmemd", lines[0])

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="latin-1") as file:
            file.write(content)
        return path

    def test_help_and_version(self):
        result = self.run_farmemd("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for option in ("--memory", "--listen", "--data-listen", "--lease-term", "--ready-file", "--stop-grace"):
            self.assertIn(option, result.stdout)
        self.assertRegex(self.run_farmemd("--version").stdout, r"^farmemd \d+\.\d+\.\d+\n$")
        example = self.run_farmemd("--print-config")
        self.assertEqual(example.returncode, 0)
        self.assertIn("slab_size", example.stdout)

    def test_wrong_settings(self):
        self.assert_refused(2, "bogus", "--bogus", "--memory", "8M")
        self.assert_refused(2, "memory", )
        self.assert_refused(2, "memory", "--memory", "0")
        self.assert_refused(2, "memory 2X", "--memory", "2X")
        self.assert_refused(2, "memory -1", "--memory", "-1")
        self.assert_refused(2, "memory 3M slab_size 2M", "--memory", "3M", "--slab-size", "2M")
        self.assert_refused(2, "memory 99999999999999999999", "--memory", "99999999999999999999")
        self.assert_refused(2, "slab-size 3M", "--memory", "3M", "--slab-size", "3M")
        self.assert_refused(2, "slab-size", "--memory", "8M", "--slab-size", "512K")
        self.assert_refused(2, "heartbeat lease_term", "--memory", "64M", "--heartbeat", "5s")
        self.assert_refused(2, "lease-term 5", "--memory", "64M", "--lease-term", "5")
        self.assert_refused(2, "max_lease_memory 1M", "--memory", "64M", "--max-lease-memory", "1M")
        self.assert_refused(2, "max-leases", "--memory", "64M", "--max-leases", "0")
        self.assert_refused(2, "reactors 99", "--memory", "64M", "--reactors", "99")
        self.assert_refused(2, "cpus 1 2", "--memory", "64M", "--cpus", "0", "--reactors", "2")
        self.assert_refused(2, "cpus 100000", "--memory", "64M", "--cpus", "100000")
        self.assert_refused(2, "log-level loud", "--memory", "64M", "--log-level", "loud")
        self.assert_refused(2, "data_advertise nonsense", "--memory", "64M", "--data-advertise", "nonsense")
        self.assert_refused(2, "rdma_advertise nonsense", "--memory", "64M", "--rdma-advertise", "nonsense")
        self.assert_refused(2, "name", "--memory", "64M", "--name", "a\nb")

    def test_wrong_configuration_file(self):
        self.assert_refused(2, "/nonexistent.conf", "--config", "/nonexistent.conf")
        self.assert_refused(2, self.folder, "--config", self.folder)
        path = self.file("unknown.conf", "[memory]\nmemory = 64M\nmemroy = 1M\n")
        self.assert_refused(2, path + " memroy 3", "--config", path)
        path = self.file("malformed.conf", "[memory\nmemory\n")
        self.assert_refused(2, path + " 1", "--config", path)
        path = self.file("binary.conf", "\x7fELF\x01\0\0\xff\xfe")
        self.assert_refused(2, path, "--config", path)
        path = self.file("size.conf", "[memory]\nmemory = 64Q\n")
        self.assert_refused(2, path + " 64Q", "--config", path)

    def test_what_cannot_be_had(self):
        ports = ["--listen", "127.0.0.1:0", "--data_listen", "127.0.0.1:0"]
        self.assert_refused(1, "memory 900T", "--memory", "900T", *ports)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            self.assert_refused(1, "data_listen " + address, "--memory", "64M", *ports[:2], "--data_listen", address)
            self.assert_refused(1, "listen " + address, "--memory", "64M", *ports[2:], "--listen", address)
        for option in ("listen", "data_listen"):
            for address in ("nonsense", "127.0.0.1:99999", "", "192.0.2.1:7777"):
                self.assert_refused(1, option + " " + address, "--memory", "64M", *ports, "--" + option, address)
        ready = os.path.join(self.folder, "no", "such", "folder")
        self.assert_refused(1, "ready_file " + ready, "--memory", "64M", *ports, "--ready_file", ready)
        self.assertEqual(os.listdir(self.folder), [])

    def test_two_servers_never_share_a_port(self):
        server = self.start()
        result = self.run_farmemd("--memory", "8M", "--slab_size", "1M", "--listen", server.control_address,
                                  "--data_listen", "127.0.0.1:0")
        self.assertEqual(result.returncode, 1, result.stderr)
        result = self.run_farmemd("--memory", "8M", "--slab_size", "1M", "--listen", "127.0.0.1:0", "--data_listen",
                                  server.data_address)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(self.memory.GetCapacity().slabs_free, NR_SLABS)

    def test_configuration_file_and_unix_socket(self):
        control = "unix:" + os.path.join(self.folder, "control.sock")
        path = self.file("good.conf", "[memory]\nmemory = 4M\nslab_size = 2M\n[process]\nname = from the file\n")
        server = self.start("--config", path, "--listen", control, "--memory", "6M", "--slab_size", "2M")
        self.assertEqual(server.control_address, control)
        capacity = self.memory.GetCapacity()
        self.assertEqual((capacity.slabs_total, capacity.slab_bytes), (3, 2 * MIB))
        server.terminate()
        self.assertEqual(server.wait(), 0, server.log())
        self.assertFalse(os.path.exists(control[len("unix:"):]))


if __name__ == "__main__":
    if not os.path.exists(FARMEMD):
        print("skipped: there is no farmemd in " + BIN_DIR)
        sys.exit(77)
    unittest.main(verbosity=1)
