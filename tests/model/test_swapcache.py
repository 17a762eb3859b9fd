#!/usr/bin/python3
"""Has spin search all that tests/model/swapcache.pml can do, and checks that it finds every mistake that can be put into it.

A case is searched to the end: two holders of an entry, with reclaim and one or two moves, or three with reclaim and no move.
"""
import sys

import spin

KEPT, THREE_HOLDERS = {"KEPT": 1}, {"NR_HOLDERS": 3, "NR_RECLAIMS": 1, "NR_MOVES": 0}
NO_MOVE, TWO_MOVES = {"NR_MOVES": 0}, {"NR_MOVES": 2, "NR_RECLAIMS": 1}

CASES = (
    ("a move; all leave", ()),
    ("a move; one stays", (KEPT,)),
    ("two moves; one stays", (TWO_MOVES, KEPT)),
    ("three holders; all leave", (THREE_HOLDERS,)),
)

# Each mistake, where it is looked for, and what must be said of it.
BUGS = (
    ("INSERT_WITHOUT_LOCK", (NO_MOVE,), "nr_workers|in_cache|newest"),
    ("LOCKED_WITHOUT_SECOND_LOOK", (KEPT,), "newest"),
    ("UNLOCK_WITHOUT_SECOND_LOOK", (NO_MOVE,), "in_cache==255"),
    ("FREE_WHILE_CACHED", (NO_MOVE,), "in_cache==255"),
    ("SWING_WITHOUT_GENERATION", (KEPT,), "newest|used"),
)


def main():
    if spin.is_missing():
        return spin.SKIPPED
    table = spin.Table("swapcache.pml")
    for name, parts in CASES:
        table.holds("safety", name, parts)
    for bug, parts, wanted in BUGS:
        table.is_found(bug, parts, wanted)
    return table.end()


if __name__ == "__main__":
    sys.exit(main())
