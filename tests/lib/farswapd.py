"""A real farswapd for tests, spoken to by an independent gRPC client; and what its kernel side has to do with."""
import os
import re
import signal
import subprocess
import time

from farmemd import BIN_DIR, DEADLINE_S
from grpc_proto import Service
from program import ready_lines

FARSWAPD = os.path.join(BIN_DIR, "farswapd")
FARSWAPCTL = os.path.join(BIN_DIR, "farswapctl")
SWAPOFF_S = 120
RUNNING, DRAINED, CANCELLED, DEADLINE, NO_ROOM, FAILED = range(1, 7)


class Farswapd:
    """The daemon with 64 MiB behind an NBD socket, unless told otherwise. `servers`: Farmemd objects or addresses."""

    def __init__(self, folder, servers, *args, name="test-client", size="64M", frontend="nbd"):
        self.socket = os.path.join(folder, name + ".sock")
        self.nbd_socket = os.path.join(folder, name + ".nbd")
        self.mount_dir = os.path.join(folder, name + ".mnt")
        self.log_path = os.path.join(folder, name + ".log")
        ready_file = os.path.join(folder, name + ".ready")
        addresses = [getattr(server, "control_address", server) for server in servers]
        command = [FARSWAPD, "--name", name, "--size", size, "--admin-socket", self.socket, "--frontend", frontend,
                   "--ready-file", ready_file]
        if addresses:
            command += ["--servers", ",".join(addresses)]
        if frontend == "nbd":
            command += ["--nbd-listen", "unix:" + self.nbd_socket]
        if frontend == "fuse":
            command += ["--mount-dir", self.mount_dir]
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([*command, *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        try:
            self.endpoint = ready_lines(self.process, ready_file, self.log_path)["endpoint"]
        except RuntimeError:
            self.stop()
            raise
        self.admin = Service("proto/admin.proto", "farswap.admin.v1.Admin", "unix:" + self.socket)

    def nbd_uri(self):
        return "nbd+unix:///?socket=" + self.nbd_socket

    def status(self):
        return self.admin.GetStatus()

    def server(self, name):
        """One of ListServers, by a Farmemd, its address, or "disk"."""
        name = getattr(name, "control_address", name)
        return next(server for server in self.admin.ListServers().servers if server.name == name)

    def wait_for(self, name, condition, timeout_s=DEADLINE_S):
        """Until the condition holds for the server; returns it."""
        until = time.monotonic() + timeout_s
        while True:
            server = self.server(name)
            if condition(server):
                return server
            if time.monotonic() > until:
                raise TimeoutError("still %s\n%s" % (server, self.log()))
            time.sleep(0.02)

    def drain(self, name, timeout_s=DEADLINE_S, **options):
        """Runs it to its end; the final message."""
        name = getattr(name, "control_address", name)
        last = None
        for last in self.admin.Drain(timeout=timeout_s, server=name, **options):
            pass
        return last

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        """By SIGTERM, which turns swap off first. The exit status; None if it would not go, and then it is left alone while
        the kernel swaps on it."""
        if hasattr(self, "admin"):
            self.admin.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(SWAPOFF_S)
            except subprocess.TimeoutExpired:
                if swap_devices():
                    return None
                self.process.kill()
                self.process.wait()
        return self.process.returncode


def swap_devices():
    """{device: bytes used}"""
    with open("/proc/swaps", encoding="utf-8") as file:
        rows = [line.split() for line in file.read().splitlines()[1:]]
    return {row[0]: int(row[3]) * 1024 for row in rows}


def loop_devices_over(folder):
    """Loop devices whose file is below the folder."""
    found = []
    for name in os.listdir("/sys/block"):
        try:
            with open("/sys/block/%s/loop/backing_file" % name, encoding="utf-8") as file:
                backing = file.read().rstrip("\n")
        except OSError:
            continue
        if backing.startswith(folder + "/"):
            found.append("/dev/" + name)
    return found


def mounts_below(folder):
    with open("/proc/self/mounts", encoding="utf-8") as file:
        points = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), line.split()[1]) for line in file]
    return [point for point in points if point.startswith(folder + "/")]


def free_port():
    """A TCP port of the loopback that nobody has at this moment."""
    import socket
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
