"""What a kernel's console says: is anything of it a complaint?"""
import re

# Also what the kernel calls information, when it is that something has come to a stop.
COMPLAINT = re.compile(r"\bBUG: |\bWARNING: |\bOops: |\bKernel panic - |general protection fault|\bUBSAN: |"
                       r"INFO: task .* blocked for more than|\bstall(s|ed)? (detected )?on CPU|detected (expedited )?stalls ")
# The bits of /proc/sys/kernel/tainted that say the same: machine check, bad page, died, warned, soft lockup. Modules that are
# not Debian's are no complaint. Documentation/admin-guide/tainted-kernels.rst
TAINTS = {4: "machine check", 5: "bad page", 7: "oops", 9: "warning", 14: "soft lockup"}
EXCERPT_LINES = 80


def complaints(text):
    """The lines that are complaints."""
    return [line for line in text.splitlines() if COMPLAINT.search(line)]


def excerpt(text):
    """What there is to read: from shortly before the first complaint; the end, when there is none."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if COMPLAINT.search(line)), None)
    if first is None:
        return lines[-EXCERPT_LINES:]
    first = max(first - 3, 0)
    chosen = lines[first:first + EXCERPT_LINES]
    if len(lines) > first + EXCERPT_LINES:
        chosen.append("(%d more lines)" % (len(lines) - first - EXCERPT_LINES))
    return chosen


def taints(mask):
    """Those of the kernel's marks that are complaints, in words."""
    return [word for bit, word in TAINTS.items() if mask >> bit & 1]
