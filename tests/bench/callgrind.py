"""What callgrind has written: the instructions of each function, told apart by the room that they are of."""
import glob
import os
import re

CALL = re.compile(r"calls=\d+")
# What a shared library is to us.
LIBRARIES = {"libisal": "checksum: ISA-L", "ld-linux-x86-64": "libc"}


class Profile:
    def __init__(self):
        self.costs = {}  # of (object, file of the function, function, file of the line)
        self.calls = {}  # costs of all within, of (file of the caller, object of the callee, its file)


def read(path):
    """One file of callgrind's, which was written without compression."""
    profile = Profile()
    ob = home = fn = file = None
    callee = {}
    called = False
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            line = line.rstrip("\n")
            name, found, value = line.partition("=")
            if found and name == "ob":
                ob = value
            elif found and name == "fl":
                home = file = value
            elif found and name in ("fi", "fe"):
                file = value
            elif found and name == "fn":
                # A function without a line of fl is of the file that was named last.
                fn, home = value, file
                callee = {}
            elif found and name in ("cob", "cfi", "cfl", "cfn"):
                callee[name[:3].replace("cfl", "cfi")] = value
            elif CALL.match(line):
                called = True
            elif line[:1].isdigit():
                cost = int((line.split() + ["0"])[1])
                if called:
                    key = (home, callee.get("cob", ob), callee.get("cfi", file))
                    profile.calls[key] = profile.calls.get(key, 0) + cost
                    callee = {}
                    called = False
                elif fn is not None:
                    key = (ob, home, fn, file)
                    profile.costs[key] = profile.costs.get(key, 0) + cost
    return profile


def profiles(folder, marker):
    """Those of the thread that has called `marker`, in the order in which they were written."""
    found = []
    for path in glob.glob(os.path.join(folder, "out.*")):
        part = re.search(r"out\.(\d+)-\d+$", path)
        if not part:
            continue
        profile = read(path)
        if any(fn.split("'")[0] == marker for _, _, fn, _ in profile.costs):
            found.append((int(part[1]), profile))
    return [profile for _, profile in sorted(found, key=lambda item: item[0])]


def room_of(source_dir, ob, *files):
    """The folder of the first file that is in the tree, such as client/vswap; else the library, which has no slash."""
    for file in files:
        if file.startswith(source_dir + "/"):
            return os.path.dirname(os.path.relpath(file, source_dir))
    library = os.path.basename(ob).split(".")[0]
    return LIBRARIES.get(library, library)


def rooms(profile, source_dir):
    """
    ({room: cost}, cost of the fakes and of what they called).

    An inline function is of the room whose header it is in; one of a library's header, of the room that it was compiled into.
    """
    counted, fakes = {}, 0
    for (ob, home, _, file), cost in profile.costs.items():
        room = room_of(source_dir, ob, home)
        if room.startswith("tests/"):
            fakes += cost
            continue
        room = room_of(source_dir, ob, file, home)
        counted[room] = counted.get(room, 0) + cost
    for (caller, ob, file), cost in profile.calls.items():
        room = room_of(source_dir, ob, file)
        if room_of(source_dir, "", caller).startswith("tests/") and not room.startswith("tests/"):
            # The fakes call libc alone, which calls nobody back.
            counted[room] -= cost
            fakes += cost
    return counted, fakes
