#!/usr/bin/python3
"""deploy/quickstart leaves nothing behind: after Ctrl-C at any stage, and, with --clean, after it was killed."""
import glob
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from farmemd import BIN_DIR  # noqa: E402
from farswapd import loop_devices_over, mounts_below  # noqa: E402
from grpc_proto import SOURCE_DIR  # noqa: E402
from program import limit_time  # noqa: E402

QUICKSTART = os.path.join(SOURCE_DIR, "deploy/quickstart")
STAGE_S = 150
# What it says when it gets there.
STAGES = ("writing", "starting two memory servers", "sorting it again", "emptying server alpha")


class Interrupted(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-", dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.addCleanup(subprocess.run, [QUICKSTART, "--clean"], env=self.environment(), timeout=150, check=False,
                        stdout=subprocess.DEVNULL)
        limit_time(self, 400)

    def environment(self):
        return {**os.environ, "TMPDIR": self.folder}

    def run_until(self, stage, number, delay=0):
        """Its output and exit status, and the folders that it had, when it gets the signal so many seconds after that stage."""
        process = subprocess.Popen([QUICKSTART, "--mib", "256", "--bin-dir", BIN_DIR], env=self.environment(), text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = ""
        until = time.monotonic() + STAGE_S
        for line in process.stdout:
            output += line
            if stage in line or line.startswith("quickstart: turning") or time.monotonic() > until:
                break
        self.assertIn(stage, output)
        folders = glob.glob(self.folder + "/*")
        time.sleep(delay)
        process.send_signal(number)
        output += process.communicate(timeout=150)[0]
        return output, process.returncode, folders

    def assert_nothing_left(self, folders):
        self.assertEqual(len(folders), 1)
        self.assertEqual(glob.glob(self.folder + "/*"), [])
        self.assertEqual((loop_devices_over(self.folder), mounts_below(self.folder)), ([], []))
        self.assertEqual(glob.glob("/sys/fs/cgroup/**/" + os.path.basename(folders[0]), recursive=True), [])
        self.assertEqual(self.processes(folders[0]), [])

    @staticmethod
    def processes(folder):
        """Whose command line names the folder."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as file:
                    line = file.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if folder in line:
                found.append(line)
        return found

    def test_interrupted_at_every_stage(self):
        for stage in STAGES:
            with self.subTest(stage=stage):
                output, status, folders = self.run_until(stage, signal.SIGINT)
                self.assertEqual(status, 130, output)
                self.assertIn("interrupted", output)
                self.assert_nothing_left(folders)

    def test_interrupted_at_any_moment(self):
        """A shell that is just about to substitute a command can lose a signal."""
        for moment in range(80):
            with self.subTest(moment=moment):
                output, status, folders = self.run_until("writing", signal.SIGINT, moment * 100e-6)
                self.assertEqual(status, 130, output)
                self.assert_nothing_left(folders)

    def test_killed_and_cleaned(self):
        _, status, folders = self.run_until("sorting it again", signal.SIGKILL)
        self.assertEqual(status, -signal.SIGKILL)
        self.assertTrue(self.processes(folders[0]))
        clean = subprocess.run([QUICKSTART, "--clean"], env=self.environment(), timeout=150, check=False, text=True,
                               capture_output=True)
        self.assertEqual(clean.returncode, 0, clean.stdout + clean.stderr)
        self.assertTrue(re.search("taking down " + re.escape(folders[0]), clean.stdout), clean.stdout)
        self.assert_nothing_left(folders)

    @staticmethod
    def kill_daemons(folder, number):
        for path in glob.glob(folder + "/*.pid"):
            with open(path, encoding="utf-8") as file:
                try:
                    os.kill(int(file.read().split()[0]), number)
                except ProcessLookupError:
                    pass

    def test_a_dead_farswapd_elsewhere(self):
        """Its swap is found wherever it is: a quickstart will not run beside it, and --clean takes it down."""
        _, _, folders = self.run_until("emptying server alpha", signal.SIGKILL)
        elsewhere = {**os.environ, "TMPDIR": "/var/tmp"}
        # It dies while it is asked; the second time it is dead.
        self.kill_daemons(folders[0], signal.SIGSTOP)
        for i in range(2):
            run = subprocess.Popen([QUICKSTART, "--bin-dir", BIN_DIR], env=elsewhere, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
            while i == 0 and not any(line.startswith("stat ") for line in self.processes(folders[0])):
                time.sleep(0.01)
            self.kill_daemons(folders[0], signal.SIGKILL)
            _, error = run.communicate(timeout=150)
            self.assertEqual(run.returncode, 1)
            self.assertIn(folders[0] + "/mnt: the farswapd of this mount has died", error)
        clean = subprocess.run([QUICKSTART, "--clean"], env=elsewhere, timeout=150, check=False, text=True,
                               capture_output=True)
        self.assertEqual(clean.returncode, 0, clean.stdout + clean.stderr)
        self.assertEqual((loop_devices_over(self.folder), mounts_below(self.folder)), ([], []))

    def kill_daemon(self, name):
        """While the program swaps; the output of the run, which must fail and leave nothing."""
        process = subprocess.Popen([QUICKSTART, "--mib", "256", "--bin-dir", BIN_DIR], env=self.environment(), text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = ""
        for line in process.stdout:
            output += line
            if "emptying server alpha" in line:
                break
        folders = glob.glob(self.folder + "/*")
        with open(folders[0] + "/" + name + ".pid", encoding="utf-8") as file:
            os.kill(int(file.read().split()[0]), signal.SIGKILL)
        output += process.communicate(timeout=250)[0]
        self.assertEqual(process.returncode, 1, output)
        self.assert_nothing_left(folders)

    def test_a_server_dies(self):
        self.kill_daemon("farmemd-beta")

    def test_the_client_dies(self):
        self.kill_daemon("farswapd")


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("not root, and it turns swap on")
        sys.exit(77)
    unittest.main(verbosity=2)
