"""Test programs of the build tree, and running them without leaving anything behind."""
import os
import signal
import subprocess
import sys
import time

BUILD_DIR = os.path.dirname(os.environ.get("FARSWAP_BIN_DIR", "bin"))
DEADLINE_S = 60


def program(name):
    return os.path.join(BUILD_DIR, "tests", "integ", name)


def skip(reason):
    """Ends the test program: it cannot run here."""
    print(reason)
    sys.exit(77)


class Server:
    """A program that says "ready ..." on its output, is ended by SIGTERM, and then says its counters."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.ready = self.process.stdout.readline().split()
        if not self.ready or self.ready[0] != "ready":
            self.process.kill()
            raise RuntimeError("%s ended with %d" % (command[0], self.process.wait()))

    def terminate(self):
        """The counters by name."""
        self.process.send_signal(signal.SIGTERM)
        words = self.process.communicate(timeout=DEADLINE_S)[0].split()
        assert self.process.returncode == 0, self.process.returncode
        return {name: int(value) for name, value in zip(words[::2], words[1::2])}

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def ready_lines(process, ready_file, log_path):
    """What a daemon writes into its ready file, by name, once it is there. Raises when the daemon does not get so far."""
    until = time.monotonic() + DEADLINE_S
    while not os.path.exists(ready_file):
        if process.poll() is not None or time.monotonic() > until:
            with open(log_path, encoding="utf-8", errors="replace") as file:
                raise RuntimeError("%s did not become ready:\n%s" % (os.path.basename(process.args[0]), file.read()))
        time.sleep(0.01)
    with open(ready_file, encoding="utf-8") as file:
        return dict(line.rstrip("\n").split("=", 1) for line in file)


def run(*command, timeout=DEADLINE_S * 4, **options):
    """The finished process; its output is text. Raises when it does not end."""
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, check=False, **options)


def limit_time(test, seconds):
    """The test fails after so long, wherever it waits, and its clean-ups run: ctest would only kill it, with swap on."""
    def over(*_):
        raise TimeoutError("not over after %d s" % seconds)
    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    test.addCleanup(signal.alarm, 0)


def wait_until(condition, what):
    until = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("waited in vain: " + what)
        time.sleep(0.01)
