"""Figures that a test has measured, and that tests/run shows although the test has passed."""

BEGIN = "--- figures"
END = "--- end of figures"


def show(text):
    """By the test, as often as it likes."""
    print("\n".join((BEGIN, text.strip("\n"), END)), flush=True)


def shown(lines):
    """What tests/run shows of a test's output."""
    result = []
    inside = False
    for line in lines:
        if line in (BEGIN, END):
            inside = line == BEGIN
        elif inside:
            result.append(line)
    return result
