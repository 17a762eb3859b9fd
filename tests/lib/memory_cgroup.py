"""A memory cgroup of either version, to make a program short of memory."""
import os

V1 = "/sys/fs/cgroup/memory"
V2 = "/sys/fs/cgroup"


class MemoryCgroup:
    """with MemoryCgroup(name, limit_bytes) as cgroup: subprocess.Popen(..., preexec_fn=cgroup.enter)"""

    def __init__(self, name, limit_bytes):
        self.is_v1 = os.path.exists(V1 + "/memory.limit_in_bytes")
        self.path = os.path.join(V1 if self.is_v1 else V2, name)
        self.limit_bytes = limit_bytes

    def _write(self, file, value):
        with open(os.path.join(self.path, file), "w", encoding="ascii") as stream:
            stream.write(str(value))

    def __enter__(self):
        if not self.is_v1:
            with open(V2 + "/cgroup.subtree_control", "w", encoding="ascii") as stream:
                stream.write("+memory")
        os.makedirs(self.path, exist_ok=True)
        self.set_limit(self.limit_bytes)
        return self

    def __exit__(self, *exception):
        with open(os.path.join(self.path, "cgroup.procs"), encoding="ascii") as stream:
            for pid in stream.read().split():
                os.kill(int(pid), 9)
                while os.path.exists(os.path.join("/proc", pid, "exe")):
                    try:
                        os.waitpid(int(pid), 0)
                    except ChildProcessError:
                        break
        os.rmdir(self.path)

    def set_limit(self, limit_bytes):
        self._write("memory.limit_in_bytes" if self.is_v1 else "memory.max", limit_bytes)

    def disable_oom_killer(self):
        """False when this version cannot."""
        if self.is_v1:
            self._write("memory.oom_control", 1)
        return self.is_v1

    def enter(self):
        """In the child, before the program."""
        self._write("cgroup.procs", os.getpid())
