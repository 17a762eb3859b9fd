"""What tests/vm/bench_verbs has measured: medians and ratios, as a table for people and as a document for programs."""
import json
import os
import statistics

# Name, what is compared, its unit, and the ratio that is aimed at: at most that of a latency, at least that of a rate.
CASES = {
    "read-4k": ("READ 4 KiB, polling", "us", 1.15),
    "read-4k-events": ("READ 4 KiB, events", "us", None),
    "write-64k": ("WRITE 64 KiB, 32 on their way", "MiB/s", 0.9),
    "write-1m": ("WRITE 1 MiB, 8 on their way", "MiB/s", 0.9),
}
WHO = ("farswap", "perftest")
# perftest's columns: of latencies bytes, iterations, min, max, typical (the median), average, ...; of rates bytes, iterations,
# peak, average, messages.
TYPICAL, AVERAGE_LATENCY, AVERAGE_RATE = 4, 5, 3


class Wrong(Exception):
    """The figures are not what they are taken for."""


def figure(who, unit, text):
    """(the figure that is compared, the mean latency or None) of one pass."""
    if who == "farswap":
        document = json.loads(text)
        if document["wrong_bytes"]:
            raise Wrong("%d wrong bytes" % document["wrong_bytes"])
        return (document["median_us"], document["mean_us"]) if unit == "us" else (document["mib_per_s"], None)
    columns = text.split()
    if unit == "us":
        return float(columns[TYPICAL]), float(columns[AVERAGE_LATENCY])
    return float(columns[AVERAGE_RATE]), None


def evaluate(folder, rounds):
    """The document. Raises Wrong, which names the case."""
    passes = {}
    with open(os.path.join(folder, "passes.tsv"), encoding="utf-8") as file:
        for line in file:
            case, _, who, text = line.rstrip("\n").split("\t", 3)
            try:
                passes.setdefault((case, who), []).append(figure(who, CASES[case][1], text))
            except (Wrong, ValueError, IndexError, KeyError) as error:
                raise Wrong("%s: %s: %s" % (case, who, error)) from None
    with open(os.path.join(folder, "release"), encoding="utf-8") as file:
        document = {"kernel": file.read().strip(), "rounds": rounds, "cases": []}
    for name, (title, unit, aim) in CASES.items():
        case = {"name": name, "title": title, "unit": unit, "aim": aim}
        for who in WHO:
            mine = passes.get((name, who), [])
            if len(mine) != rounds or any(value <= 0 for value, _ in mine):
                raise Wrong("%s: %s: %d of %d rounds" % (name, who, len(mine), rounds))
            case[who] = statistics.median(value for value, _ in mine)
            case[who + "_values"] = [value for value, _ in mine]
            if unit == "us":
                case[who + "_mean"] = statistics.median(mean for _, mean in mine)
        case["ratios"] = [ours / theirs for ours, theirs in zip(case["farswap_values"], case["perftest_values"])]
        case["ratio"] = statistics.median(case["ratios"])
        document["cases"].append(case)
    return document


def table(document):
    """As text."""
    rows = [["", "unit", *WHO, "ratio", "of rounds", "aim", "means"]]
    for case in document["cases"]:
        latency = case["unit"] == "us"
        rows.append([
            case["title"], case["unit"], *("%.1f" % case[who] for who in WHO), "%.3f" % case["ratio"],
            "%.2f to %.2f" % (min(case["ratios"]), max(case["ratios"])),
            "-" if case["aim"] is None else "%s %.2f" % ("<=" if latency else ">=", case["aim"]),
            " / ".join("%.1f" % case[who + "_mean"] for who in WHO) if latency else "-"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths)))
             for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines) + "\n"
