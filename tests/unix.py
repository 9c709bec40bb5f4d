"""What tests of POSIX behaviour share: other users, errnos, and the times that a call may change."""

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

ALICE, BOB = 65533, 65534  # users with a group of the same number each, and no rights of root's
TIMES = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")

libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def as_user(uid: int, groups: Sequence[int] = ()) -> Iterator[None]:
    """Have the filesystem see this user instead of root. The process must be root."""
    old_groups = os.getgroups()
    os.setgroups(list(groups))
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(old_groups)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Create files under another umask."""
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def refused(number: int) -> AbstractContextManager[object]:
    """Fail unless what is inside fails with this errno."""
    return pytest.raises(OSError, match=rf"^\[Errno {number}\]")


@contextmanager
def changes_times(path: Path | int, *expected: str) -> Iterator[None]:
    """Fail unless exactly these of "atime", "mtime" and "ctime" change, and only forwards."""
    before = _stat(path)
    yield
    after = _stat(path)
    changed = {name[3:8] for name in TIMES if getattr(after, name) != getattr(before, name)}
    assert changed == set(expected)
    assert all(getattr(after, name) >= getattr(before, name) for name in TIMES)


def _stat(path: Path | int) -> os.stat_result:
    return os.fstat(path) if isinstance(path, int) else os.lstat(path)


def renameat2(old: Path, new: Path, flags: int) -> None:
    """Call renameat2(2). Raises OSError."""
    at_cwd = -100
    if libc.renameat2(at_cwd, os.fsencode(old), at_cwd, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
