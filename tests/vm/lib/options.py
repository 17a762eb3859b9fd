"""The command lines of tests/vm/run and tests/vm/shell."""
import argparse
import re
import shlex

from kernel import SUITES

HEADER = re.compile(r"^# vm:(.*)$")
HEADER_LINES = 5


def size_mib(text):
    """512M, 2G, or a number of MiB."""
    match = re.fullmatch(r"([0-9]+)([MG]?)", text)
    if not match:
        raise argparse.ArgumentTypeError("%s: not a size such as 512M or 2G" % text)
    return int(match[1]) << (10 if match[2] == "G" else 0)


def setting(text):
    if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", text):
        raise argparse.ArgumentTypeError("%s: not VAR=VALUE" % text)
    return text


def machine_options(parser):
    """Those of any machine."""
    parser.add_argument("--kernel", choices=sorted(SUITES), default="6.12", help="its series [6.12]; 6.1 has no ublk")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="processors [1]; more only where they matter")
    parser.add_argument("--memory", type=size_mib, default=1024, metavar="SIZE", help="[1G]")
    parser.add_argument("--modules", action="append", default=[], metavar="LIST", help="to be loaded first, with commas between")
    parser.add_argument("--share", action="append", default=[], metavar="DIR", help="a folder that is the host's, at the same path")
    parser.add_argument("--env", action="append", default=[], type=setting, metavar="VAR=VALUE",
                        help="in its environment, beside FARSWAP_*")
    parser.add_argument("--instructions", action="store_true",
                        help="its clock counts them, one per nanosecond, and so does not depend on the host's load; it is slower")
    parser.add_argument("--append", default="", metavar="ARGS", help="more of the kernel's command line")
    parser.add_argument("--hung-task", type=int, default=30, metavar="SECONDS",
                        help="a task that waits uninterruptibly for so long is a complaint of the kernel's [30]")
    parser.add_argument("--verbose", action="store_true", help="the console to stderr as well, with all that the kernel says")
    parser.set_defaults(results=None, limit=None)


def of_script(path):
    """The options that a script has in a line '# vm: ...' near its begin."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for _, line in zip(range(HEADER_LINES), file):
            match = HEADER.match(line.rstrip("\n"))
            if match:
                return shlex.split(match[1])
    return []
