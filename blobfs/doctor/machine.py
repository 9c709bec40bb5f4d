"""What a mount needs of this machine. Asks nobody outside it."""

import os
import platform
import re
import resource
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blobfs.address_space import RESERVED_BYTES
from blobfs.blocks import MiB
from blobfs.control_groups import memory_limits_bytes
from blobfs.doctor.findings import Finding, note, ok, problem
from blobfs.kernel.read_ahead import READ_AHEAD_KIB
from blobfs.open_files import LEAST_FILES, USUAL_FILES

OLDEST_KERNEL = (5, 3)  # pidfd_open(2), by which `blobfs umount` waits
LIBRARIES_BYTES = 64 * MiB  # Python's and the libraries' own memory

# The kernel takes a smaller number from libfuse while it mounts, so the rule comes a moment later.
UDEV_RULE = (
    'ACTION=="add", SUBSYSTEM=="bdi", KERNEL=="0:*", '
    f"RUN+=\"/bin/sh -c 'sleep 1; echo {READ_AHEAD_KIB} > /sys$devpath/read_ahead_kb'\""
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine, below `root`, for the user of this process."""

    libfuse: Mapping[str, str]  # versions, by binding
    memory_bytes: int  # that the mount may take
    root: Path = Path("/")
    is_admin: bool = field(default_factory=lambda: os.geteuid() == 0)
    kernel: str = field(default_factory=platform.release)

    def examine(self) -> Iterator[Finding]:
        """Yield a finding on each thing here that a mount needs or may use, the kernel first."""
        yield self._kernel()
        yield self._device()
        yield self._libfuse()
        yield self._helper()
        yield self._other_users()
        yield _open_files()
        yield self._memory()
        yield self._address_space()
        yield self._read_ahead()

    def _kernel(self) -> Finding:
        numbers = tuple(map(int, re.findall(r"\d+", self.kernel)[:2]))
        if numbers < OLDEST_KERNEL:
            oldest = ".".join(map(str, OLDEST_KERNEL))
            return problem("kernel", f"Linux {self.kernel} is older than {oldest}", "Use a newer kernel.")
        return ok("kernel", f"Linux {self.kernel}")

    def _device(self) -> Finding:
        device = self.root / "dev/fuse"
        if not device.exists():
            cure = "Run modprobe fuse, or start the container with --device /dev/fuse --cap-add SYS_ADMIN."
            return problem("/dev/fuse", "it does not exist", cure)
        if not os.access(device, os.R_OK | os.W_OK):
            return problem("/dev/fuse", "it is not yours to use", "Have an admin run: chmod 666 /dev/fuse")
        return ok("/dev/fuse", "there, and yours to use")

    def _libfuse(self) -> Finding:
        found = ", ".join(f"{binding} {version}" for binding, version in self.libfuse.items())
        cure = "Have an admin run: apt-get install fuse3"
        if not found:
            return problem("libfuse", "not installed, or damaged", cure)
        if "libfuse3" not in self.libfuse:
            return note("libfuse", f"only {found}: reads and writes come in smaller requests", cure)
        return ok("libfuse", found)

    def _helper(self) -> Finding:
        helper = shutil.which("fusermount3") or shutil.which("fusermount")
        if self.is_admin:
            return ok("fusermount3", "not needed by root")
        cure = "Have an admin run: apt-get install --reinstall fuse3"
        if helper is None:
            return problem("fusermount3", "not on PATH", cure)
        if not os.stat(helper).st_mode & 0o4000:
            return problem("fusermount3", f"{helper} is not set-user-ID, so it cannot mount for you", cure)
        return ok("fusermount3", helper)

    def _other_users(self) -> Finding:
        config = self.root / "etc/fuse.conf"
        try:
            text = config.read_text(errors="replace") if config.exists() else ""
        except PermissionError:
            cure = "If you need it, ask an admin whether user_allow_other is in /etc/fuse.conf."
            return note("--allow-other", "not known: you may not read /etc/fuse.conf", cure)
        if self.is_admin or re.search(r"^\s*user_allow_other\b", text, re.MULTILINE):
            return ok("--allow-other", "can be used")
        cure = "If you need it, have an admin add the line user_allow_other to /etc/fuse.conf."
        return note("--allow-other", "cannot be used: /etc/fuse.conf does not allow it", cure)

    def _memory(self) -> Finding:
        needed_bytes = self.memory_bytes + LIBRARIES_BYTES
        limit_bytes = min((*memory_limits_bytes(self.root), *_limits(resource.RLIMIT_DATA)), default=None)
        if limit_bytes is not None and limit_bytes < needed_bytes:
            text = f"limited to {limit_bytes // MiB} MiB, and a mount may take {needed_bytes // MiB} MiB"
            return problem("memory", text, "Mount with a smaller --memory, or raise the limit of the job.")
        limit = "without a limit" if limit_bytes is None else f"limited to {limit_bytes // MiB} MiB"
        return ok("memory", f"{limit}; a mount may take {needed_bytes // MiB} MiB")

    def _address_space(self) -> Finding:
        needed_bytes = self.memory_bytes + RESERVED_BYTES
        limit_bytes = min(_limits(resource.RLIMIT_AS), default=None)
        if limit_bytes is None:
            return ok("address space", "without a limit")
        text = f"limited to {limit_bytes // MiB} MiB (ulimit -v)"
        if limit_bytes < needed_bytes:
            cure = "Raise the limit of the job (h_vmem or pvmem), or mount with a smaller --memory."
            return problem("address space", f"{text}, and a mount may take {needed_bytes // MiB} MiB", cure)
        return ok("address space", text)

    def _read_ahead(self) -> Finding:
        text = f"raised to {READ_AHEAD_KIB} KiB by each mount"
        if self.is_admin and os.access(self.root / "sys/class/bdi", os.W_OK):
            return ok("read-ahead", text)
        cure = f"Have an admin put this line into /etc/udev/rules.d/90-blobfs.rules: {UDEV_RULE}"
        return note("read-ahead", "stays at 128 KiB, so reads come in smaller requests", cure)


def _open_files() -> Finding:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # a mount allows itself what it needs of that
    if most < LEAST_FILES:
        cure = f"Have the limit of this login or job raised to {USUAL_FILES}."
        return problem("open files", f"limited to {most} (ulimit -Hn)", cure)
    return ok("open files", f"limited to {most:,}")


def _limits(kind: int) -> list[int]:
    """Return the limit of this process on one resource, if it has one."""
    soft, _ = resource.getrlimit(kind)
    return [] if soft == resource.RLIM_INFINITY else [soft]
