#!/usr/bin/python3
"""The runner of machines itself: what it passes on, what it ends, and what it takes for a complaint of the kernel's; and the
shell in one."""
import glob
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest

VM_DIR = os.path.dirname(os.path.abspath(__file__))
RUN = os.path.join(VM_DIR, "run")
SHELL = os.path.join(VM_DIR, "shell")
sys.path.insert(0, os.path.join(VM_DIR, "lib"))

from console import complaints, excerpt, taints  # noqa: E402
from machine import COMPLAINED, LATE, NO_REPORT, SKIPPED  # noqa: E402

DEADLINE_S = 120

# Of real kernels.
BAD = [
    "[   61.2] WARNING: CPU: 1 PID: 812 at drivers/infiniband/sw/rxe/rxe_pool.c:168 __rxe_cleanup+0x12c/0x170 [rdma_rxe]",
    "[    9.1] BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "[    9.1] BUG: Bad page state in process swap_hog  pfn:01f3a",
    "[  240.0] INFO: task swap_hog:402 blocked for more than 120 seconds.",
    "[    9.1] Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "[    9.1] Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
    "[    9.1] Kernel panic - not syncing: sysrq triggered crash",
    "[  101.9] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "[  101.9] rcu: INFO: rcu_preempt self-detected stall on CPU",
]
GOOD = [
    "[    1.5] acpi PNP0A03:00: fail to add MMCONFIG information, can't access extended configuration space",
    "[    3.4] amd_pstate: the _CPC object is not present in SBIOS or ACPI disabled",
    "[    4.0] Read-error on swap-device (43:0:128)",
    "[    4.0] block nbd0: Connection timed out, retrying",
    "[    4.0] Memory cgroup out of memory: Killed process 402 (swap_hog) total-vm:100356kB",
    "[   47.6] sysrq: Resetting",
]


class Console(unittest.TestCase):
    def test_complaints(self):
        self.assertEqual(complaints("\n".join(GOOD + BAD)), BAD)

    def test_excerpt_begins_shortly_before(self):
        self.assertEqual(excerpt("\n".join(GOOD + BAD[:1] + GOOD[:2])), GOOD[-3:] + BAD[:1] + GOOD[:2])

    def test_taints(self):
        # P, F, O, E and the like come with modules, and are nobody's mistake.
        self.assertEqual(taints(1 << 0 | 1 << 1 | 1 << 12 | 1 << 13), [])
        self.assertEqual(taints(1 << 9 | 1 << 7), ["oops", "warning"])


