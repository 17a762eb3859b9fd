#!/usr/bin/python3
"""What is wrong is said in one line that names it, with an exit status other than 0, and nothing is left half done."""
import os
import socket
import stat
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from farmemd import FARMEMD, MIB, Farmemd  # noqa: E402
from farswapd import (FARSWAPCTL, FARSWAPD, Farswapd, free_port, loop_devices_over, mounts_below,  # noqa: E402
                      swap_devices)

NOBODY = "65534"
# Not errors of ours: what the machine did not let the daemon have, although it went on.
WARNING = " warning: "


def has_module(name):
    """Whether the kernel has it, or could load it. Where nobody can tell, it is taken to have it."""
    if os.path.exists("/sys/module/" + name):
        return True
    try:
        return subprocess.run(["modprobe", "--dry-run", "--quiet", name], check=False).returncode == 0
    except FileNotFoundError:
        return True


class BadInput(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        # So that somebody without rights gets as far as to what is refused.
        os.chmod(self.folder, 0o777)

    def path(self, name, content=None):
        path = os.path.join(self.folder, name)
        if content is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
        return path

    def refuse(self, names, command, user=None, one_line=True):
        """The command fails, with words that name the thing, and leaves nothing."""
        if user:
            command = ["setpriv", "--reuid=" + user, "--regid=" + user, "--clear-groups", "--inh-caps=-all",
                       "--bounding-set=-all", *command]
        before = self.state()
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                                check=False)
        lines = [line for line in result.stderr.splitlines() if line and WARNING not in line and " notice: " not in line]
        self.assertNotIn(result.returncode, (0, 124), (command, result.stderr))
        self.assertGreater(result.returncode, 0, (command, result.stderr))
        self.assertTrue(lines, command)
        if one_line:
            self.assertEqual(len(lines), 1, (command, result.stderr))
        for name in names.split("|"):
            self.assertIn(name, lines[-1], command)
        self.assertEqual(self.state(), before, command)

    def state(self):
        return (loop_devices_over(self.folder), mounts_below(self.folder),
                sorted(name for name in os.listdir(self.folder) if not name.endswith((".lock", ".log"))))

    def farmemd(self, names, *args, memory="8M", **options):
        port = free_port()
        command = [FARMEMD, "--memory", memory, "--slab-size", "1M", "--listen", "127.0.0.1:0", "--data-listen",
                   "127.0.0.1:%d" % port, "--ready-file", self.path("ready")]
        self.refuse(names, command + list(args), **options)
        with socket.create_server(("127.0.0.1", port)):
            pass

    def farswapd(self, names, *args, size="64M", servers="127.0.0.1:1", frontend="nbd", **options):
        command = [FARSWAPD, "--size", size, "--servers", servers, "--frontend", frontend, "--admin-socket",
                   self.path("admin.sock"), "--nbd-listen", "unix:" + self.path("nbd.sock"), "--mount-dir",
                   self.path("mnt"), "--start-timeout", "300ms"]
        self.refuse(names, command + list(args), **options)

    def server(self, **options):
        server = Farmemd(self.folder, "--memory", "64M", **options)
        self.addCleanup(server.kill)
        return server

    def test_configuration(self):
        missing, folder = self.path("missing.conf"), self.path("folder")
        os.mkdir(folder)
        unreadable = self.path("secret.conf", "[memory]\nmemory = 8M\n")
        os.chmod(unreadable, stat.S_IWUSR)
        cases = [
            ("missing.conf|No such file", missing),
            ("folder|Is a directory", folder),
            ("bad1.conf:2|name = value", self.path("bad1.conf", "[process]\nnonsense\n")),
            ("bad2.conf:2|colour", self.path("bad2.conf", "[process]\ncolour = blue\n")),
            ("bad3.conf:2|log_level|loud", self.path("bad3.conf", "[process]\nlog_level = loud\n")),
            ("bad4.conf|elsewhere", self.path("bad4.conf", "[elsewhere]\nname = x\n")),
            ("bad5.conf:3|name", self.path("bad5.conf", "[process]\nname = x\nname = y\n")),
        ]
        for names, path in cases:
            self.farmemd(names, "--config", path)
            self.farswapd(names, "--config", path)
        self.farmemd("secret.conf|Permission denied", "--config", unreadable, user=NOBODY)

    def test_command_line(self):
        for program in (self.farmemd, self.farswapd):
            program("--colour", "--colour", "blue")
            program("stray", "stray")
            program("--log-level|loud", "--log-level", "loud")
            program("--config", "--config")
        self.refuse("frobnicate", [FARSWAPCTL, "frobnicate"])
        self.refuse("--colour", [FARSWAPCTL, "status", "--colour"])
        self.refuse("drain|server", [FARSWAPCTL, "drain"])
        self.refuse("nowhere.sock", [FARSWAPCTL, "--socket", self.path("nowhere.sock"), "status"])

    def test_sizes(self):
        self.farmemd("memory", memory="0")
        self.farmemd("memory|multiple|slab_size", memory="1025K")
        self.farmemd("memory", memory="lots")
        self.farmemd("memory", memory="-1M")
        self.farmemd("slab-size|power of two", "--slab-size", "3M")
        self.farmemd("memory|this machine does not have", "--slab-size", "1G", memory="8T")
        self.farswapd("size", size="0")
        self.farswapd("size|multiple", size="4097")
        self.farswapd("size|16T", size="17T")
        self.farswapd("size", size="99999999999999999999")
        self.farswapd("disk_size|disk", "--disk-size", "64M")

    def test_ports_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = "127.0.0.1:%d" % listener.getsockname()[1]
            self.farmemd("data_listen|%s|in use" % address, "--data-listen", address)
            self.farmemd("listen|%s" % address, "--listen", address)
            self.farswapd("nbd_listen|%s|in use" % address, "--nbd-listen", address,
                          servers=self.server().control_address, one_line=False)
        self.farmemd("listen|host.invalid", "--listen", "host.invalid:1")
        self.farmemd("data_listen|nowhere", "--data-listen", "nowhere")

    def test_second_daemon(self):
        server = self.server()
        daemon = Farswapd(self.folder, [server])
        self.addCleanup(daemon.stop)
        self.farswapd("admin_socket|%s|in use" % daemon.socket, "--admin-socket", daemon.socket,
                      servers=server.control_address)
        self.farswapd("nbd_listen|%s|in use" % daemon.nbd_socket, "--nbd-listen", "unix:" + daemon.nbd_socket,
                      servers=server.control_address)
        self.assertEqual(daemon.status().frontend.kind, "nbd")

    def test_servers(self):
        self.farswapd("servers", servers="")
        self.farswapd("servers|justahost", servers="justahost")
        self.farswapd("servers|twice", servers="127.0.0.1:1,127.0.0.1:1")
        self.farswapd("servers|start_timeout", one_line=False)

    def test_disk(self):
        image = self.path("disk.img")
        with open(image, "wb") as file:
            file.truncate(64 * MIB)
        self.farswapd("disk|missing/disk.img|No such file", "--disk", self.path("missing/disk.img"), "--disk-size", "64M")
        self.farswapd("disk|%s" % self.folder, "--disk", self.folder, "--disk-size", "64M")
        if os.geteuid() == 0:
            loop = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True)
            device = loop.stdout.strip()
            self.addCleanup(subprocess.run, ["losetup", "-d", device], check=False)
            subprocess.run(["mkfs.ext4", "-q", device], check=True)
            mount = self.path("fs")
            os.mkdir(mount)
            subprocess.run(["mount", device, mount], check=True)
            self.addCleanup(subprocess.run, ["umount", mount], check=False)
            self.farswapd("disk|%s|busy" % device, "--disk", device)

    @unittest.skipIf(os.geteuid() != 0, "not root: no other user to be")
    def test_without_root(self):
        self.farswapd("frontend: fuse|root", frontend="fuse", user=NOBODY, one_line=False,
                      servers=self.server().control_address)
        self.farswapd("frontend: nbd-kernel|root", frontend="nbd-kernel", user=NOBODY, one_line=False,
                      servers=self.server().control_address)

    @unittest.skipIf(os.geteuid() != 0, "not root: it is refused for that")
    @unittest.skipIf(has_module("nbd"), "this kernel has NBD, or can load it")
    def test_without_nbd(self):
        self.farswapd("frontend: nbd-kernel|modprobe nbd", frontend="nbd-kernel", servers=self.server().control_address)

    @unittest.skipIf(os.geteuid() != 0, "not root: no swap to be had")
    def test_device_in_use(self):
        server = self.server()
        daemon = Farswapd(self.folder, [server], frontend="fuse")
        self.addCleanup(daemon.stop)
        self.farswapd(daemon.mount_dir + "|busy", "--mount-dir", daemon.mount_dir, "--start-timeout", "30s",
                      servers=server.control_address, frontend="fuse", one_line=False)
        self.assertIn(daemon.endpoint, swap_devices())
        self.assertEqual(daemon.stop(), 0, daemon.log())
        self.assertEqual((loop_devices_over(self.folder), mounts_below(self.folder)), ([], []))


if __name__ == "__main__":
    unittest.main(verbosity=2)
