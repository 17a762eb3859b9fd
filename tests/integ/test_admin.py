#!/usr/bin/python3
"""farswapd as its operator sees it: by an independent gRPC client, by farswapctl, and by what it says to bad input."""
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

import grpc  # noqa: E402
from farmemd import MIB, Farmemd  # noqa: E402
from farswapd import (CANCELLED, DEADLINE_S, DRAINED, FARSWAPCTL, FARSWAPD, NO_ROOM, RUNNING,  # noqa: E402
                      Farswapd, free_port)
from grpc_proto import Service  # noqa: E402
from program import run  # noqa: E402

CODE = grpc.StatusCode
PAGE = 4096
REMOTE, DISK = 1, 2  # ServerKind
CONNECTING, UP, DOWN, LOST, DRAINING, IN_DRAINED = range(1, 7)  # ServerState
STARTING, SERVING, IDLE, STOPPING = range(1, 5)  # DaemonState
HEALTHY, NOT_HEALTHY = 1, 2

EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_NO_SERVER, EXIT_INTERRUPTED = 1, 2, 3, 4, 130
COMMANDS = ("status", "servers", "drain", "cancel", "undrain", "check", "swapoff", "version")


class AdminTest(unittest.TestCase):
    """Two servers of 16 slabs and a disk of 16, all of 1 MiB; a device of 16 MiB behind NBD."""

    disk_args = ("--disk_size", "16M", "--disk_slab_size", "1M")

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-admin-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def start_servers(self, number=2):
        self.servers = []
        for i in range(number):
            server = Farmemd(self.folder, "--memory", "16M", name="server%d" % i)
            self.addCleanup(server.kill)
            self.servers.append(server)
        return self.servers

    def start(self, *args, servers=2, disk=True, size="16M", frontend="nbd"):
        self.start_servers(servers)
        if disk:
            args += ("--disk", os.path.join(self.folder, "disk"), *self.disk_args)
        self.daemon = Farswapd(self.folder, self.servers, *args, size=size, frontend=frontend)
        self.addCleanup(self.daemon.stop)
        self.admin = self.daemon.admin
        for server in self.servers:
            self.daemon.wait_for(server, lambda row: row.state == UP)
        return self.daemon

    def write(self, nr_bytes, seed=0):
        """Pages that all differ and cannot be told by one value, from the start of the device on."""
        self.nbd("h.pwrite(random.Random(at + %d).randbytes(1 << 20), at)" % seed, nr_bytes)

    def check(self, nr_bytes, seed=0):
        self.nbd("assert h.pread(1 << 20, at) == random.Random(at + %d).randbytes(1 << 20)" % seed, nr_bytes)

    def nbd(self, statement, nr_bytes):
        code = ("import nbd, random\nh = nbd.NBD()\nh.connect_uri(%r)\nfor at in range(0, %d, 1 << 20):\n    %s\n"
                % (self.daemon.nbd_uri(), nr_bytes, statement))
        result = run("/usr/bin/python3", "-c", code)
        self.assertEqual(result.returncode, 0, result.stderr + self.daemon.log())

    def assert_fails(self, code, words, method, **fields):
        with self.assertRaises(grpc.RpcError) as caught:
            result = method(**fields)
            if not hasattr(result, "DESCRIPTOR"):
                list(result)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, caught.exception.details())

    def ctl(self, *args, socket=None):
        return run(FARSWAPCTL, "--socket", socket or self.daemon.socket, *args)

    def assert_ctl(self, status, *args, words=(), socket=None):
        result = self.ctl(*args, socket=socket)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        if status not in (0, EXIT_FAILED):
            self.assertEqual(result.stdout, "")
        for word in words:
            self.assertIn(word, result.stdout + result.stderr)
        if status == EXIT_USAGE:
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        return result


