"""A client of an NBD export that knows what every page must hold."""
import errno
import random
import struct

import nbd

PAGE = 4096


class Verifier:
    """Writes pages that are all different, and checks what it reads. One thread."""

    def __init__(self, uri, nr_pages, seed=1):
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)
        self.nr_pages = nr_pages
        self.random = random.Random(seed)
        self.sequence = 0
        # Page -> the sequence number of its last acknowledged write, 0 for zeroes; or None after one that failed.
        self.expected = {}

    @staticmethod
    def content(page, sequence):
        return struct.pack("<QQ", page, sequence) * (PAGE // 16) if sequence else bytes(PAGE)

    def write(self, page):
        self.sequence += 1
        try:
            self.handle.pwrite(self.content(page, self.sequence), page * PAGE)
        except nbd.Error:
            self.expected[page] = None
            raise
        self.expected[page] = self.sequence

    def trim(self, page, nr=1):
        self.handle.trim(nr * PAGE, page * PAGE)
        for i in range(page, page + nr):
            self.expected[i] = 0

    def fill(self, nr_pages):
        """The first pages, in order."""
        for page in range(nr_pages):
            self.write(page)

    def check(self, page):
        """True: it holds what it must. False: it cannot be read. Else an AssertionError."""
        try:
            got = bytes(self.handle.pread(PAGE, page * PAGE))
        except nbd.Error as error:
            if error.errnum != errno.EIO:
                raise
            return False
        sequence = self.expected.get(page, 0)
        if sequence is None:
            # Its last write failed, and left the page before it or the page after it; but a page of ours.
            sequence = struct.unpack_from("<QQ", got)[1]
        if got != self.content(page, sequence):
            raise AssertionError("page %d: expected write %d, got page %d of write %d" %
                                 (page, sequence, *struct.unpack_from("<QQ", got)))
        return True

    def check_all(self):
        """Pages that cannot be read."""
        return [page for page in sorted(self.expected) if not self.check(page)]

    def some_page(self):
        return self.random.randrange(self.nr_pages)

    def work(self, nr):
        """Random reads, writes and trims. How many reads failed."""
        failed = 0
        for _ in range(nr):
            what, page = self.random.random(), self.some_page()
            if what < 0.5:
                failed += not self.check(page)
            elif what < 0.95:
                self.write(page)
            else:
                self.trim(page)
        return failed

    def work_until_it_fails(self):
        """Reads and writes until the server dies; only the last write may not have been acknowledged."""
        while True:
            page = self.some_page()
            try:
                if self.random.random() < 0.5:
                    if not self.check(page):
                        raise AssertionError("page %d cannot be read" % page)
                else:
                    self.write(page)
            except nbd.Error:
                return

    def write_doubtful(self):
        """Pages whose last write was not acknowledged are written again, as a kernel would."""
        for page in [page for page, sequence in self.expected.items() if sequence is None]:
            self.write(page)

    def reconnect(self, uri):
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)

    def close(self):
        """Any number of times."""
        if self.handle:
            self.handle.shutdown()
        self.handle = None
