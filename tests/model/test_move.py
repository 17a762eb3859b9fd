#!/usr/bin/python3
"""Has spin search all that tests/model/move.pml can do, and checks that it finds every mistake that can be put into it.

Each case is a number of writers, reads and so on, small enough to be searched to the end: a drain with its mover and the
reaper, and any two of a write, a read and a discard. (All three are more than 55 million states.) A search that is not
complete fails like one that finds something.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "move.pml")
MAX_DEPTH = 20000
MAX_MEMORY_MIB = 2000
DEADLINE_S = 120

NOBODY = {"NR_WRITES": 0, "NR_READS": 0, "NR_DISCARDS": 0}
WRITE, TWO_WRITES, READ, DISCARD = {"NR_WRITES": 1}, {"NR_WRITES": 2}, {"NR_READS": 1}, {"NR_DISCARDS": 1}
TWO_WRITERS = {"NR_WRITERS": 2, "NR_WRITES": 1}
TWO_ENTRIES, ONE_SLOT = {"NR_ENTRIES": 2}, {"NR_SLOTS": 1}
FAULT, UNDRAINED = {"NR_FAULTS": 1}, {"MOVE_UNDRAINED": 1}

# What is not named is a drain with its mover and the reaper, which are always there.
CASES = (
    ("write, read", (WRITE, READ)),
    ("write, discard", (WRITE, DISCARD)),
    ("read, discard", (READ, DISCARD)),
    ("two writes", (TWO_WRITES,)),
    ("one slot on each server: two writers", (ONE_SLOT, TWO_WRITERS)),
    ("two entries: write", (TWO_ENTRIES, WRITE)),
    ("two entries: read", (TWO_ENTRIES, READ)),
    ("wrong bytes once: write, read", (FAULT, WRITE, READ)),
    ("a move without a drain: write, read", (UNDRAINED, WRITE, READ)),
)

LIVENESS = (
    ("drain_ends", "two writes", (TWO_WRITES,)),
    ("drain_ends", "read, discard", (READ, DISCARD)),
    ("waiters_are_woken", "write, read", (ONE_SLOT, WRITE, READ)),
)

# Each mistake, where it is looked for, and what must be said of it.
BUGS = (
    ("FREE_AT_ONCE", (WRITE, READ), r"at\["),
    ("EPOCH_WITHOUT_LOOKING", (WRITE, READ), r"at\["),
    ("EPOCH_WITHOUT_SECOND_LOOK", (READ, DISCARD), r"at\["),
    ("EPOCH_READ_BEFORE_UNPUBLISHING", (READ, DISCARD), r"at\["),
    ("SWING_WITHOUT_GENERATION", (UNDRAINED, WRITE), r"bytes\["),
    ("SWING_UNVERIFIED", (FAULT, WRITE, READ), "fault"),
    ("REFUSED_SWING_KEEPS_SLOT", (WRITE,), "used==named"),
    ("PUBLISH_BEFORE_BYTES", (WRITE, READ), "sum!=got"),
    ("PLACE_WHILE_DRAINING", (WRITE, DISCARD), "drained"),
    ("NO_SYNCHRONIZE", (WRITE, DISCARD), "drained"),
    ("DRAINED_WITHOUT_COUNTING", (WRITE,), "drained"),
    ("LOOK_BEFORE_QUEUEING", (WRITE, READ), "invalid end state"),
)
LIVENESS_BUGS = (
    ("LOOK_BEFORE_QUEUEING", "drain_ends", (WRITE,), "acceptance cycle"),
    ("LOOK_BEFORE_QUEUEING", "waiters_are_woken", (ONE_SLOT, WRITE, READ), "acceptance cycle"),
)


def command(*words):
    """Its output. Ends the test when it does not work."""
    process = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             timeout=DEADLINE_S, check=False)
    if process.returncode != 0:
        sys.exit("%s: exit status %d\n%s" % (" ".join(words), process.returncode, process.stdout))
    return process.stdout


def search(parts, bug=None, claim=None):
    """(what was found or None, whether the search was complete, states, output) of one verifier."""
    defines = dict(NOBODY)
    for part in parts:
        defines.update(part)
    if bug:
        defines["BUG_" + bug] = 1
    if claim:
        defines["LIVENESS"] = 1
    with tempfile.TemporaryDirectory(prefix="farswap-model-") as folder:
        os.chdir(folder)
        command("spin", "-a", *("-D%s=%d" % define for define in defines.items()), MODEL)
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

    def __init__(self):
        self.failed = 0

    def row(self, good, kind, name, states, seconds, detail):
        self.failed += not good
        print("%-4s %-10s %-46s %9s states %5.1f s  %s" % ("ok" if good else "FAIL", kind, name, states, seconds, detail),
              flush=True)

    def holds(self, kind, name, parts, claim=None):
        start = time.monotonic()
        found, complete, states, output = search(parts, claim=claim)
        detail = "" if complete else found or "the search is not complete"
        self.row(complete, kind, name, states, time.monotonic() - start, detail)
        if not complete:
            print(output)

    def is_found(self, bug, parts, wanted, claim=None):
        start = time.monotonic()
        found, _, states, output = search(parts, bug, claim)
        good = bool(found and re.search(wanted, found))
        name = "%s (%s)" % (bug, claim) if claim else bug
        self.row(good, "mistake", name, states, time.monotonic() - start, found or "NOT FOUND")
        if not good:
            print(output)


def main():
    for program in ("spin", "gcc"):
        if not shutil.which(program):
            print("no %s: tools/install-deps --test installs it" % program)
            return 77
    table = Table()
    for name, parts in CASES:
        table.holds("safety", name, parts)
    for claim, name, parts in LIVENESS:
        table.holds("liveness", "%s: %s" % (claim, name), parts, claim)
    for bug, parts, wanted in BUGS:
        table.is_found(bug, parts, wanted)
    for bug, claim, parts, wanted in LIVENESS_BUGS:
        table.is_found(bug, parts, wanted, claim)
    print("%d of them failed" % table.failed)
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
