"""The mutants: each patch of tests/mutants puts one mistake into a copy of the sources, and a test must notice.

    python3 tests/lib/mutants.py [--build DIR] [NAME...]

A patch begins with two lines, '# Trap N: what is wrong' and '# Killed by: test...', where a test is what ctest calls it. First
all these tests run on the sources as they are, and must pass. Then each mutant is built and meets its tests in their order,
until one kills it: by a failed assertion, of its own or of the product; by a crash; or by a hang, which is a test that
takes a multiple of the time that it took before. Prints a table. Exit status 1: a mutant survived, a patch does not apply
or build any more, or a test fails without one.

With NAME only the mutants whose names begin with one of them.
"""
import argparse
import concurrent.futures
import filecmp
import glob
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time

import suite

PATCHES = os.path.join(suite.SOURCE_DIR, "tests/mutants")
BUILD_DIR = os.path.join(suite.BUILD_DIR, "mutants")
LEAST_LIMIT_S = 8
LIMIT_FACTOR = 8
# A killer is quick, and the same in every run.
ENVIRONMENT = {"FARSWAP_OPS": "20000", "FARSWAP_SEED": "1", "FARSWAP_PREEMPTIONS": "1"}
NOT_COPIED = {"build", ".git", "__pycache__"}


class Failure(Exception):
    """What makes the verdict on a mutant impossible."""


class Mutant:
    def __init__(self, path):
        self.path = path
        self.name = os.path.splitext(os.path.basename(path))[0]
        with open(path, encoding="utf-8") as file:
            text = file.read()
        header = re.match(r"# Trap (\d+): (.+)\n# Killed by: (.+)\n", text)
        self.files = re.findall(r"^\+\+\+ b/(\S+)", text, re.MULTILINE)
        if not header or not self.files:
            raise Failure("%s: no header, or no patch" % self.name)
        self.trap, self.what, tests = header.groups()
        self.tests = tests.split()


class Tree:
    """A copy of the sources, and a build of it that is kept from run to run. One thread at a time."""

    def __init__(self, folder):
        self.source = os.path.join(folder, "source")
        self.binary = os.path.join(folder, "binary")

    def copy(self):
        """Only what has changed, so that only that is built again."""
        wanted = set()
        for folder, folders, files in os.walk(suite.SOURCE_DIR):
            folders[:] = [name for name in folders if name not in NOT_COPIED]
            for name in files:
                path = os.path.relpath(os.path.join(folder, name), suite.SOURCE_DIR)
                wanted.add(path)
                self.restore(path)
        for folder, _, files in os.walk(self.source):
            for name in files:
                path = os.path.join(folder, name)
                if os.path.relpath(path, self.source) not in wanted:
                    os.remove(path)

    def restore(self, path):
        original, copy = os.path.join(suite.SOURCE_DIR, path), os.path.join(self.source, path)
        if os.path.exists(copy) and filecmp.cmp(original, copy, shallow=False):
            return
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copyfile(original, copy)
        shutil.copymode(original, copy)  # and not the time: a file that was changed back is a new one for ninja

    def configure(self):
        # What a mistake leaves unused is no error.
        run(["cmake", "-S", self.source, "-B", self.binary, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug",
             "-DFARSWAP_WERROR=OFF"], "does not configure")

    def build(self, tests):
        run(["cmake", "--build", self.binary, "-j", "1", "--target", *[suite.target_of(test) for test in tests]],
            "does not build")

    def prepare(self, tests):
        self.copy()
        self.configure()
        self.build(tests)

    def apply(self, mutant):
        run(["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-", "--force",
             "--directory=" + self.source, "--input=" + mutant.path], "does not apply")

    def program(self, test):
        return os.path.join(self.binary, "tests", test.split("/")[0], suite.target_of(test))


def run(command, complaint):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)
    if done.returncode != 0:
        raise Failure("%s\n%s" % (complaint, "\n".join(done.stdout.splitlines()[-suite.TAIL_LINES:])))


