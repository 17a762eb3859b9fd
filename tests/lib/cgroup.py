"""A memory cgroup, of version 1 or 2, to make programs short of memory."""
import os
import signal
import subprocess
import time

REMOVE_S = 60

def _hierarchy():
    """(version, folder) of the hierarchy that has the memory controller; None when there is none."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    for _, folder, kind, *_ in mounts:
        controllers = os.path.join(folder, "cgroup.controllers")
        if kind == "cgroup2" and os.path.exists(controllers):
            with open(controllers, encoding="utf-8") as file:
                if "memory" in file.read().split():
                    return 2, folder
    for _, folder, kind, *_ in mounts:
        if kind == "cgroup" and os.path.exists(os.path.join(folder, "memory.limit_in_bytes")):
            return 1, folder
    return None


class MemoryCgroup:
    """What runs in it gets `limit_bytes` of memory and as much swap as there is. Popen(..., preexec_fn=cgroup.enter)"""

    def __init__(self, name, limit_bytes):
        self.version, root = _hierarchy()
        self.folder = os.path.join(root, name)
        if self.version == 2:
            self._write(os.path.join(root, "cgroup.subtree_control"), "+memory")
        os.mkdir(self.folder)
        self.set_limit(limit_bytes)
        if self.version == 1:
            self._write(os.path.join(self.folder, "memory.swappiness"), 60)
        # Reclaim decides by counts that the kernel brings up to date every two seconds, or when they are read. Too seldom for
        # a program that swaps fast: it is killed for want of memory although most of it could be swapped out.
        command = 'while cat "$0/memory.stat"; do sleep 0.1; done'
        self.tender = subprocess.Popen(["sh", "-c", command, self.folder], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @staticmethod
    def available():
        return _hierarchy() is not None

    @staticmethod
    def _write(path, value):
        with open(path, "w", encoding="utf-8") as file:
            file.write(str(value))

    def set_limit(self, limit_bytes):
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        self._write(os.path.join(self.folder, name), limit_bytes)

    def disable_oom_killer(self):
        """False when this version cannot."""
        if self.version == 1:
            self._write(os.path.join(self.folder, "memory.oom_control"), 1)
        return self.version == 1

    def enter(self):
        """The calling process; for Popen's preexec_fn."""
        self._write(os.path.join(self.folder, "cgroup.procs"), os.getpid())

    def remove(self):
        """With what is in it."""
        self.tender.kill()
        self.tender.wait()
        until = time.monotonic() + REMOVE_S
        while True:
            try:
                os.rmdir(self.folder)
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                with open(os.path.join(self.folder, "cgroup.procs"), encoding="utf-8") as file:
                    for pid in file.read().split():
                        os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.05)
