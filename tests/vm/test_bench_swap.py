#!/usr/bin/python3
"""tests/vm/bench_swap: every row comes with figures and without a wrong word, and figures that are not what they are taken for
are not taken. No figure is compared with anything."""
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
from swap_table import Wrong, evaluate, table, wrong_rows  # noqa: E402

LIMIT_S = 800
# What a stock kernel and the packages of tools/install-deps have.
ROWS = ["farswap-ublk-tcp", "farswap-nbd-kernel-tcp", "farswap-fuse-tcp", "farswap-ublk-verbs", "farswap-nbd-kernel-verbs",
        "farswap-fuse-verbs", "nvme-tcp", "nvme-rdma", "nbd-nbdkit-tcp", "zram", "brd"]


def bench(results):
    """Its document; ends this program when there can be no machine here."""
    command = [os.path.join(VM_DIR, "bench_swap"), "--quick", "--limit", str(LIMIT_S), "--results", results]
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


def one_pass(row, name, packets, pages=100, **more):
    return {"row": row, "round": 1, "pass": name, "pages": pages, "ns": 6000000, "idle_ns": 1000000, "pswpin": 100,
            "pswpout": 50, "wrong_words": 0, "cpu_ns": {}, "counts": {"sent_0": packets, "sent_1": packets}, **more}


class Figures(unittest.TestCase):
    def evaluate(self, rows, passes):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (("rows.tsv", "".join("\t".join(row) + "\n" for row in rows)), ("release", "6.12\n"),
                               ("passes.jsonl", "".join(json.dumps(p) + "\n" for p in passes))):
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(text)
            return evaluate(folder, 1, "a")

    def test_figures_are_per_page_that_went_that_way(self):
        rows = [("a", "its way", "link", ""), ("b", "", "local", ""), ("c", "", "link", "not here")]
        passes = [one_pass("a", name, 100) for name in ("out", "in", "both")]
        passes += [one_pass("b", name, 0, ns=11000000) for name in ("out", "in", "both")]
        document = self.evaluate(rows, passes)
        a, b, c = document["rows"]
        self.assertEqual([a[name]["us_per_page"] for name in ("out", "in", "both")], [100, 50, 50])
        self.assertEqual([b[name]["ratio"] for name in ("out", "in", "both")], [2, 2, 2])
        self.assertAlmostEqual(a["in"]["mib_per_s"], 78.125)
        self.assertNotIn("in", c)
        self.assertIn("not here", table(document))

    def test_wrong_words_of_any_pass_fail_the_row(self):
        rows = [("a", "", "link", ""), ("b", "", "local", ""), ("c", "", "link", "not here")]
        passes = [one_pass("a", name, 100) for name in ("out", "in", "both", "check")]
        passes += [one_pass("b", name, 0) for name in ("out", "in", "both")] + [one_pass("b", "check", 0, wrong_words=4711)]
        document = self.evaluate(rows, passes)
        self.assertEqual([row["name"] for row in wrong_rows(document)], ["b"])
        self.assertRegex(table(document), "(?m)^b .* 4711 ")

    def test_another_way_than_said(self):
        for way, packets in (("link", 3), ("local", 100)):
            with self.assertRaisesRegex(Wrong, "over the link"):
                self.evaluate([("a", "", way, "")], [one_pass("a", name, packets) for name in ("out", "in", "both")])

    def test_no_traffic(self):
        with self.assertRaisesRegex(Wrong, "^a: "):
            self.evaluate([("a", "", "link", "")], [one_pass("a", "out", 100, pswpout=0)])

    def test_a_row_without_passes(self):
        with self.assertRaisesRegex(Wrong, "^a: "):
            self.evaluate([("a", "", "link", "")], [])


class Quick(unittest.TestCase):
    document = None

    def test_every_row_has_figures(self):
        rows = {row["name"]: row for row in self.document["rows"]}
        for name in ROWS:
            self.assertIsNone(rows[name]["skipped"], name)
        for name, row in rows.items():
            if row["skipped"]:
                continue
            self.assertEqual(row["wrong_words"], 0, name)
            for figure in ("out", "in") if name == "none" else ("out", "in", "both"):
                self.assertGreater(row[figure]["us_per_page"], 0, (name, figure))

    def test_time_of_daemons(self):
        for row in self.document["rows"]:
            if row["name"].startswith("farswap-") and not row["skipped"]:
                self.assertEqual(sorted(row["in"]["daemons_us"]), ["farmemd", "farswapd"])


if __name__ == "__main__":
    Quick.document = bench(os.path.join(os.environ["FARSWAP_BIN_DIR"], "../tests/vm/test_bench_swap"))
    figures.show(table(Quick.document))
    unittest.main()
