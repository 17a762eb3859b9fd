#!/usr/bin/python3
"""tests/vm/bench_verbs: every case comes with figures and without a wrong byte, and no farther from perftest's than is aimed
at. These are ratios of counted instructions, which do not depend on what else the host does."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

VM_DIR = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(VM_DIR, "lib"))
sys.path.insert(0, os.path.join(VM_DIR, "../lib"))

import figures  # noqa: E402
from machine import SKIPPED  # noqa: E402
from verbs_table import CASES, Wrong, evaluate, table  # noqa: E402

LIMIT_S = 600


def bench(results):
    """Its document; ends this program when there can be no machine here."""
    command = [os.path.join(VM_DIR, "bench_verbs"), "--quick", "--limit", str(LIMIT_S), "--results", results]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    if done.returncode != 0:
        print(done.stdout, flush=True)
    if done.returncode == SKIPPED:
        sys.exit(SKIPPED)
    if done.returncode != 0:
        sys.exit("FAIL: exit status %d" % done.returncode)
    with open(os.path.join(results, "result.json"), encoding="utf-8") as file:
        return json.load(file)


def ours(value, wrong_bytes=0):
    return json.dumps({"median_us": value, "mean_us": value, "mib_per_s": value, "wrong_bytes": wrong_bytes})


class Figures(unittest.TestCase):
    def evaluate(self, passes):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "passes.tsv"), "w", encoding="utf-8") as file:
                file.write("".join("\t".join(one) + "\n" for one in passes))
            with open(os.path.join(folder, "release"), "w", encoding="utf-8") as file:
                file.write("6.12\n")
            return evaluate(folder, 1)

    def passes(self, **more):
        theirs = {"us": " 4096 10 1.0 99.0 20.0 25.0", "MiB/s": " 4096 10 70.0 60.0 1.0"}
        return [(case, "1", who, text) for case, (_, unit, _) in CASES.items()
                for who, text in (("farswap", ours(30, **more)), ("perftest", theirs[unit]))]

    def test_ratios_are_of_medians_and_of_average_rates(self):
        document = self.evaluate(self.passes())
        self.assertEqual([case["ratio"] for case in document["cases"]], [1.5, 1.5, 0.5, 0.5])
        self.assertIn("1.500", table(document))

    def test_a_wrong_byte(self):
        with self.assertRaisesRegex(Wrong, "read-4k: farswap: 3 wrong"):
            self.evaluate(self.passes(wrong_bytes=3))

    def test_a_pass_without_figures(self):
        for passes in (self.passes()[1:], [(*self.passes()[1][:3], ""), *self.passes()]):
            with self.assertRaisesRegex(Wrong, "^read-4k: "):
                self.evaluate(passes)


class Quick(unittest.TestCase):
    document = None

    def test_every_case_has_figures(self):
        self.assertEqual([case["name"] for case in self.document["cases"]], list(CASES))

    def test_as_near_to_perftest_as_is_aimed_at(self):
        for case in self.document["cases"]:
            if case["aim"] is None:
                continue
            with self.subTest(case["name"]):
                if case["unit"] == "us":
                    self.assertLessEqual(case["ratio"], case["aim"])
                else:
                    self.assertGreaterEqual(case["ratio"], case["aim"])


if __name__ == "__main__":
    Quick.document = bench(os.path.join(os.environ["FARSWAP_BIN_DIR"], "../tests/vm/test_bench_verbs"))
    figures.show(table(Quick.document))
    unittest.main()
