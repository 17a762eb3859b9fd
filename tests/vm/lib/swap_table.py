"""What tests/vm/bench_swap has measured: medians and ratios, as a table for people and as a document for programs."""
import json
import os
import statistics

PAGE_MIB = 4096 / (1 << 20)
# A pass, and what its time is divided by: the pages that went the way that it is about.
DIVISORS = {"out": "pswpout", "in": "pswpin", "both": "pages"}
# The program itself, without swap.
BARE = {"out": ("out", "pages"), "in": ("in", "pages")}
# Of one page, a request and an answer at least; two, unless TCP puts both of two pages into one.
LINK_PACKETS = 1.5
STRAY_PACKETS = 0.2


class Wrong(Exception):
    """The figures are not what they are taken for."""


def read(folder):
    """(the rows as they were set up, the passes, the kernel's release)"""
    rows = []
    with open(os.path.join(folder, "rows.tsv"), encoding="utf-8") as file:
        for line in file:
            name, path, way, reason = line.rstrip("\n").split("\t")
            rows.append({"name": name, "path": path, "link": way == "link", "skipped": reason or None})
    with open(os.path.join(folder, "passes.jsonl"), encoding="utf-8") as file:
        passes = [json.loads(line) for line in file]
    with open(os.path.join(folder, "release"), encoding="utf-8") as file:
        return rows, passes, file.read().strip()


def _figure(passes, name, divisor, rounds):
    """Of one pass of one row: per page, the medians over all rounds."""
    mine = [p for p in passes if p["pass"] == name]
    if len(mine) != rounds or any(p[divisor] == 0 for p in mine):
        raise Wrong("%s: %d of %d rounds, or no page went that way" % (name, len(mine), rounds))
    values = [(p["ns"] - p["idle_ns"]) / 1000 / p[divisor] for p in mine]
    us = statistics.median(values)
    return {
        "us_per_page": us, "mib_per_s": PAGE_MIB / us * 1e6, "values_us": values,
        "waited_us": statistics.median(p["idle_ns"] / 1000 / p[divisor] for p in mine),
        "daemons_us": {daemon: statistics.median(p["cpu_ns"][daemon] / 1000 / p[divisor] for p in mine)
                       for daemon in mine[0]["cpu_ns"]},
        "packets_per_page": statistics.median(sum(p["counts"].values()) / p[divisor] for p in mine),
    }


def _check_way(row):
    packets = row["in"]["packets_per_page"]
    if row["link"] and packets < LINK_PACKETS:
        raise Wrong("only %.2f packets per page have gone over the link" % packets)
    if not row["link"] and packets > STRAY_PACKETS:
        raise Wrong("%.2f packets per page have gone over the link, for a device that is none's but its own" % packets)


def evaluate(folder, rounds, reference):
    """The document. Raises Wrong, which names the row."""
    rows, passes, release = read(folder)
    for row in rows:
        if row["skipped"]:
            continue
        mine = [p for p in passes if p["row"] == row["name"]]
        wanted = BARE if row["name"] == "none" else {name: (name, divisor) for name, divisor in DIVISORS.items()}
        try:
            for name, (source, divisor) in wanted.items():
                row[name] = _figure(mine, source, divisor, rounds)
            _check_way(row)
        except Wrong as error:
            raise Wrong("%s: %s" % (row["name"], error)) from None
        row["wrong_words"] = sum(p["wrong_words"] for p in mine)
    base = next((row for row in rows if row["name"] == reference and not row["skipped"]), None)
    for row in rows:
        for name in DIVISORS:
            if name in row and row["name"] != "none":
                row[name]["ratio"] = row[name]["us_per_page"] / base[name]["us_per_page"] if base else None
    return {"kernel": release, "reference": reference if base else None, "rows": rows}


def wrong_rows(document):
    """Those in which a word was not what had been written: what their figures are of is not swap."""
    return [row for row in document["rows"] if row.get("wrong_words")]


def _cells(row):
    cells = [row["name"]]
    for name in DIVISORS:
        figure = row.get(name)
        ratio = figure and figure.get("ratio")
        cells.append("%.1f" % figure["us_per_page"] if figure else "-")
        cells.append("%.2f" % ratio if ratio else "-")
        if name != "both":
            cells.append("%.1f" % figure["mib_per_s"] if figure and row["name"] != "none" else "-")
    cells.append("%.1f" % row["in"]["waited_us"])
    cells.append("%.1f" % row["in"]["packets_per_page"] if row["link"] else "-")
    cells.append("%d" % row["wrong_words"])
    cells.append(", ".join("%s %.1f / %.1f" % (daemon, row["out"]["daemons_us"][daemon], us)
                           for daemon, us in row["in"]["daemons_us"].items()) or "-")
    return cells


def table(document):
    """As text."""
    head = [["", "swap-out", "", "", "swap-in", "", "", "both", "", "waits", "packets", "wrong", "daemons' processor time,"],
            ["row", "us", "ratio", "MiB/s", "us", "ratio", "MiB/s", "us", "ratio", "us", "per page", "words",
             "us per page out / in"]]
    body = [_cells(row) for row in document["rows"] if not row["skipped"]]
    widths = [max(len(line[i]) for line in head + body) for i in range(len(head[0]))]
    lines = ["  ".join(cell.ljust(width) if i in (0, len(widths) - 1) else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in head + body]
    lines.insert(len(head), "-" * max(len(line) for line in lines))
    lines += ["", "The way of a page:"]
    width = max(len(row["name"]) for row in document["rows"])
    lines += ["  %s  %s" % (row["name"].ljust(width), row["path"]) for row in document["rows"] if not row["skipped"]]
    skipped = [row for row in document["rows"] if row["skipped"]]
    if skipped:
        lines += ["", "Skipped:"]
        lines += ["  %s  %s" % (row["name"].ljust(width), row["skipped"]) for row in skipped]
    return "\n".join(lines) + "\n"
