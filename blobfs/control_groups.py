"""The control groups that this process is in, and how much memory they allow it (cgroups(7))."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NO_LIMIT_BYTES = (2**63 - 1) // PAGE_BYTES * PAGE_BYTES  # as version 1 spells it: whole pages


def memory_limits_bytes(root: Path = Path("/")) -> Iterator[int]:
    """Yield the limits of the process's memory groups and of all above them, in either version.

    What cannot be read limits nothing that we could know of.
    """
    for file in _limit_files(root):
        try:
            text = file.read_text("ascii").strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < NO_LIMIT_BYTES:  # version 2 says "max"
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