class Runner(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-", dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def script(self, text):
        path = os.path.join(self.folder, "script.sh")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def run_vm(self, text, *options, arguments=(), **environment):
        return subprocess.run([RUN, *options, self.script(text), *arguments], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE_S, check=False,
                              env={**os.environ, "TMPDIR": self.folder, **environment})

    def assert_ended(self, done, status, *words):
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        for word in words:
            self.assertIn(word, done.stdout + done.stderr)
        self.assertEqual(glob.glob(os.path.join(self.folder, "farswap-vm-*")), [])

    def test_passes_on(self):
        """Output, arguments, environment and shared files, and the exit status; what is written elsewhere is gone."""
        results = os.path.join(self.folder, "results")
        done = self.run_vm('# vm: --modules nbd --env "A=of the header" --env B=2\n'
                           'echo "out $1 $2"; echo err >&2; echo "$A $B $FARSWAP_OPS $(id -u)"\n'
                           '[ -b /dev/nbd0 ] && echo nbd; [ -r "$FARSWAP_SOURCE_DIR/STYLE.md" ] && echo tree\n'
                           'echo kept >"$FARSWAP_VM_RESULTS/file"; echo gone >"${FARSWAP_VM_RESULTS%/*}/file"\n'
                           'sleep 1000 & exit 7\n',
                           "--env", "B=3", "--results", results, arguments=["a b", "*"], FARSWAP_OPS="9")
        self.assert_ended(done, 7, "exit status 7")
        self.assertEqual(done.stdout, "out a b *\nerr\nof the header 3 9 0\nnbd\ntree\n")
        with open(os.path.join(results, "file"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "kept\n")
        self.assertTrue(os.path.exists(os.path.join(results, "console.log")))
        self.assertFalse(os.path.exists(os.path.join(self.folder, "file")))

    def test_skip_of_the_script(self):
        done = self.run_vm("echo no such thing; exit 77\n")
        self.assert_ended(done, SKIPPED)
        self.assertEqual((done.stdout, done.stderr), ("no such thing\n", ""))

    def test_time_limit(self):
        """Of a script that does not go when it is told to, and would end well if it were let."""
        done = self.run_vm("trap '' TERM INT HUP; echo begun; for i in {1..60}; do sleep 1; done; echo at its end\n",
                           "--limit", "45")
        self.assert_ended(done, LATE, "begun", "time limit of 45 s passed")
        self.assertNotIn("at its end", done.stdout)

    def test_warning(self):
        """A line as WARN() writes it, by way of the kernel's log."""
        done = self.run_vm("echo '<4>%s' >/dev/kmsg; exit 0\n" % BAD[0].partition("] ")[2])
        self.assert_ended(done, COMPLAINED, "the kernel complained", "__rxe_cleanup")

    def test_mark(self):
        """The mark that WARN() leaves, with nothing on the console; a script that failed keeps its status."""
        done = self.run_vm("echo 512 >/proc/sys/kernel/tainted; exit 3\n")
        self.assert_ended(done, 3, "the kernel is marked: warning")

    def test_crash(self):
        done = self.run_vm("echo begun; sleep 0.5; echo c >/proc/sysrq-trigger; sleep 100\n")
        self.assert_ended(done, NO_REPORT, "begun", "Kernel panic", "ended without a report")

    def test_hung_task(self):
        """A write to a file system that is frozen waits where no signal ends it."""
        done = self.run_vm("# vm: --modules brd,ext4 --hung-task 2\n"
                           "set -e; mkdir /tmp/frozen; busybox mke2fs /dev/ram0 >/dev/null; mount /dev/ram0 /tmp/frozen\n"
                           "fsfreeze --freeze /tmp/frozen; touch /tmp/frozen/file & sleep 8; fsfreeze --unfreeze /tmp/frozen\n"
                           "wait $!\n")
        self.assert_ended(done, COMPLAINED, "blocked for more than 2 seconds")

    def test_no_such_module(self):
        done = self.run_vm("echo begun\n", "--modules", "no_such_module")
        self.assert_ended(done, NO_REPORT, "no_such_module")
        self.assertNotIn("begun", done.stdout)

    def test_told_to_end(self):
        """No emulator and no file stays behind."""
        process = subprocess.Popen([RUN, self.script("sleep 1000\n")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": self.folder})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        emulators = emulators_of(process)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(DEADLINE_S), 143)
        self.assertEqual([pid for pid in emulators if os.path.exists("/proc/%d" % pid)], [])
        self.assertEqual(glob.glob(os.path.join(self.folder, "farswap-vm-*")), [])


class NotHere(unittest.TestCase):
    """Where there can be no machine, the exit status is that of a test that is skipped, and the last line says why."""

    def run_without(self, reason, *options, **environment):
        with tempfile.TemporaryDirectory(prefix="farswap-test-", dir="/var/tmp") as folder:
            config = os.path.join(folder, "apt.conf")
            with open(config, "w", encoding="utf-8") as file:
                file.write('Dir::Etc::sourceparts "/dev/null"; Dir::Etc::sourcelist "/dev/null";\n')
            done = subprocess.run([RUN, *options, __file__], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                  stderr=subprocess.STDOUT, timeout=DEADLINE_S, check=False,
                                  env={**os.environ, "APT_CONFIG": config, **environment})
            self.assertEqual(done.returncode, SKIPPED, done.stdout)
            self.assertIn(reason, done.stdout.strip().splitlines()[-1])

    def test_no_emulator(self):
        self.run_without("no program qemu-system-x86_64", PATH="/nowhere")

    def test_no_memory(self):
        self.run_without("MiB of memory are available", "--memory", "9999G")

    def test_no_mirror(self):
        with tempfile.TemporaryDirectory(prefix="farswap-test-", dir="/var/tmp") as cache:
            self.run_without("no mirror of Debian 12", FARSWAP_VM_CACHE=cache)
            self.assertEqual(os.listdir(cache), ["lock"])


class Shell(unittest.TestCase):
    def test_no_terminal(self):
        done = subprocess.run([SHELL], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=DEADLINE_S, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("needs a terminal", done.stdout)

    def test_command(self):
        """What is typed is run in there: its output and its exit status are to be seen, and `exit` ends the machine."""
        with tempfile.TemporaryDirectory(prefix="farswap-test-", dir="/var/tmp") as folder:
            ours, theirs = pty.openpty()
            self.addCleanup(os.close, ours)
            process = subprocess.Popen([SHELL], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                                       env={**os.environ, "TMPDIR": folder})
            self.addCleanup(process.kill)
            os.close(theirs)
            until = time.monotonic() + DEADLINE_S
            read_terminal(ours, until, "# ")
            os.write(ours, b'(uname -n; exit 3); echo "status=$?"; exit\n')
            text = read_terminal(ours, until)
            self.assertEqual(process.wait(DEADLINE_S), 0, text)
            for words in ("farswap-vm\r", "status=3\r"):
                self.assertIn(words, text)
            self.assertEqual(glob.glob(os.path.join(folder, "farswap-vm-*")), [])


def read_terminal(terminal, until, words=None):
    """What is written there, up to those words, or until nobody has it open."""
    text = ""
    while words is None or words not in text:
        if not select.select([terminal], [], [], max(until - time.monotonic(), 0))[0]:
            raise AssertionError("waited in vain for %s: %s" % (words or "the end", text))
        try:
            text += os.read(terminal, 65536).decode(errors="replace")
        except OSError:
            # EIO
            if words is None:
                break
            raise AssertionError("ended without %s: %s" % (words, text)) from None
    return text


def is_emulator(pid):
    """Its program is the emulator's; not the one that it begins as (setpriv), nor none, once it has ended."""
    try:
        return os.readlink("/proc/%s/exe" % pid).endswith("qemu-system-x86_64")
    except (FileNotFoundError, ProcessLookupError):
        return False


def emulators_of(process):
    """The pids of its children that are emulators, once there are any; it must not end before."""
    until = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < until:
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid), encoding="utf-8") as file:
            emulators = [int(pid) for pid in file.read().split() if is_emulator(pid)]
        if emulators:
            return emulators
        time.sleep(0.05)
    raise AssertionError("no emulator was started; exit status %s" % process.poll())


if __name__ == "__main__":
    fetched = subprocess.run([RUN, "--fetch"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if fetched.returncode == SKIPPED:
        print(fetched.stdout, end="")
        sys.exit(SKIPPED)
    unittest.main(verbosity=2)
