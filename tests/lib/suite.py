"""tests/run: builds everything, runs everything, and counts.

One line per step: 'ok', 'FAIL' or 'skip', its name, and how long it took or why it was skipped. A step that runs ctest
counts as many tests as ctest ran; each of them that failed or was skipped has a line of its own, and figures that one
has measured are shown below the step's. The last line is
'N passed, N failed, N skipped', and the exit status is 1 if anything failed.
"""
import argparse
import contextlib
import glob
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

import figures

SOURCE_DIR = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
BUILD_DIR = os.path.join(SOURCE_DIR, "build")
LOG_DIR = os.path.join(BUILD_DIR, "test-logs")
JOBS = str(os.cpu_count() or 2)
TAIL_LINES = 25
SKIPPED = 77

# What tests/vm has machines of.
VM_KERNELS = ("6.12", "6.1")

# Where threads meet without locks: what ThreadSanitizer is for. gRPC is not instrumented, so nothing that uses it.
TSAN_TESTS = ["unit/test_rcu", "unit/test_reactor", "unit/test_reactor_thread", "unit/test_expose", "unit/test_lender",
              "unit/test_tcp_stream", "unit/test_tcp_garbage", "unit/test_verbs", "unit/test_verbs_send", "unit/test_nbd_server",
              "unit/test_nbd_attach", "unit/test_fault",
              "unit/test_remote_queue", "unit/test_remote_session", "conform/conform_transport",
              "conform/conform_frontend_nbd", "fault/test_vswap_threads", "fault/test_swap_threads", "fault/test_comp_threads",
              "unit/test_library"]
# Those need longer than all else with a sanitizer, and find there what they find with fewer operations.
SANITIZED_ENVIRONMENT = {"FARSWAP_OPS": "100000"}
QUICK_ENVIRONMENT = {"FARSWAP_OPS": "100000", "FARSWAP_PREEMPTIONS": "1"}


