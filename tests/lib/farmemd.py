"""A real farmemd, and a data connection to it that shares no code with it: what common/wire/frame.h says, in Python."""
import hashlib
import hmac
import os
import signal
import socket
import struct
import subprocess

from grpc_proto import Service
from program import ready_lines

BIN_DIR = os.environ.get("FARSWAP_BIN_DIR", "bin")
FARMEMD = os.path.join(BIN_DIR, "farmemd")
DEADLINE_S = 60
MIB = 1 << 20

READ, WRITE, PING = 1, 2, 3
OK, DENIED, RANGE = 0, 1, 2
REFUSAL_NONE, REFUSAL_STALE, REFUSAL_DENIED = 0, 1, 2


class Farmemd:
    """The daemon, on free ports of the loopback, with 8 slabs of 1 MiB unless told otherwise."""

    def __init__(self, folder, *args, name="test-server", address="127.0.0.1"):
        self.ready_file = os.path.join(folder, name + ".ready")
        self.log_path = os.path.join(folder, name + ".log")
        command = [FARMEMD, "--name", name, "--memory", "8M", "--slab_size", "1M", "--listen", address + ":0",
                   "--data_listen", address + ":0", "--ready_file", self.ready_file, *args]
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            addresses = ready_lines(self.process, self.ready_file, self.log_path)
        except RuntimeError:
            self.kill()
            raise
        self.control_address = addresses["control"]
        self.data_address = addresses["data"]

    def service(self):
        return Service("proto/memory.proto", "farswap.memory.v1.MemoryServer", self.control_address)

    def health(self):
        return Service("proto/health.proto", "grpc.health.v1.Health", self.control_address)

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        return self.process.wait(DEADLINE_S)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _crc32c_table():
    table = []
    for i in range(256):
        crc = i
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
        table.append(crc)
    return table


_CRC32C = _crc32c_table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


class Refused(Exception):
    """The daemon did not admit the connection; args[0] is its reason."""


class DataConnection:
    """One data connection under a lease. One operation at a time."""

    def __init__(self, data_address, lease, token=None, channel=0, proof=True):
        host, port = data_address.rsplit(":", 1)
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=DEADLINE_S)
        self.tag = 0
        token = lease.token if token is None else token
        hello = self._recv(56)
        if hello[:8] != b"farswap\x01":
            raise ValueError("not a HELLO: %r" % hello)
        auth = b"farswap\x02" + struct.pack("<HHIQQII", 1, 0, channel, lease.lease_id, lease.instance_id, 8, 100)
        auth += os.urandom(32)
        said = hello + auth + bytes(32)
        key = token if proof else bytes(32)
        self.socket.sendall(auth + hmac.new(key, b"farswap data initiator\0" + said, hashlib.sha256).digest())
        ready = self._recv(56)
        refusal = struct.unpack_from("<I", ready, 8)[0]
        if refusal != REFUSAL_NONE:
            self.close()
            raise Refused(refusal)
        said += ready[:24] + bytes(32)
        expected = hmac.new(token, b"farswap data lender   \0" + said, hashlib.sha256).digest()
        if not hmac.compare_digest(ready[24:], expected):
            raise ValueError("the daemon does not know the token")

    def _recv(self, length):
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise ConnectionResetError("the daemon has closed the connection")
            data += more
        return data

    def _operate(self, opcode, slab, key, offset, length, payload=b""):
        self.tag = (self.tag + 1) % 8
        tag = 8 if opcode == PING else self.tag
        head = struct.pack("<B3xIIIQI", opcode, tag, slab, key, offset, length)
        self.socket.sendall(head + struct.pack("<I", crc32c(head)) + payload)
        response = self._recv(16)
        if struct.unpack("<I", response[12:])[0] != crc32c(response[:12]):
            raise ValueError("a response with a wrong checksum")
        got_opcode, status, _, got_tag, length = struct.unpack("<BBHII", response[:12])
        if (got_opcode, got_tag) != (opcode, tag):
            raise ValueError("a response to something else")
        return status, self._recv(length)

    def read(self, grant, offset, length):
        """(status, bytes)"""
        return self._operate(READ, grant.index, grant.key, offset, length)

    def write(self, grant, offset, data):
        """status"""
        return self._operate(WRITE, grant.index, grant.key, offset, len(data), data)[0]

    def ping(self):
        """Shows life, which renews the lease."""
        return self._operate(PING, 0, 0, 0, 0)[0]

    def is_cut(self):
        """Waits for the daemon to close the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.socket.close()
