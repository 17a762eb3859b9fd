#!/usr/bin/python3
# vm: --modules sch_netem --limit 800 --instructions
"""farswapd over RDMA, on a link that loses packets, and one that goes down and comes back: no wrong data, and no error that a
front end could see. The machine's clock counts instructions, so that a second is one on a busy host, too."""
import json
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.environ["FARSWAP_SOURCE_DIR"], "tests/lib"))

from program import ready_lines  # noqa: E402
from verifier import Verifier  # noqa: E402

BIN_DIR = os.environ["FARSWAP_BIN_DIR"]
RXE = os.path.join(os.environ["FARSWAP_SOURCE_DIR"], "tests/vm/lib/rxe.sh")
LENDER = "10.9.0.1"
NR_PAGES = 1024


def rxe(command):
    subprocess.run(["bash", "-c", '. "$0"; ' + command, RXE], check=True)


def start(name, *args):
    """A daemon, once it is ready: what is in its ready file. The machine ends it."""
    ready, log = "/tmp/%s.ready" % name, "/tmp/%s.log" % name
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen([os.path.join(BIN_DIR, name), *args, "--ready-file", ready], stdin=subprocess.DEVNULL,
                                   stdout=file, stderr=file)
    return ready_lines(process, ready, log)


def show_logs():
    for name in ("farmemd", "farswapd"):
        with open("/tmp/%s.log" % name, encoding="utf-8") as file:
            print("--- %s\n%s" % (name, file.read()))


def server():
    text = subprocess.run([os.path.join(BIN_DIR, "farswapctl"), "--socket", "/tmp/admin.sock", "servers", "-o", "json"],
                          check=True, capture_output=True, text=True).stdout
    return json.loads(text)["servers"][0]


def check(condition, text, *args):
    if not condition:
        show_logs()
        sys.exit("FAIL: " + text % args)


def check_page(verifier, page):
    """What it holds is right; it cannot be read only if its last write has failed, which a kernel would not try."""
    if not verifier.check(page):
        check(verifier.expected.get(page, 0) is None, "page %d cannot be read", page)


def work(verifier, until):
    """Reads and writes at random until then, none of which fails. How many, and how long the longest took."""
    nr, longest = 0, 0.0
    while time.monotonic() < until:
        page = verifier.random.randrange(NR_PAGES)
        begin = time.monotonic()
        if verifier.random.random() < 0.5:
            check_page(verifier, page)
        else:
            verifier.write(page)
        nr += 1
        longest = max(longest, time.monotonic() - begin)
    return nr, longest


def check_all(verifier):
    for page in range(NR_PAGES):
        check_page(verifier, page)


def cut(verifier):
    """Takes the link away for three seconds, with traffic on it: it waits. How long after its return a read was answered."""
    back = []

    def pull():
        rxe("rxe_link_down 0")
        time.sleep(3)
        rxe("ip link set \"${rxe_links[0]}\" up && ip route replace \"${rxe_addresses[1]}\" dev \"${rxe_links[0]}\" "
            "src \"${rxe_addresses[0]}\" table 21")
        back.append(time.monotonic())

    thread = threading.Thread(target=pull)
    thread.start()
    while thread.is_alive():
        work(verifier, time.monotonic() + 0.2)
    thread.join()
    check_page(verifier, 0)
    return max(time.monotonic() - back[0], 0)


def main():
    rxe("rxe_up")
    lender = start("farmemd", "--memory", "32M", "--slab-size", "8M", "--listen", LENDER + ":0", "--data-listen",
                      LENDER + ":0", "--lease-term", "60s")
    check("rdma" in lender, "farmemd does not listen for RDMA: %s", lender)
    start("farswapd", "--size", "8M", "--frontend", "nbd", "--nbd-listen", "unix:/tmp/nbd.sock", "--servers",
          lender["control"], "--admin-socket", "/tmp/admin.sock", "--rdma-device", "rxe1", "--queues", "1",
          "--dead-after", "1500ms", "--patience", "60s", "--lost-after", "60s", "--connect-timeout", "5s")
    check(server()["transport"] == "verbs", "transport: %s", server())
    verifier = Verifier("nbd+unix:///?socket=/tmp/nbd.sock", NR_PAGES)
    begin = time.monotonic()
    verifier.fill(NR_PAGES)
    check_all(verifier)
    print("ok: %d pages written and read over RDMA, %.1f s" % (NR_PAGES, time.monotonic() - begin))
    row = server()
    print("one page: %.0f us, a heartbeat: %.0f us" % (row["latency_ns"] / 1000, row["heartbeat_rtt_ns"] / 1000))
    rxe("rxe_loss 2")
    nr, longest = work(verifier, time.monotonic() + 15)
    rxe("rxe_loss 0")
    print("ok: with 2%% of the packets lost %d operations in 15 s, the longest took %.2f s" % (nr, longest))
    check_all(verifier)
    for _ in range(2):
        before = server()["reconnects"]
        took = cut(verifier)
        row = server()
        print("ok: the first read %.2f s after the link's return, %d connections made again" %
              (took, row["reconnects"] - before))
        check(took < 1, "it took %.2f s to be connected again", took)
        check(row["transport"] == "verbs" and row["state"] == "up", "%s", row)
        check(row["reconnects"] > before, "nothing was connected again: %s", row)
        check_all(verifier)
    verifier.fill(NR_PAGES)
    check(verifier.check_all() == [], "a page cannot be read")
    print("ok: every page holds what was written last")
    show_logs()


main()