def execute(program, limit_s):
    """(exit status, or None when the time was over; output; seconds)"""
    start = time.monotonic()
    # In a folder that goes away: a test that is stopped leaves its files behind.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory(prefix="farswap-mutant-") as folder:
        process = subprocess.Popen([program], cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   env={**os.environ, **ENVIRONMENT}, start_new_session=True)
        try:
            status = process.wait(limit_s)
        except BaseException as error:
            suite.stop(process)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = None
        output.seek(0)
        return status, output.read().decode(errors="replace"), time.monotonic() - start


FAILED_CASE = re.compile(r"^\[  FAILED  \] (\S+)$", re.MULTILINE)


def how(status, output):
    """How the first case that did not pass ended; what comes after it may be its doing."""
    first = FAILED_CASE.split(output)[0]
    asserted = re.search(r"(\w+\.[ch]):\d+: .*Assertion", first)
    if asserted:
        return "assertion in " + asserted[1]
    if status is None and first == output:
        return "hang"
    crashed = status is not None and status < 0
    return "crash" if "failed with exception" in first or crashed else "assertion"


def case(output):
    """The first case of a program that failed, or the one that was under way when it ended."""
    failed = FAILED_CASE.search(output)
    begun = re.findall(r"^\[ RUN      \] (\S+)$", output, re.MULTILINE)
    return failed[1] if failed else begun[-1] if begun else "?"


def baseline(tree, tests):
    """Runs the tests on what they are to pass on. The time that each may take with a mutant."""
    limits = {}
    for test in tests:
        status, output, seconds = execute(tree.program(test), 300)
        if status != 0:
            raise Failure("%s does not pass without a mutant (%s in %s)" % (test, how(status, output), case(output)))
        limits[test] = max(LEAST_LIMIT_S, LIMIT_FACTOR * seconds)
    return limits


def hunt(tree, mutant, limits):
    """(killer, how), or None if it lives."""
    try:
        tree.apply(mutant)
        tree.build(mutant.tests)
        for test in mutant.tests:
            status, output, _ = execute(tree.program(test), limits[test])
            if status != 0:
                return "%s, %s" % (test, case(output)), how(status, output)
    finally:
        for path in mutant.files:
            tree.restore(path)
    return None


def judge(tree, mutant, limits):
    """(row of the table, what is wrong with it or None)"""
    try:
        verdict = hunt(tree, mutant, limits)
    except Failure as failure:
        return (mutant.name, "FAILED", str(failure).splitlines()[0]), "%s %s" % (mutant.name, failure)
    if verdict is None:
        return (mutant.name, "SURVIVED", ""), "%s survived: %s" % (mutant.name, mutant.what)
    return (mutant.name, *verdict), None


def judge_all(folder, mutants):
    """As judge, of each; as many at a time as there are processors, each in a tree of its own."""
    trees = [Tree(os.path.join(folder, str(i))) for i in range(min(os.cpu_count() or 1, len(mutants)))]
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    free = queue.SimpleQueue()
    with concurrent.futures.ThreadPoolExecutor(len(trees)) as pool:
        list(pool.map(lambda tree: tree.prepare(tests), trees))
        limits = baseline(trees[0], tests)
        for tree in trees:
            free.put(tree)

        def judge_one(mutant):
            tree = free.get()
            try:
                return judge(tree, mutant, limits)
            finally:
                free.put(tree)

        return list(pool.map(judge_one, mutants))


def table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description="Puts known mistakes into a copy of the sources; the tests must notice.")
    parser.add_argument("--build", default=BUILD_DIR, metavar="DIR", help="for the copy and its build [build/mutants]")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only mutants whose names begin so; else all")
    options = parser.parse_args()

    try:
        mutants = [Mutant(path) for path in sorted(glob.glob(os.path.join(PATCHES, "*.patch")))]
        mutants = [m for m in mutants if not options.names or m.name.startswith(tuple(options.names))]
        if not mutants:
            raise Failure("no such mutant")
        verdicts = judge_all(os.path.abspath(options.build), mutants)
    except Failure as failure:
        print(failure)
        return 1
    rows = [("mutant", "killed by", "how"), *(row for row, _ in verdicts)]
    troubles = [trouble for _, trouble in verdicts if trouble]
    table(rows)
    print("%d mutants, %d killed" % (len(mutants), len(mutants) - len(troubles)))
    for trouble in troubles:
        print(trouble)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
