#!/usr/bin/python3
"""tests/bench/instructions: what one page costs, in instructions of farswap's own, does not grow."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

BENCH_DIR = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(BENCH_DIR, "../lib"))

import figures  # noqa: E402

SKIPPED = 77
# What is aimed at, for each of them; and what there is and ten more, rounded up to the next fifty. Lower the second when it can
# be. Of new pages a little depends on what other threads do meanwhile.
AIM = 1500
LIMITS = {
    "read": 1850,
    "write": 2350,
    "write of a new page": 2450,
    "read, 16 at a time": 1100,
    "write, 16 at a time": 1450,
}


class Instructions(unittest.TestCase):
    phases = {}

    def test_a_page_costs_no_more_than_before(self):
        self.assertEqual(sorted(self.phases), sorted(LIMITS))
        for name, limit in LIMITS.items():
            with self.subTest(name):
                ours = self.phases[name]["ours"]
                self.assertLessEqual(ours, limit)

    def test_of_every_room_on_the_path(self):
        """A room without a figure would have been counted elsewhere."""
        for name, phase in self.phases.items():
            for room in ("client/frontend/ublk", "client/vswap", "client/backend/remote", "common/transport/verbs",
                         "common/sys"):
                self.assertGreater(phase["rooms"][room], 20, name)
            # A checksum of 4 KiB is not less, with the widest instructions that valgrind knows.
            self.assertGreater(phase["all"] - phase["ours"], 100, name)

    def test_the_bell_is_rung_once_for_all_that_a_turn_has_brought(self):
        for name, phase in self.phases.items():
            self.assertLess(phase["doorbells_per_page"], 0.2 if "16" in name else 1.1, name)


def measure():
    """The table. Ends this program when there is nothing to measure with."""
    with tempfile.NamedTemporaryFile(prefix="farswap-instructions-") as file:
        done = subprocess.run([os.path.join(BENCH_DIR, "instructions"), "--json", file.name], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout)
            sys.exit(done.returncode)
        Instructions.phases = {phase["name"]: phase for phase in json.load(file)["phases"]}
    return done.stdout


if __name__ == "__main__":
    table = measure()
    above = ("%s: %.0f" % (name, phase["ours"] - AIM) for name, phase in Instructions.phases.items() if phase["ours"] > AIM)
    figures.show("%s\nabove the aim of %d by: %s" % (table, AIM, ", ".join(above) or "none"))
    unittest.main()
