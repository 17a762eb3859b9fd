#!/usr/bin/python3
"""Has spin search all that tests/model/move.pml can do, and checks that it finds every mistake that can be put into it.

Each case is a number of writers, reads and so on, small enough to be searched to the end: a drain with its mover and the
reaper, and any two of a write, a read and a discard. (All three are more than 55 million states.)
"""
import sys

import spin

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


def main():
    if spin.is_missing():
        return spin.SKIPPED
    table = spin.Table("move.pml")
    for name, parts in CASES:
        table.holds("safety", name, (NOBODY, *parts))
    for claim, name, parts in LIVENESS:
        table.holds("liveness", "%s: %s" % (claim, name), (NOBODY, *parts), claim)
    for bug, parts, wanted in BUGS:
        table.is_found(bug, (NOBODY, *parts), wanted)
    for bug, claim, parts, wanted in LIVENESS_BUGS:
        table.is_found(bug, (NOBODY, *parts), wanted, claim)
    return table.end()


if __name__ == "__main__":
    sys.exit(main())
