"""Debian's kernels for the machine: fetched by apt from the mirror of this machine's own sources, unpacked, never installed.

They are kept below build/vm-cache, or in the folder that FARSWAP_VM_CACHE names, which checkouts may share.
"""
import fcntl
import glob
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile

SOURCE_DIR = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))
# Series -> the suite that has it. ublk_drv is only in 6.12.
SUITES = {"6.12": "bookworm-backports", "6.1": "bookworm"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
FETCH_S = 400


class Unavailable(Exception):
    """The machine cannot be had here, and why."""


class Kernel:
    """One that is in the cache."""

    def __init__(self, folder):
        self.folder = folder
        self.image = os.path.join(folder, "vmlinux")
        with open(os.path.join(folder, "release"), encoding="utf-8") as file:
            self.release = file.read().strip()
        self.modules = os.path.join(folder, "root/lib/modules", self.release)

    def module_files(self, names):
        """(name of the file, content) of the modules and of what they need, in the order to load them in."""
        done = []
        for name in names:
            output = _run("modprobe", "-d", os.path.join(self.folder, "root"), "-S", self.release, "--show-depends", name,
                          failure=RuntimeError)
            done += [line.split()[1] for line in output.splitlines() if line.startswith("insmod ")]
        for path in dict.fromkeys(done):
            with (lzma.open if path.endswith(".xz") else open)(path, "rb") as file:
                yield os.path.basename(path).removesuffix(".xz"), file.read()


def cache_dir():
    return os.environ.get("FARSWAP_VM_CACHE") or os.path.join(SOURCE_DIR, "build/vm-cache")


def kernel(series):
    """The kernel, fetched if it is not in the cache. Raises Unavailable."""
    folder = os.path.join(cache_dir(), series)
    os.makedirs(cache_dir(), exist_ok=True)
    with open(os.path.join(cache_dir(), "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(folder):
            for remains in glob.glob(os.path.join(cache_dir(), "fetch-*")):
                shutil.rmtree(remains)
            # Complete or not there at all: it gets its name when nothing is missing.
            with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_dir()) as work:
                os.rename(_fetch(series, work), folder)
    return Kernel(folder)


def _run(*command, cwd=None, failure=Unavailable):
    """What it prints. Raises `failure` with the first of its errors when it fails."""
    try:
        done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, errors="replace", timeout=FETCH_S, check=False)
    except FileNotFoundError:
        raise Unavailable("no program %s" % command[0]) from None
    except subprocess.TimeoutExpired:
        raise Unavailable("%s took longer than %d s" % (" ".join(command[:1] + command[-2:]), FETCH_S)) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["exit status %d" % done.returncode]
        # apt has warnings before its errors.
        first = next((line for line in lines if line.startswith("E: ")), lines[-1])
        raise failure("%s: %s" % (" ".join(command[:1] + command[-2:]), first.removeprefix("E: ")))
    return done.stdout


def _mirror():
    """The address from which this machine installs Debian 12."""
    output = _run("apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
    for line in output.splitlines():
        address, _, release = line.rpartition(" ")
        if release == "bookworm":
            return address
    raise Unavailable("the sources of apt name no mirror of Debian 12 (bookworm)")


def _apt_options(series, work):
    """For lists of packages of our own: those of the machine stay as they are."""
    sources = os.path.join(work, "vm.sources")
    with open(sources, "w", encoding="utf-8") as file:
        file.write("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n" % (_mirror(), SUITES[series]))
        if os.path.exists(KEYRING):
            file.write("Signed-By: %s\n" % KEYRING)
    os.makedirs(os.path.join(work, "lists/partial"))
    settings = {"Dir::Etc::sourceparts": "/dev/null", "Dir::Etc::sourcelist": sources,
                "Dir::State::lists": os.path.join(work, "lists"), "Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": "",
                "Dir::Cache::archives": work, "APT::Sandbox::User": "", "Acquire::Languages": "none", "Acquire::Retries": "3"}
    return [word for name, value in settings.items() for word in ("-o", "%s=%s" % (name, value))]


def _fetch(series, work):
    """The folder with all of it, below `work`."""
    folder = os.path.join(work, "kernel")
    root = os.path.join(folder, "root")
    os.mkdir(folder)
    options = _apt_options(series, work)
    # Without this, a suite that the mirror does not have would be no error but a warning.
    _run("apt-get", *options, "-o", "APT::Update::Error-Mode=any", "-q", "update")
    depends = _run("apt-cache", *options, "depends", "linux-image-amd64")
    found = re.search(r"^ *Depends: (linux-image-(%s\S+))$" % re.escape(series + "."), depends, re.MULTILINE)
    found = found or re.search(r"^ *Depends: (linux-image-(%s\S+))$" % re.escape(series), depends, re.MULTILINE)
    if not found:
        raise Unavailable("%s has no linux-image-amd64 of %s" % (SUITES[series], series))
    package = found[1]
    _run("apt-get", *options, "-q", "download", package, cwd=work)
    for path in glob.glob(os.path.join(work, package + "_*.deb")):
        _run("dpkg-deb", "-x", path, root, failure=RuntimeError)
    release = package.removeprefix("linux-image-")
    _run("depmod", "-b", root, release, failure=RuntimeError)
    image = os.path.join(root, "boot", "vmlinuz-" + release)
    _extract(image, os.path.join(folder, "vmlinux"))
    os.remove(image)
    with open(os.path.join(folder, "release"), "w", encoding="utf-8") as file:
        file.write(release + "\n")
    return folder


def _extract(image, target):
    """The bare kernel of a bzImage, which qemu enters by its PVH note: to unpack it emulated would take seconds.
    Documentation/arch/x86/boot.rst has the fields."""
    with open(image, "rb") as file:
        data = file.read()
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (data[0x1f1] + 1) * 512 + offset
    payload = data[start:start + length]
    if payload.startswith(b"\xfd7zXZ"):
        content = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    elif payload.startswith(b"\x28\xb5\x2f\xfd"):
        # The last four bytes are the size.
        done = subprocess.run(["zstd", "-dc"], input=payload[:-4], stdout=subprocess.PIPE, check=True)
        content = done.stdout
    else:
        raise RuntimeError("%s is packed in a way that is not known here" % os.path.basename(image))
    with open(target, "wb") as file:
        file.write(content)