class Program:
    """One that runs, in a process group of its own, and what it says goes to its log."""

    def __init__(self, name, command, environment=None):
        self.name = name
        self.path = os.path.join(LOG_DIR, name.replace("/", "-") + ".log")
        self.begun = time.monotonic()
        with open(self.path, "w", encoding="utf-8") as log:
            log.write("$ %s\n" % " ".join(command))
            log.flush()
            self.process = subprocess.Popen(command, cwd=SOURCE_DIR, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **(environment or {})}, start_new_session=True)

    def finish(self, timeout_s):
        """(exit status or None when the time, from its start on, was over; log path; seconds)"""
        try:
            status = self.process.wait(max(0, self.begun + timeout_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.stop()
            status = None
        return status, self.path, time.monotonic() - self.begun

    def stop(self):
        if self.process.poll() is None:
            stop(self.process)


class Suite:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        os.makedirs(LOG_DIR, exist_ok=True)

    def count(self, verdict, name, detail, log=None):
        self.passed += verdict == "ok"
        self.failed += verdict == "FAIL"
        self.skipped += verdict == "skip"
        print("%s %s%s" % (verdict, name, detail and (" (%s)" if verdict == "ok" else ": %s") % detail), flush=True)
        if verdict == "FAIL" and log:
            for line in tail(log):
                print("    " + line, flush=True)

    def execute(self, name, command, timeout_s, environment=None):
        """Runs it to its end, or for so long. (exit status or None when the time was over, log path, seconds)"""
        program = Program(name, command, environment)
        try:
            return program.finish(timeout_s)
        finally:
            program.stop()

    def step(self, name, command, timeout_s, environment=None, show=False):
        """One program, which is one test; with `show`, what it says is shown. Whether it did not fail."""
        return self.judge(name, timeout_s, *self.execute(name, command, timeout_s, environment), show)

    def steps(self, commands, timeout_s):
        """(name, command) each, all at the same time."""
        programs = []
        try:
            for name, command in commands:
                programs.append(Program(name, command))
            for program in programs:
                self.judge(program.name, timeout_s, *program.finish(timeout_s))
        finally:
            for program in programs:
                program.stop()

    def judge(self, name, timeout_s, status, log, seconds, show=False):
        if status == SKIPPED:
            self.count("skip", name, (tail(log) or ["no reason given"])[-1])
        elif status == 0:
            self.count("ok", name, "%.0f s" % seconds)
            if show:
                with open(log, encoding="utf-8", errors="replace") as file:
                    print("".join("    " + line for line in file.readlines()[1:]), end="", flush=True)
        else:
            why = "timed out after %d s" % timeout_s if status is None else "exit status %d" % status
            self.count("FAIL", name, "%s, see %s" % (why, relative(log)), log)
        return status in (0, SKIPPED)

    def build(self, preset, targets=()):
        command = "cmake --preset %s && cmake --build --preset %s -j %s" % (preset, preset, JOBS)
        if targets:
            command += " --target " + " ".join(targets)
        return self.step("build/" + preset, ["sh", "-c", command], 900)

    def ctest(self, name, preset, arguments, timeout_s, environment=None, jobs=JOBS, times=False):
        """A selection of ctest's tests, each counted. With `times`, how long each has taken is shown."""
        report = os.path.join(LOG_DIR, name.replace("/", "-") + ".xml")
        if os.path.exists(report):
            os.remove(report)
        command = ["ctest", "--preset", preset, "--no-tests=error", "--output-junit", report, "--output-on-failure",
                   "--test-output-size-passed", "100000", "--test-output-size-failed", "100000", "-j", jobs, *arguments]
        status, log, seconds = self.execute(name, command, timeout_s, environment)
        if status is None or not os.path.exists(report):
            why = "timed out after %d s" % timeout_s if status is None else "no report"
            self.count("FAIL", name, "%s, see %s" % (why, relative(log)), log)
            return
        ran = 0
        more = []
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            case_name = "%s: %s" % (name, case.get("name"))
            lines = (case.findtext("system-out") or "").strip().splitlines()
            if case.get("status") == "run":
                self.passed += 1
                ran += 1
                output = figures.shown(lines)
                if times or output:
                    more.append("%s: %.0f s" % (case.get("name"), float(case.get("time"))))
                more += ["    " + line for line in output]
            elif case.find("skipped") is not None:
                self.count("skip", case_name, lines[-1].strip() if lines else "no reason given")
            else:
                self.count("FAIL", case_name, failure(case))
                for line in lines[-TAIL_LINES:]:
                    print("    " + line)
        print("ok %s: %d tests (%.0f s)" % (name, ran, seconds), flush=True)
        print("".join("    %s\n" % line for line in more), end="", flush=True)


def failure(case):
    element = case.find("failure")
    return (element.get("message") if element is not None else None) or case.get("status") or "failed"


def target_of(test):
    """What cmake calls the program of a test, see cmake/FarswapTests.cmake."""
    label, name = test.split("/")
    return name if label in ("unit", "conform") else "%s_%s" % (label, name)


def stop(process):
    """SIGTERM first, so that a test can take down what it has set up."""
    for number, patience_s in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        return


def tail(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return [line for line in file.read().splitlines()[1:] if line.strip()][-TAIL_LINES:]


def relative(path):
    return os.path.relpath(path, SOURCE_DIR)


def scripts():
    """Our shell scripts, by their first line or by their suffix."""
    found = []
    for pattern in (".ci/*", "deploy/*", "deploy/quickstart.d/*", "tests/run", "tests/integ/*.sh", "tests/vm/*",
                    "tests/vm/guest/*", "tests/vm/lib/*.sh", "tools/*"):
        for path in sorted(glob.glob(os.path.join(SOURCE_DIR, pattern))):
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    first = file.readline()
                if path.endswith(".sh") or (first.startswith(b"#!") and first.rstrip().endswith(b"sh")):
                    found.append(relative(path))
    return found


def fuzz(suite, targets, seconds):
    """The libFuzzer targets, each a test: all at a time, for each runs on one processor."""
    commands = []
    with contextlib.ExitStack() as stack:
        for target in targets:
            corpus = stack.enter_context(tempfile.TemporaryDirectory(prefix="farswap-fuzz-"))
            seeds = os.path.join(SOURCE_DIR, "tests/fuzz/corpus", target)
            commands.append(("fuzz/" + target, [
                os.path.join(BUILD_DIR, "fuzz/bin", target), "-max_total_time=%d" % seconds, "-timeout=10",
                "-rss_limit_mb=2048", "-print_final_stats=1", "-artifact_prefix=%s/" % LOG_DIR, corpus,
                *([seeds] if os.path.isdir(seeds) else [])]))
        suite.steps(commands, seconds + 60)


def quick(suite):
    if suite.build("release"):
        suite.ctest("release", "release", ["-L", "^(style|unit|conform|sim|fault|interleave)$"], 300, QUICK_ENVIRONMENT)
    suite.step("shellcheck", ["shellcheck", "-x", *scripts()], 60)


def full(suite, fuzz_seconds):
    suite.step("shellcheck", ["shellcheck", "-x", *scripts()], 60)
    released = suite.build("release")
    if released:
        suite.ctest("release", "release", ["-LE", "^(integ|vm)$"], 1800)
        # The tests are tested: each known mistake must make one of them fail.
        suite.step("mutants", [sys.executable, "-B", os.path.join(SOURCE_DIR, "tests/lib/mutants.py")], 1800, show=True)
    if suite.build("asan"):
        suite.ctest("asan", "asan", ["-LE", "^(integ|vm|style|model)$"], 1800, SANITIZED_ENVIRONMENT)
    if suite.build("tsan", [test.replace("unit/", "").replace("conform/", "").replace("/", "_") for test in TSAN_TESTS]):
        suite.ctest("tsan", "tsan", ["-R", "^(%s)$" % "|".join(TSAN_TESTS)], 1800, SANITIZED_ENVIRONMENT)
    suite.build("clang")
    sources = sorted(glob.glob(os.path.join(SOURCE_DIR, "tests/fuzz/fuzz_*.c")))
    targets = [os.path.splitext(os.path.basename(source))[0] for source in sources]
    if suite.build("fuzz", targets):
        fuzz(suite, targets, fuzz_seconds)
    if released:
        if os.geteuid() == 0:
            # The swap of a daemon that an earlier run left dead would be offered to every program that is short of memory.
            suite.step("remains", [os.path.join(SOURCE_DIR, "deploy/quickstart"), "--clean"], 300)
        # One at a time: they measure nothing, but each has daemons with threads and memory of their own.
        suite.ctest("integ", "release", ["-L", "^integ$"], 2400, jobs="1")
        # Fetched once, so that no test's time is the network's.
        run = os.path.join(SOURCE_DIR, "tests/vm/run")
        fetched = [suite.step("vm/kernel-" + series, [run, "--fetch", "--kernel", series], 900, show=True)
                   for series in VM_KERNELS]
        if all(fetched):
            suite.ctest("vm", "release", ["-L", "^vm$"], 2400, times=True)
        suite.step("bench", [os.path.join(BUILD_DIR, "release/bin/farswap-bench"), "--quick"], 400)
        if os.geteuid() == 0:
            suite.step("quickstart", [os.path.join(SOURCE_DIR, "deploy/quickstart")], 900)
        else:
            suite.count("skip", "quickstart", "not root, and it turns swap on")


def main():
    parser = argparse.ArgumentParser(prog="tests/run", formatter_class=argparse.RawDescriptionHelpFormatter, description=(
        "Installs what the tests need, builds farswap (gcc, gcc with ASan and UBSan, gcc with TSan, clang, clang with\n"
        "libFuzzer) below build/, and runs all tests. Tests that turn swap on need root, and are skipped without."))
    parser.add_argument("--quick", action="store_true", help="two minutes: the release build and what needs no daemons")
    parser.add_argument("--fuzz-seconds", type=int, default=60, metavar="N", help="for each fuzz target (60)")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    suite = Suite()
    try:
        quick(suite) if options.quick else full(suite, options.fuzz_seconds)
    except (KeyboardInterrupt, SystemExit):
        suite.count("FAIL", "interrupted", "what comes after this was not run")
    finally:
        print("%d passed, %d failed, %d skipped" % (suite.passed, suite.failed, suite.skipped), flush=True)
    return 1 if suite.failed else 0


if __name__ == "__main__":
    sys.exit(main())
