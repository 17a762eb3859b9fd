#!/usr/bin/python3
"""libfarswap as a program finds it: installed, compiled against by pkg-config, shared and static, over two real servers."""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

from farmemd import Farmemd  # noqa: E402
from program import BUILD_DIR, run  # noqa: E402

SOURCE_DIR = os.environ.get("FARSWAP_SOURCE_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
DEMO = os.path.join(SOURCE_DIR, "tests/integ/library_demo.c")
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
NR_FOLIOS, NR_PAGES = 600, 3720


def run_well(*command, **options):
    """Its output."""
    done = run(*command, **options)
    if done.returncode != 0:
        raise RuntimeError("%s: exit status %d\n%s%s" % (" ".join(command), done.returncode, done.stdout, done.stderr))
    return done.stdout


def public_names():
    with open(os.path.join(SOURCE_DIR, "client/lib/symbols.txt"), encoding="utf-8") as file:
        return sorted(line.strip() for line in file if line.strip() and not line.startswith("#"))


def declared_names(header):
    """The functions that a header declares: they begin in the first column, and types and macros do not look like that."""
    with open(header, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.DOTALL)
    return re.findall(r"^(?!typedef\b|#)\w[\w \t]*[ *](\w+)\(", text, flags=re.MULTILINE)


def names_of(*nm):
    """The symbols that nm lists, without their version."""
    rows = [line.split() for line in run_well("nm", *nm).splitlines()]
    return sorted(row[-1].split("@")[0] for row in rows if len(row) >= 3 and row[-2] != "A")


class Library(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="farswap-test-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.prefix = os.path.join(cls.folder, "prefix")
        run_well("cmake", "--install", BUILD_DIR, "--prefix", cls.prefix, "--component", "libfarswap")
        module, = glob.glob(os.path.join(cls.prefix, "**/libfarswap.pc"), recursive=True)
        cls.environment = {**os.environ, "PKG_CONFIG_PATH": os.path.dirname(module)}
        cls.libdir = os.path.realpath(cls.pkg_config("--variable=libdir")[0])

    @classmethod
    def pkg_config(cls, *arguments):
        return run_well("pkg-config", *arguments, "libfarswap", env=cls.environment).split()

    def compile(self, name, libraries):
        """The demo, linked with these; its path."""
        path = os.path.join(self.folder, name)
        run_well("cc", "-std=c11", *WARNINGS, DEMO, "-o", path, *self.pkg_config("--cflags"), *libraries)
        return path

    def compile_shared(self):
        return self.compile("shared", self.pkg_config("--libs"))

    def run_demo(self, path, *arguments, shared=True):
        environment = {**os.environ, "LD_LIBRARY_PATH": self.libdir} if shared else None
        return run(path, *arguments, env=environment)

    def start_servers(self):
        folder = tempfile.TemporaryDirectory(prefix="farswap-test-")
        self.addCleanup(folder.cleanup)
        servers = []
        for name in ("alpha", "beta"):
            server = Farmemd(folder.name, "--memory", "64M", name=name)
            self.addCleanup(server.kill)
            servers.append(server)
        return servers

    def check_demo(self, path, shared):
        servers = self.start_servers()
        done = self.run_demo(path, *(server.control_address for server in servers), shared=shared)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("library_demo:", done.stderr)
        self.assertIn("stored %d folios, %d pages\n" % (NR_FOLIOS, NR_PAGES), done.stdout)
        held = {name: int(nr) for name, nr in re.findall(r"^(\S+) holds (\d+) pages$", done.stdout, re.MULTILINE)}
        self.assertEqual(set(held), {server.control_address for server in servers})
        self.assertEqual(sum(held.values()), NR_PAGES)
        drained, nr_moved = re.search(r"^drained (\S+): done, (\d+) pages moved, 0 left$", done.stdout, re.MULTILINE).groups()
        self.assertEqual(held[drained], max(held.values()))
        self.assertEqual(int(nr_moved), held[drained])
        self.assertIn("read them back twice: %d pages, 0 read errors, 0 wrong checksums\n" % (2 * NR_PAGES), done.stdout)
        self.assertTrue(done.stdout.endswith("closed: nothing is left\n"), done.stdout)
        for server in servers:
            capacity = server.service().GetCapacity()
            self.assertEqual((capacity.leases, capacity.slabs_leased), (0, 0), server.log())
            self.assertGreater(capacity.data_port.admitted, 0)

    def test_shared(self):
        path = self.compile_shared()
        self.assertIn("libfarswap.so.0", run_well("readelf", "-d", path))
        self.check_demo(path, shared=True)

    def test_static(self):
        # Beside the shared library only its full name says which is meant.
        libraries = ["-l:libfarswap.a" if word == "-lfarswap" else word for word in self.pkg_config("--static", "--libs")]
        path = self.compile("static", libraries)
        self.assertNotIn("libfarswap", run_well("readelf", "-d", path))
        self.check_demo(path, shared=False)

    def test_nothing_else_is_exported(self):
        headers = glob.glob(os.path.join(self.prefix, "include/farswap/*.h"))
        self.assertEqual(len(headers), 2)
        declared = sorted(name for header in headers for name in declared_names(header))
        self.assertEqual(declared, public_names())
        self.assertEqual(names_of("-D", "--defined-only", os.path.join(self.libdir, "libfarswap.so")), public_names())
        self.assertEqual(names_of("-g", "--defined-only", os.path.join(self.libdir, "libfarswap.a")), public_names())

    def test_headers_compile_alone(self):
        compilers = [["cc", "-std=c11", "-x", "c"]]
        if shutil.which("g++"):
            compilers.append(["g++", "-std=c++17", "-x", "c++"])
        for header in ("farswap/swap.h", "farswap/farswap.h"):
            source = '#include <%s>\n#include <%s>\n' % (header, header)
            for compiler in compilers:
                done = subprocess.run([*compiler, *WARNINGS, "-pedantic", "-fsyntax-only", *self.pkg_config("--cflags"), "-"],
                                      input=source, text=True, capture_output=True, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, ""), compiler)

    @unittest.skipUnless(shutil.which("g++"), "no g++")
    def test_a_program_in_cxx(self):
        source = os.path.join(self.folder, "version.cc")
        path = os.path.join(self.folder, "version")
        with open(source, "w", encoding="utf-8") as file:
            file.write('#include <cstdio>\n#include <farswap/farswap.h>\n'
                       'int main() { std::puts(farswap_version()); return swp_entry_t{0}.val; }\n')
        run_well("g++", "-std=c++17", *WARNINGS, source, "-o", path, *self.pkg_config("--cflags", "--libs"))
        version = self.pkg_config("--modversion")[0]
        self.assertEqual(run_well(path, env={**os.environ, "LD_LIBRARY_PATH": self.libdir}), version + "\n")

    def test_mistakes_are_named(self):
        path = self.compile_shared()
        unreachable = "servers: none has given any room within start_timeout (300ms); %s: "
        for arguments, text in (([], "servers: neither a server nor a disk is given"),
                                (["-q", "0", "127.0.0.1:1"], "nr_queues: 0 is not 1 to 32"),
                                (["-t", "300", "nosuch.invalid:7770"], unreachable % "nosuch.invalid:7770"),
                                (["-t", "300", "127.0.0.1:1"], unreachable % "127.0.0.1:1"),
                                (["nosuch"], "servers: 'nosuch' is not host:port")):
            done = self.run_demo(path, *arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertEqual(done.stdout, "")
            last = done.stderr.splitlines()[-1]
            self.assertTrue(last.startswith("library_demo: " + text), done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
