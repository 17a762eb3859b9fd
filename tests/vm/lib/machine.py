"""A machine that qemu emulates: Debian's kernel, with the host's files below its root and nothing that it writes kept.

What it says comes back line by line, its console is read for what the kernel complains of, and it never outlives its time.
"""
import codecs
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from archive import Archive
from console import complaints, excerpt, taints
from kernel import SOURCE_DIR, Unavailable, kernel

GUEST_DIR = os.path.join(SOURCE_DIR, "tests/vm/guest")
EMULATOR = "qemu-system-x86_64"
BOOT_MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
# Mounted anew inside.
HIDDEN = ("/dev", "/proc", "/run", "/sys")
# One thread for all processors: with one thread per processor a guest panicked at boot once, and it was not faster.
EMULATION = "tcg,thread=single,tb-size=512"
# What qemu itself needs, with its translations.
EMULATOR_MIB = 640
# After the time is over, or the machine has come to its end.
GRACE_S = 10

COMPLAINED, LATE, NO_REPORT, SKIPPED = 123, 124, 125, 77
# No mitigations: they cost time, and guard nothing in an emulator. No watchdog of processors: with a busy host it barks at
# nothing. Messages from warnings upwards go to the console.
KERNEL_ARGUMENTS = ("console=ttyS0 loglevel=%d panic=-1 oops=panic mitigations=off nokaslr nowatchdog random.trust_cpu=on "
                    "audit=0 rcupdate.rcu_cpu_stall_timeout=60 sysctl.kernel.hung_task_timeout_secs=%d "
                    "sysctl.kernel.hung_task_warnings=-1 %s")


class Result:
    """How a run ended: the exit status, the seconds, and in words what was wrong."""

    def __init__(self):
        self.status = None
        self.taint = 0
        self.console = ""
        self.booted_s = None
        self.seconds = 0.0
        self.late = False

    def complaints(self):
        return complaints(self.console) + ["the kernel is marked: " + word for word in taints(self.taint)]


