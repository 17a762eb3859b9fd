"""Has spin search all that a model of this folder can do.

A case is a list of parts, each some macros with their values. A search that is not complete fails like one that finds
something.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
FOLDER = os.path.dirname(os.path.abspath(__file__))
MAX_DEPTH = 20000
MAX_MEMORY_MIB = 2000
DEADLINE_S = 120


def command(*words):
    """Its output. Ends the test when it does not work."""
    process = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             timeout=DEADLINE_S, check=False)
    if process.returncode != 0:
        sys.exit("%s: exit status %d\n%s" % (" ".join(words), process.returncode, process.stdout))
    return process.stdout


def search(model, parts, bug=None, claim=None):
    """(what was found or None, whether the search was complete, states, output) of one verifier."""
    defines = {}
    for part in parts:
        defines.update(part)
    if bug:
        defines["BUG_" + bug] = 1
    if claim:
        defines["LIVENESS"] = 1
    with tempfile.TemporaryDirectory(prefix="farswap-model-") as folder:
        os.chdir(folder)
        command("spin", "-a", *("-D%s=%d" % define for define in defines.items()),
                os.path.join(FOLDER, model))
        # What spin writes is machine-made: its warnings are not ours. A mistake is found sooner than it is optimised.
        flags = ["-w", "-O0" if bug or claim else "-O1", "-DMEMLIM=%d" % MAX_MEMORY_MIB, "-DNFAIR=3"]
        command("gcc", *flags, *([] if claim else ["-DSAFETY", "-DNOCLAIM"]), "-o", "pan", "pan.c")
        output = command("./pan", "-n", "-m%d" % MAX_DEPTH, *(["-a", "-f", "-N", claim] if claim else []))
        os.chdir("/")
    errors = re.search(r"errors: (\d+)", output)
    found = re.search(r"^pan:\d*:? ?(.*) \(at depth", output, re.MULTILINE)
    states = re.search(r"(\S+) states, stored", output)
    incomplete = re.search("Search not completed|depth too small|out of memory|aborted|hash-factor too", output)
    complete = bool(errors) and errors.group(1) == "0" and not incomplete and not found
    return found and found.group(1), complete, states.group(1) if states else "?", output


class Table:
    """One line for each verifier; knows whether all did what they should."""

    def __init__(self, model):
        self.model = model
        self.failed = 0

    def row(self, good, kind, name, states, seconds, detail):
        self.failed += not good
        print("%-4s %-10s %-46s %9s states %5.1f s  %s" % ("ok" if good else "FAIL", kind, name, states, seconds, detail),
              flush=True)

    def holds(self, kind, name, parts, claim=None):
        start = time.monotonic()
        found, complete, states, output = search(self.model, parts, claim=claim)
        detail = "" if complete else found or "the search is not complete"
        self.row(complete, kind, name, states, time.monotonic() - start, detail)
        if not complete:
            print(output)

    def is_found(self, bug, parts, wanted, claim=None):
        start = time.monotonic()
        found, _, states, output = search(self.model, parts, bug, claim)
        good = bool(found and re.search(wanted, found))
        name = "%s (%s)" % (bug, claim) if claim else bug
        self.row(good, "mistake", name, states, time.monotonic() - start, found or "NOT FOUND")
        if not good:
            print(output)

    def end(self):
        """The exit status."""
        print("%d of them failed" % self.failed)
        return 1 if self.failed else 0


def is_missing():
    """Whether something is that is needed; then it was said."""
    for program in ("spin", "gcc"):
        if not shutil.which(program):
            print("no %s: tools/install-deps --test installs it" % program)
            return True
    return False