class ServiceTest(AdminTest):
    def test_a_server_on_all_addresses(self):
        server = Farmemd(self.folder, "--memory", "32M", "--data_listen", "0.0.0.0:0", name="everywhere")
        self.addCleanup(server.kill)
        self.daemon = Farswapd(self.folder, [server], size="16M")
        self.addCleanup(self.daemon.stop)
        self.write(4 * MIB)
        self.check(4 * MIB)

    def test_status_and_servers(self):
        self.start()
        self.write(4 * MIB)
        status = self.admin.GetStatus()
        self.assertEqual(status.pid, self.daemon.process.pid)
        self.assertEqual(status.state, SERVING)
        self.assertEqual(status.frontend.kind, "nbd")
        self.assertIn(self.daemon.nbd_socket, status.frontend.endpoint)
        self.assertFalse(status.frontend.swap_on)
        self.assertEqual(status.device.size_bytes, 16 * MIB)
        self.assertEqual(status.device.pages_in_use, 4 * MIB // PAGE)
        self.assertEqual(status.device.pages_poisoned, 0)
        self.assertEqual(status.io.write_pages, 4 * MIB // PAGE)
        self.assertGreater(status.io.write_latency.p50_ns, 0)
        self.assertGreaterEqual(status.io.write_latency.max_ns, status.io.write_latency.p99_ns)
        self.assertTrue(status.process.memory_locked)
        counters = status.frontend.counters
        self.assertEqual(counters.accepted, 1)
        self.assertEqual((counters.refused, counters.protocol_errors, counters.truncated, counters.timeouts), (0, 0, 0, 0))
        self.assertEqual((counters.bad_requests, counters.io_errors, counters.kernel_errors), (0, 0, 0))
        servers = self.admin.ListServers().servers
        self.assertEqual([row.name for row in servers], [s.control_address for s in self.servers] + ["disk"])
        self.assertEqual([row.kind for row in servers], [REMOTE, REMOTE, DISK])
        self.assertEqual({row.state for row in servers}, {UP})
        for row in servers:
            self.assertEqual(row.capacity_bytes, 16 * MIB)
            self.assertEqual(row.slab_bytes, MIB)
        self.assertEqual(sum(row.used_slots for row in servers), 4 * MIB // PAGE)
        self.assertEqual(sum(row.pages_out for row in servers), 4 * MIB // PAGE)
        self.assertEqual(servers[0].instance_id, self.servers[0].service().GetCapacity().instance_id)
        self.assertEqual([row.HasField("data_port") for row in servers], [True, True, False])

    def test_health(self):
        self.start()
        health = Service("proto/health.proto", "grpc.health.v1.Health", "unix:" + self.daemon.socket)
        self.addCleanup(health.close)
        self.assertEqual(health.Check(service="").status, HEALTHY)
        self.assertEqual(health.Check(service="farswap.admin.v1.Admin").status, HEALTHY)
        list(self.admin.Swapoff())
        self.assertEqual(health.Check(service="").status, NOT_HEALTHY)

    def test_drain_cancel_undrain(self):
        self.start()
        self.write(8 * MIB)
        name = self.servers[0].control_address
        before = self.daemon.server(name).used_slots
        self.assertGreater(before, 0)
        last = self.daemon.drain(name)
        self.assertEqual(last.state, DRAINED, last)
        self.assertEqual((last.pages_left, last.pages_stuck), (0, 0))
        self.assertEqual(last.pages_moved, before)
        self.assertIn(name, last.message)
        # It takes nothing new, and gets its slabs back.
        self.daemon.wait_for(name, lambda row: row.state == IN_DRAINED and row.leased_slabs == 0)
        self.assertEqual(self.servers[0].service().GetCapacity().slabs_leased, 0)
        self.write(8 * MIB, seed=5)
        self.assertEqual(self.daemon.server(name).used_slots, 0)
        self.check(8 * MIB, seed=5)
        self.assert_fails(CODE.FAILED_PRECONDITION, name, self.admin.CancelDrain, server=name)
        self.assertEqual(self.admin.Undrain(server=name).state, UP)
        self.assertEqual(self.admin.Undrain(server=name).state, UP)

    def test_drain_to_disk_and_back(self):
        self.start()
        self.write(8 * MIB)
        for server in self.servers:
            last = self.daemon.drain(server, target="disk")
            self.assertEqual(last.state, DRAINED, self.daemon.log())
        self.assertEqual(self.daemon.server("disk").used_slots, 8 * MIB // PAGE)
        self.assertEqual(self.admin.GetStatus().device.pages_stored_disk, 8 * MIB // PAGE)
        self.check(8 * MIB)
        for server in self.servers:
            self.admin.Undrain(server=server.control_address)
        last = self.daemon.drain("disk", target="remote")
        self.assertEqual(last.state, DRAINED, self.daemon.log())
        self.assertEqual(self.admin.GetStatus().device.pages_stored_disk, 0)
        self.check(8 * MIB)

    def test_drain_without_room_loses_nothing(self):
        self.start(servers=1, disk=False)
        self.write(8 * MIB)
        name = self.servers[0].control_address
        last = self.daemon.drain(name)
        self.assertEqual(last.state, NO_ROOM, last)
        self.assertEqual(last.pages_left, 8 * MIB // PAGE)
        self.assertEqual(self.daemon.server(name).state, DRAINING)
        self.check(8 * MIB)
        self.assertEqual(self.admin.Undrain(server=name).state, UP)
        self.write(8 * MIB, seed=1)
        self.check(8 * MIB, seed=1)

    def test_cancel_ends_the_stream(self):
        self.start(servers=1, disk=False)
        self.write(8 * MIB)
        name = self.servers[0].control_address
        stream = self.admin.Drain(server=name)
        self.assertEqual(next(stream).state, RUNNING)
        # A second one attaches to it.
        other = self.admin.Drain(server=name)
        self.assertIn(next(other).state, (RUNNING, NO_ROOM))
        try:
            self.admin.CancelDrain(server=name)
            ends = (CANCELLED,)
        except grpc.RpcError as error:  # it had found out by then that there is no room
            self.assertEqual(error.code(), CODE.FAILED_PRECONDITION)
            ends = (NO_ROOM,)
        self.assertIn(list(stream)[-1].state, ends)
        self.check(8 * MIB)

    def test_bad_requests(self):
        self.start(disk=False)
        name = self.servers[0].control_address
        for method in (self.admin.Drain, self.admin.CancelDrain, self.admin.Undrain):
            self.assert_fails(CODE.NOT_FOUND, ["elsewhere", name, self.servers[1].control_address], method,
                              server="elsewhere")
            self.assert_fails(CODE.INVALID_ARGUMENT, ["must be given", name], method)
        self.assert_fails(CODE.INVALID_ARGUMENT, "nowhere", self.admin.Drain, server=name, target="nowhere")
        self.assert_fails(CODE.INVALID_ARGUMENT, "no disk", self.admin.Drain, server=name, target="disk")
        self.assert_fails(CODE.INVALID_ARGUMENT, "window_pages", self.admin.Drain, server=name, window_pages=1 << 31)
        self.assert_fails(CODE.INVALID_ARGUMENT, "deadline_ms", self.admin.Drain, server=name, deadline_ms=1 << 63)
        self.assert_fails(CODE.INVALID_ARGUMENT, "", lambda: list(self.admin.raw("GetStatus", b"\xff\xff\xff")))
        self.assertEqual(self.daemon.server(name).state, UP)

    def test_server_asks_for_its_memory(self):
        self.start()
        self.write(8 * MIB)
        memory = self.servers[0].service()
        self.addCleanup(memory.close)
        self.assertEqual(memory.RequestDrain(deadline_ms=60000, reason="test").leases, 1)
        self.daemon.wait_for(self.servers[0], lambda row: row.state == IN_DRAINED and row.leased_slabs == 0)
        self.assertEqual(memory.GetCapacity().slabs_leased, 0)
        self.check(8 * MIB)
        memory.CancelDrain()
        self.daemon.wait_for(self.servers[0], lambda row: row.state == UP)

    def test_swapoff(self):
        self.start()
        messages = list(self.admin.Swapoff())
        self.assertTrue(messages[-1].done)
        self.assertFalse(any(message.done for message in messages[:-1]))
        status = self.admin.GetStatus()
        self.assertEqual((status.state, status.frontend.kind), (IDLE, ""))
        self.assertFalse(os.path.exists(self.daemon.nbd_socket))
        # Nothing is left to be done, which is no error.
        self.assertTrue(list(self.admin.Swapoff())[-1].done)
        self.assertTrue(list(self.admin.Swapoff(exit=True))[-1].done)
        self.assertEqual(self.daemon.process.wait(DEADLINE_S), 0)
        self.assertFalse(os.path.exists(self.daemon.socket))
        for server in self.servers:
            self.assertEqual(server.service().GetCapacity().leases, 0)

    def test_dead_server_comes_back(self):
        self.start("--lost_after", "1s", "--patience", "2s")
        self.write(8 * MIB)
        port = self.servers[0].control_address.rsplit(":", 1)[1]
        lost = self.daemon.server(self.servers[0]).used_slots
        self.servers[0].kill()
        self.daemon.wait_for(self.servers[0], lambda row: row.state == LOST and row.used_slots == 0)
        self.assertEqual(self.admin.GetStatus().device.pages_poisoned, lost)
        self.write(8 * MIB, seed=9)
        self.check(8 * MIB, seed=9)
        self.assertEqual(self.admin.GetStatus().device.pages_poisoned, 0)
        again = Farmemd(self.folder, "--memory", "16M", "--listen", "127.0.0.1:" + port, name="again")
        self.addCleanup(again.kill)
        self.daemon.wait_for(self.servers[0], lambda row: row.state == UP)
        # What is stored stays where it is: an empty server draws no storm.
        self.assertEqual(self.daemon.server(self.servers[0]).used_slots, 0)
        self.check(8 * MIB, seed=9)


class FarswapctlTest(AdminTest):
    def test_output(self):
        self.start()
        self.write(4 * MIB)
        name = self.servers[0].control_address
        self.assert_ctl(0, "status", words=["serving", "nbd", "16M", "4M", "bad requests"])
        table = self.assert_ctl(0, "servers", words=["SERVER", "STATE", name, "disk"]).stdout
        self.assertEqual(len(table.splitlines()), 4)
        self.assertTrue(table.endswith("\n"))
        status = json.loads(self.assert_ctl(0, "-o", "json", "status").stdout)
        self.assertEqual(status["state"], "serving")
        self.assertEqual(status["device"]["pages_in_use"], 4 * MIB // PAGE)
        self.assertEqual(status["io"]["write_pages"], 4 * MIB // PAGE)
        self.assertEqual(status["frontend"]["counters"]["accepted"], 1)
        servers = json.loads(self.assert_ctl(0, "servers", "-o", "json").stdout)["servers"]
        self.assertEqual([row["name"] for row in servers], [s.control_address for s in self.servers] + ["disk"])
        self.assertEqual([row["kind"] for row in servers], ["remote", "remote", "disk"])
        self.assertEqual(int(servers[0]["instance_id"], 16), self.daemon.server(name).instance_id)
        self.assertEqual(servers[0]["data_port"]["protocol_errors"], 0)
        self.assertIsNone(servers[2]["data_port"])
        self.assert_ctl(0, "version", words=["farswapctl", "farswapd"])
        self.assert_ctl(0, "check", words=["1024 pages in use, 1024 slots", "0 differences"])
        found = json.loads(self.assert_ctl(0, "check", "-o", "json").stdout)
        self.assertEqual(found, {"entries": 1024, "slots": 1024, "differences": 0, "unsettled": 0, "difference": []})
        version = json.loads(self.assert_ctl(0, "version", "-o", "json").stdout)
        self.assertEqual(version["farswapctl"], version["farswapd"])

    def test_drain(self):
        self.start()
        self.write(8 * MIB)
        first, second = (server.control_address for server in self.servers)
        lines = self.assert_ctl(0, "drain", first, "-o", "json").stdout.splitlines()
        progress = [json.loads(line) for line in lines]
        self.assertEqual([row["state"] for row in progress][-1], "drained")
        self.assertLessEqual({row["state"] for row in progress[:-1]}, {"running"})
        self.assertEqual({row["server"] for row in progress}, {first})
        self.assertEqual(progress[-1]["pages_left"], 0)
        self.assert_ctl(EXIT_FAILED, "cancel", first, words=[first, "no drain"])
        self.assert_ctl(EXIT_FAILED, "drain", "--cancel", first)
        self.assert_ctl(0, "undrain", first, words=[first])
        server = json.loads(self.assert_ctl(0, "undrain", first, "--output=json").stdout)
        self.assertEqual(server["state"], "up")
        result = self.assert_ctl(0, "drain", "--to", "any", "--deadline", "1min", second, words=["drained", "moved"])
        self.assertNotIn("\r", result.stdout)
        self.assert_ctl(0, "undrain", second)
        self.assert_ctl(0, "drain", "--detach", second)
        self.daemon.wait_for(second, lambda row: row.state == IN_DRAINED)
        self.check(8 * MIB)

    def test_drain_that_fails(self):
        self.start(servers=1, disk=False)
        self.write(8 * MIB)
        name = self.servers[0].control_address
        self.assert_ctl(EXIT_FAILED, "drain", name, "--deadline", "100ms", words=["nothing is lost"])
        self.assert_ctl(0, "undrain", name)
        lines = self.assert_ctl(EXIT_FAILED, "drain", name, "-o", "json").stdout.splitlines()
        self.assertIn(json.loads(lines[-1])["state"], ("no_room", "deadline"))

    def test_bar_on_a_terminal(self):
        self.start()
        self.write(8 * MIB)
        leader, follower = pty.openpty()
        process = subprocess.Popen([FARSWAPCTL, "--socket", self.daemon.socket, "drain",
                                    self.servers[0].control_address], stdin=follower, stdout=follower, stderr=follower)
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 4096):
                shown += chunk
        except OSError:  # the other end has gone
            pass
        os.close(leader)
        self.assertEqual(process.wait(DEADLINE_S), 0, shown)
        self.assertIn(b"\r", shown)
        self.assertIn(b"] ", shown)
        self.assertIn(b"drained", shown)

    def test_interrupt_leaves_the_drain_running(self):
        self.start(servers=1, disk=False)
        self.write(8 * MIB)
        name = self.servers[0].control_address
        process = subprocess.Popen([FARSWAPCTL, "--socket", self.daemon.socket, "-o", "json", "drain", name],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(json.loads(process.stdout.readline())["state"], "running")
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=DEADLINE_S)[1]
        # Without room to move to it gives up by itself, which may come first.
        self.assertIn(process.returncode, (EXIT_INTERRUPTED, EXIT_FAILED), errors)
        if process.returncode == EXIT_INTERRUPTED:
            self.assertIn("farswapctl cancel " + name, errors)
        self.daemon.wait_for(name, lambda row: row.state == DRAINING)

    def test_swapoff(self):
        self.start()
        self.assert_ctl(0, "swapoff", "--wait", words=["swap is off"])
        self.assert_ctl(0, "status", words=["idle"])
        lines = self.assert_ctl(0, "swapoff", "--wait", "-o", "json").stdout.splitlines()
        self.assertTrue(json.loads(lines[-1])["done"])
        self.assert_ctl(0, "swapoff", "--wait", "--exit")
        self.assertEqual(self.daemon.process.wait(DEADLINE_S), 0)
        self.assert_ctl(EXIT_UNREACHABLE, "status", words=[self.daemon.socket])

    def test_unknown_server(self):
        self.start()
        for command in ("drain", "cancel", "undrain"):
            self.assert_ctl(EXIT_NO_SERVER, command, "elsewhere",
                            words=["elsewhere", self.servers[0].control_address, "disk"])

    def test_help(self):
        for args in (("--help",), ("help",), ("-h",)):
            text = self.assert_ctl(0, *args, socket="/nonexistent").stdout
            for command in COMMANDS:
                self.assertIn("\n  " + command, text)
        for command in COMMANDS:
            text = self.assert_ctl(0, command, "--help", socket="/nonexistent").stdout
            self.assertIn("Usage: farswapctl " + command, text)
            self.assertIn("Exit status", text)
            self.assertEqual(self.assert_ctl(0, "help", command, socket="/nonexistent").stdout, text)
        self.assert_ctl(0, "--version", words=["farswapctl"], socket="/nonexistent")
        self.assert_ctl(0, "version", words=["not reachable"], socket="/nonexistent")

    def test_wrong_usage(self):
        for args, words in (((), "no command"), (("dance",), "dance"), (("help", "dance"), "dance"),
                            (("status", "now"), "now"), (("drain",), "which server"), (("drain", "a", "b"), "b"),
                            (("status", "--detach"), "status"), (("drain", "a", "--to", "mars"), "mars"),
                            (("drain", "a", "--deadline", "soon"), "soon"), (("drain", "a", "--window", "0"), "0"),
                            (("drain", "a", "--wait"), "drain"), (("status", "-o", "xml"), "xml"),
                            (("status", "--bogus"), "bogus"), (("status", "-x"), "-x"), (("drain", "--to"), "--to"),
                            (("status", "-s", "relative"), "relative")):
            with self.subTest(args=args):
                self.assert_ctl(EXIT_USAGE, *args, words=[words], socket="/nonexistent")
        for command in ("status", "servers", "swapoff"):
            self.assert_ctl(EXIT_UNREACHABLE, command, words=["/nonexistent"], socket="/nonexistent")


class BadInputTest(AdminTest):
    """Each a line that names the thing, the right exit status, and nothing left behind."""

    def farswapd(self, *args):
        """The last line on stderr, and the exit status."""
        result = run(FARSWAPD, "--config", "/dev/null", *args)
        lines = result.stderr.splitlines() or [""]
        return lines, result.returncode

    def good(self, **changes):
        """A command line that would do, but for its changes. No server is behind it."""
        args = {"size": "16M", "servers": "127.0.0.1:1", "frontend": "none", "start_timeout": "200ms",
                "admin_socket": os.path.join(self.folder, "admin.sock"), **changes}
        return [word for name, value in args.items() if value is not None for word in ("--" + name.replace("_", "-"), value)]

    def test_settings(self):
        for changes, words in (({"size": None}, "size"), ({"size": "0"}, "size"), ({"size": "4097"}, "4097"),
                               ({"size": "17T"}, "16T"), ({"size": "much"}, "much"), ({"size": "-1"}, "-1"),
                               ({"servers": None}, "servers"), ({"servers": "host"}, "host:port"),
                               ({"servers": "a:1,a:1"}, "twice"), ({"frontend": "scsi"}, "scsi"),
                               ({"disk_size": "1G"}, "disk_size"), ({"cpus": "99999"}, "cpus"),
                               ({"queues": "33"}, "queues"), ({"queue_depth": "0"}, "--queue-depth"),
                               ({"swap_priority": "-5"}, "swap_priority"), ({"admin_socket": "here"}, "admin_socket"),
                               ({"frontend": "fuse", "mount_dir": "here"}, "mount_dir"),
                               ({"log_level": "loud"}, "loud"), ({"dead_after": "5"}, "--dead-after"),
                               ({"bogus": "1"}, "bogus")):
            with self.subTest(changes=changes):
                lines, status = self.farswapd(*self.good(**changes))
                self.assertEqual((len(lines), status), (1, 2), lines)
                self.assertTrue(lines[0].startswith("farswapd: "), lines)
                self.assertIn(words, lines[0])
        self.assertEqual(os.listdir(self.folder), [])

    def test_configuration_file(self):
        path = os.path.join(self.folder, "farswapd.conf")
        for text, words in (("size = 1G\n", "section"), ("[device]\nsize = 1G\nsize = 2G\n", "twice"),
                            ("[device]\nbogus = 1\n", "bogus"), ("[nowhere]\n", "nowhere"),
                            ("[device]\nwhat is this\n", ":2:")):
            with self.subTest(text=text):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                result = run(FARSWAPD, "--config", path)
                self.assertEqual((result.returncode, len(result.stderr.splitlines())), (2, 1), result.stderr)
                self.assertIn(words, result.stderr)
        result = run(FARSWAPD, "--config", self.folder + "/missing.conf")
        self.assertEqual(result.returncode, 2)
        self.assertIn("missing.conf", result.stderr)

    def test_help_and_example(self):
        for option, words in (("--help", "Usage: farswapd"), ("--version", "farswapd "), ("--print-config", "[device]")):
            result = run(FARSWAPD, option)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn(words, result.stdout)
        # The example is a configuration file that says nothing.
        path = os.path.join(self.folder, "example.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(run(FARSWAPD, "--print-config").stdout)
        result = run(FARSWAPD, "--config", path)
        self.assertEqual(result.returncode, 2)
        self.assertIn("size", result.stderr)

    def assert_cannot_start(self, words, **changes):
        before = sorted(os.listdir(self.folder))
        lines, status = self.farswapd(*self.good(**changes))
        self.assertEqual(status, 1, lines)
        # Not the last line of all: the other server may have been connected to meanwhile.
        errors = [line for line in lines if " error: " in line]
        self.assertTrue(errors, lines)
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, errors[-1])
        self.assertEqual([name for name in sorted(os.listdir(self.folder)) if not name.endswith(".lock")],
                         [name for name in before if not name.endswith(".lock")])

    def test_no_server_answers(self):
        self.assert_cannot_start(["servers", "start_timeout"], servers="127.0.0.1:%d" % free_port())

    def test_things_that_others_have(self):
        self.start()
        servers = ",".join(server.control_address for server in self.servers)
        disk = os.path.join(self.folder, "disk")
        self.assert_cannot_start(["admin_socket", self.daemon.socket], servers=servers,
                                 admin_socket=self.daemon.socket)
        self.assert_cannot_start(["disk", disk, "busy"], servers=servers, disk=disk, disk_size="16M",
                                 disk_slab_size="1M")
        self.assert_cannot_start(["nbd_listen", self.daemon.nbd_socket, "in use"], servers=servers, frontend="nbd",
                                 nbd_listen="unix:" + self.daemon.nbd_socket)
        self.assert_cannot_start("ready_file", servers=servers, ready_file="/nonexistent/ready")
        self.assert_cannot_start("/nonexistent/x/admin.sock", servers=servers,
                                 admin_socket="/nonexistent/x/admin.sock")
        self.write(MIB)
        self.check(MIB)
        # The leases that were opened for it are closed again.
        self.assertEqual(self.servers[0].service().GetCapacity().leases, 1)

    def test_start_with_what_answers(self):
        servers = self.start_servers(1)
        addresses = [servers[0].control_address, "127.0.0.1:%d" % free_port()]
        daemon = Farswapd(self.folder, addresses, size="4M")
        self.addCleanup(daemon.stop)
        self.assertEqual(daemon.server(addresses[0]).state, UP)
        row = daemon.server(addresses[1])
        self.assertEqual(row.state, CONNECTING)
        self.assertNotEqual(row.last_error, "")
        self.assertEqual(daemon.stop(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
