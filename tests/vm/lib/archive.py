"""The archive of an initial root file system: cpio in the format that Linux reads (newc)."""
import os
import stat


class Archive:
    def __init__(self):
        self.parts = []
        self.nr = 0

    def _entry(self, name, mode, content=b""):
        self.nr += 1
        encoded = name.encode() + b"\0"
        fields = (self.nr, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        self._padded(b"070701" + b"".join(b"%08x" % field for field in fields) + encoded)
        self._padded(content)

    def _padded(self, data):
        self.parts.append(data + bytes(-len(data) % 4))

    def folder(self, name):
        self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name, content, mode=0o644):
        self._entry(name, stat.S_IFREG | mode, content.encode() if isinstance(content, str) else content)

    def copy(self, name, path):
        with open(path, "rb") as file:
            self.file(name, file.read(), 0o755 if os.access(path, os.X_OK) else 0o644)

    def write(self, path):
        self._entry("TRAILER!!!", 0)
        with open(path, "wb") as file:
            file.write(b"".join(self.parts))
