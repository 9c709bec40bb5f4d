"""utimensat(2) and futimens(3)."""

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from unix import ALICE, BOB, as_user, changes_times, libc, refused

Maker = Callable[[Path], object]

SECOND = 10**9
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2  # <sys/stat.h>
AT_FDCWD = -100


def utimensat(path: Path, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """Set times as pairs of seconds and nanoseconds. Raises OSError."""
    times = (ctypes.c_long * 4)(*atime, *mtime)
    if libc.utimensat(AT_FDCWD, os.fsencode(path), times, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def times_of(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_atime_ns, found.st_mtime_ns


@pytest.fixture
def file(directory: Path) -> Path:
    """A file with content."""
    path = directory / "file"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize(
    "time_ns",
    [
        0,
        1,
        1_234_567_890_123_456_789,
        -SECOND,
        -1,
        2**31 * SECOND,
        2**32 * SECOND + 999_999_999,
        2**33 * SECOND,
    ],
)
def test_times_are_kept_to_the_nanosecond(file: Path, time_ns: int) -> None:
    os.utime(file, ns=(time_ns + 1, time_ns))
    assert times_of(file) == (time_ns + 1, time_ns)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_times_of_other_kinds_are_kept(directory: Path, make: Maker) -> None:
    make(directory / "path")
    os.utime(directory / "path", ns=(1_000_000_001, 2_000_000_002))
    assert times_of(directory / "path") == (1_000_000_001, 2_000_000_002)


def test_a_directory_changes_its_times_again_when_its_entries_change(directory: Path) -> None:
    os.utime(directory, ns=(1, 1))
    (directory / "file").touch()
    assert os.stat(directory).st_mtime_ns > 1
    os.utime(directory, ns=(1, 1))
    assert times_of(directory) == (1, 1)


def test_ctime_is_now_whatever_is_set(directory: Path, file: Path) -> None:
    with changes_times(directory):
        before = file.stat().st_ctime_ns
        os.utime(file, ns=(1, 1))
        assert file.stat().st_ctime_ns > before


def test_no_times_at_all_means_now(file: Path) -> None:
    os.utime(file, ns=(1, 1))
    before = file.stat().st_ctime_ns
    os.utime(file)
    atime_ns, mtime_ns = times_of(file)
    assert atime_ns >= before
    assert mtime_ns >= before


def test_each_time_can_be_omitted_or_now(file: Path) -> None:
    os.utime(file, ns=(1, 2))
    utimensat(file, (0, UTIME_OMIT), (5, 6))
    assert times_of(file) == (1, 5 * SECOND + 6)
    utimensat(file, (3, 4), (0, UTIME_OMIT))
    assert times_of(file) == (3 * SECOND + 4, 5 * SECOND + 6)
    utimensat(file, (0, UTIME_NOW), (0, UTIME_OMIT))
    atime_ns, mtime_ns = times_of(file)
    assert atime_ns > 10**18
    assert mtime_ns == 5 * SECOND + 6


def test_omitting_both_changes_nothing(file: Path) -> None:
    with changes_times(file):
        utimensat(file, (0, UTIME_OMIT), (0, UTIME_OMIT))


def test_the_times_of_a_link_are_its_own(directory: Path, file: Path) -> None:
    (directory / "link").symlink_to("file")
    before = times_of(file)
    os.utime(directory / "link", ns=(1, 2), follow_symlinks=False)
    assert times_of(directory / "link") == (1, 2)
    assert times_of(file) == before
    os.utime(directory / "link", ns=(3, 4))
    assert times_of(file) == (3, 4)
    assert os.readlink(directory / "link") == "file"


def test_times_set_before_close_stay_after_it(directory: Path) -> None:
    path = directory / "new"
    with path.open("wb", buffering=0) as writer:
        writer.write(b"content")
        os.utime(writer.fileno(), ns=(1, 2))
    assert times_of(path) == (1, 2)


def test_only_the_owner_sets_any_time_and_who_may_write_sets_now(file: Path) -> None:
    file.chmod(0o666)
    os.chown(file, ALICE, ALICE)
    with as_user(BOB):
        with changes_times(file), refused(errno.EPERM):
            os.utime(file, ns=(1, 2))
        os.utime(file)
    with as_user(ALICE):
        os.utime(file, ns=(1, 2))
    assert times_of(file) == (1, 2)


def test_who_neither_owns_nor_may_write_is_eacces(file: Path) -> None:
    with as_user(BOB), changes_times(file), refused(errno.EACCES):
        os.utime(file)


def test_the_owner_needs_no_permission(file: Path) -> None:
    file.chmod(0)
    os.chown(file, BOB, BOB)
    with as_user(BOB):
        os.utime(file)
        os.utime(file, ns=(1, 2))
    assert times_of(file) == (1, 2)