class Machine:
    """options: of options.py."""

    def __init__(self, options):
        self.options = options
        check_host(options.memory)
        for folder in options.share:
            if not os.path.isdir(folder) or is_hidden(folder):
                raise ValueError("%s cannot be shared" % folder)
        self.kernel = kernel(options.kernel)
        self.shares = [os.path.realpath(folder) for folder in options.share]

    def _initial(self, command, interactive, path):
        archive = Archive()
        for folder in ("bin", "dev", "layer", "lower", "modules", "new", "proc", "sys", "vm"):
            archive.folder(folder)
        archive.copy("bin/busybox", shutil.which("busybox"))
        archive.copy("init", os.path.join(GUEST_DIR, "init"))
        archive.copy("vm/main.sh", os.path.join(GUEST_DIR, "main.sh"))
        names = []
        for name, content in self.kernel.module_files(BOOT_MODULES):
            archive.file("modules/" + name, content)
            names.append(name)
        archive.file("vm/modules", lines_of(names))
        archive.file("vm/shares", lines_of(self.shares))
        archive.file("vm/settings", "release=%s\ninteractive=%s\n" % (self.kernel.release, "yes" if interactive else "no"))
        archive.file("vm/command", self._command(command))
        archive.write(path)

    def _command(self, command):
        """A bash script."""
        environment = {"HOME": os.environ.get("HOME", "/root"), "LANG": "C.UTF-8",
                       "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                       "TERM": os.environ.get("TERM", "dumb"), "FARSWAP_SOURCE_DIR": SOURCE_DIR,
                       "FARSWAP_BIN_DIR": os.path.join(SOURCE_DIR, "build/release/bin"),
                       **{name: value for name, value in os.environ.items()
                          if name.startswith("FARSWAP_") and not name.startswith("FARSWAP_VM")},
                       **dict(setting.split("=", 1) for setting in self.options.env)}
        if self.options.results:
            environment["FARSWAP_VM_RESULTS"] = os.path.realpath(self.options.results)
        lines = ["export %s=%s" % (name, shlex.quote(value)) for name, value in environment.items()]
        modules = [name for names in self.options.modules for name in names.split(",") if name]
        if modules:
            lines.append("modprobe -a %s || exit %d" % (shlex.join(modules), NO_REPORT))
        lines.append("cd %s 2>/dev/null || cd /" % shlex.quote(os.getcwd()))
        return lines_of([*lines, command])

    def _emulator(self, initial, output, status, console):
        options = self.options
        level = 7 if options.verbose else 5
        # It does not outlive this process either, however that ends.
        words = ["setpriv", "--pdeathsig", "KILL", EMULATOR, "-accel",
                 EMULATION if options.instructions else os.environ.get("FARSWAP_VM_ACCEL", EMULATION),
                 "-cpu", "max,la57=off", "-m", str(options.memory), "-smp", str(options.cpus), "-nodefaults", "-display", "none",
                 "-no-reboot", "-kernel", self.kernel.image, "-initrd", initial,
                 "-append", KERNEL_ARGUMENTS % (level, options.hung_task, options.append),
                 "-chardev", "file,id=console,path=/dev/fd/%d" % console, "-serial", "chardev:console",
                 "-device", "virtio-serial-pci,max_ports=4",
                 "-chardev", "file,id=status,path=/dev/fd/%d" % status, "-device", "virtserialport,chardev=status,name=status"]
        if options.instructions:
            words += ["-icount", "shift=0,align=off,sleep=on"]
        if output is None:
            words += ["-chardev", "stdio,id=terminal,signal=off,mux=on", "-device", "virtconsole,chardev=terminal",
                      "-mon", "chardev=terminal"]
        else:
            words += ["-chardev", "file,id=output,path=/dev/fd/%d" % output,
                      "-device", "virtserialport,chardev=output,name=output"]
        exports = [("host", "/", ",readonly=on"), ("modules", self.kernel.modules, ",readonly=on")]
        exports += [("share%d" % i, folder, "") for i, folder in enumerate(self.shares)]
        for tag, folder, more in exports:
            words += ["-virtfs", "local,path=%s,mount_tag=%s,security_model=none,multidevs=remap%s" %
                      (folder.replace(",", ",,"), tag, more)]
        return words

    def run(self, command, say=None, interactive=False):
        """Runs a command of bash. `say` gets its output as it comes. A Result."""
        with tempfile.TemporaryDirectory(prefix="farswap-vm-") as work:
            initial = os.path.join(work, "initial")
            self._initial(command, interactive, initial)
            channels = {"status": os.pipe(), "console": os.pipe()}
            if not interactive:
                channels["output"] = os.pipe()
            ends = {name: pair[1] for name, pair in channels.items()}
            words = self._emulator(initial, ends.get("output"), ends["status"], ends["console"])
            start = time.monotonic()
            try:
                process = subprocess.Popen(words, stdin=None if interactive else subprocess.DEVNULL, stdout=None,
                                           pass_fds=list(ends.values()))
            finally:
                for end in ends.values():
                    os.close(end)
            try:
                result = self._watch(process, {name: pair[0] for name, pair in channels.items()}, say, start)
            finally:
                process.kill()
                process.wait()
                for pair in channels.values():
                    os.close(pair[0])
            result.seconds = time.monotonic() - start
        return result

    def _watch(self, process, sources, say, start):
        """Until all that the emulator writes to is closed, which it is when it ends."""
        result = Result()
        received = {name: b"" for name in sources}
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        deadline = start + self.options.limit if self.options.limit else None
        with selectors.DefaultSelector() as selector:
            for name, source in sources.items():
                selector.register(source, selectors.EVENT_READ, name)
            while selector.get_map():
                patience = None if deadline is None else deadline - time.monotonic()
                if patience is not None and patience <= 0:
                    if result.late or process.poll() is not None:
                        break
                    # Once more, for what it has said up to now.
                    result.late = True
                    process.send_signal(signal.SIGKILL)
                    deadline = time.monotonic() + GRACE_S
                    continue
                for key, _ in selector.select(patience):
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fd)
                    elif key.data == "output":
                        say(decoder.decode(data))
                    else:
                        received[key.data] += data
                        if key.data == "console" and self.options.verbose:
                            sys.stderr.write(data.decode(errors="replace"))
                    if key.data == "status" and result.booted_s is None and received["status"].startswith(b"up\n"):
                        result.booted_s = time.monotonic() - start
        result.console = received["console"].decode(errors="replace").replace("\r", "")
        for line in received["status"].decode(errors="replace").splitlines():
            if line.startswith("ended "):
                result.status, result.taint = (int(word) for word in line.split()[1:])
        return result


def lines_of(words):
    return "".join(word + "\n" for word in words)


def is_hidden(path):
    path = os.path.realpath(path)
    return any(path == folder or path.startswith(folder + "/") for folder in HIDDEN)


def check_host(memory_mib):
    """Raises Unavailable when the machine cannot be had here."""
    if os.uname().machine != "x86_64":
        raise Unavailable("the machine is an x86_64, and this is none")
    for program, package in ((EMULATOR, "qemu-system-x86"), ("busybox", "busybox-static"), ("modprobe", "kmod"),
                             ("depmod", "kmod"), ("zstd", "zstd"), ("apt-get", "apt"), ("setpriv", "util-linux")):
        if not shutil.which(program):
            raise Unavailable("no program %s (package %s)" % (program, package))
    with open(shutil.which("busybox"), "rb") as file:
        if b"/ld-linux" in file.read(4096):
            raise Unavailable("busybox is not a static one (package busybox-static)")
    with open("/proc/meminfo", encoding="utf-8") as file:
        available_mib = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:")) >> 10
    if available_mib < memory_mib + EMULATOR_MIB:
        raise Unavailable("%d MiB of memory are available, and the machine needs %d" %
                          (available_mib, memory_mib + EMULATOR_MIB))


def verdict(result, limit_s):
    """(exit status, lines that say what was wrong)"""
    wrong = []
    status = result.status
    found = result.complaints()
    if found:
        wrong += ["the kernel complained:", *("  " + line for line in found)]
        status = status if status not in (0, SKIPPED) else COMPLAINED
    if result.late:
        wrong.append("the time limit of %d s passed%s" % (limit_s, "" if result.booted_s else " before the machine was up"))
        status = LATE
    elif result.status is None:
        wrong.append("the machine ended without a report")
        status = NO_REPORT
    if wrong and result.console:
        wrong += ["of its console:", *("  " + line for line in excerpt(result.console))]
    return status, wrong
