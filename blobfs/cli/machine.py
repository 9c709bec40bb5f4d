"""How much memory this process may have: of the machine, and of the control groups that it is in."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from blobfs.blocks import MiB

SHARE = 4  # a quarter: the job beside the mount wants the most of what they both may have
LEAST_BYTES = 32 * MiB  # room for four blocks


def default_memory_bytes(most_bytes: int, root: Path = Path("/")) -> int:
    """Return what a mount takes if it is not told: `most_bytes`, or less where memory is scarce."""
    limit_bytes = min((_physical_bytes(), *_group_limits_bytes(root)))
    share_bytes = limit_bytes // SHARE // MiB * MiB
    return max(LEAST_BYTES, min(most_bytes, share_bytes))


def _physical_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_limits_bytes(root: Path) -> Iterator[int]:
    """Yield the limits of the process's memory groups and of all above them (cgroups(7)).

    What cannot be read limits nothing that we could know of.
    """
    for file in _limit_files(root):
        try:
            text = file.read_text("ascii").strip()
        except OSError:
            continue
        if text.isdecimal():  # otherwise "max"
            yield int(text)


def _limit_files(root: Path) -> Iterator[Path]:
    groups = root / "sys/fs/cgroup"
    for controllers, path in _memberships(root):
        hierarchy, name = groups, "memory.max"
        if controllers:
            hierarchy, name = groups / "memory", "memory.limit_in_bytes"
        inner = PurePosixPath(path.lstrip("/"))
        # In a container the path may be the host's; the container's own group is then at the top.
        for group in (inner, *inner.parents):
            yield hierarchy / group / name


def _memberships(root: Path) -> Iterator[tuple[str, str]]:
    """Yield controllers, empty in version 2, and the path of each group that may limit memory."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            yield controllers, path
