"""truncate(2) and ftruncate(2)."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from unix import BOB, as_user, changes_times, refused

MiB = 1 << 20


def by_path(path: Path, size: int) -> None:
    os.truncate(path, size)


def by_descriptor(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        os.ftruncate(file.fileno(), size)


either_way = pytest.mark.parametrize("truncate", [by_path, by_descriptor])


@either_way
@pytest.mark.parametrize("size", [0, 1, 99_999, 100_000, 100_001, 300_000, 9 * MiB])
def test_a_file_is_cut_or_grows_by_zeros(
    directory: Path, truncate: Callable[[Path, int], None], size: int
) -> None:
    path = directory / "file"
    content = os.urandom(100_000)
    path.write_bytes(content)
    truncate(path, size)
    assert path.stat().st_size == size
    assert path.read_bytes() == content[:size] + bytes(max(0, size - 100_000))


@pytest.mark.parametrize("size", [0, 3, 8 * MiB - 1, 8 * MiB, 8 * MiB + 1, 17 * MiB])
def test_a_file_of_several_blocks_is_cut_anywhere(directory: Path, size: int) -> None:
    path = directory / "file"
    content = os.urandom(MiB) * 17
    path.write_bytes(content)
    os.truncate(path, size)
    assert path.read_bytes() == content[:size]


def test_what_was_cut_off_does_not_come_back(directory: Path) -> None:
    path = directory / "file"
    with path.open("w+b", buffering=0) as file:
        file.write(b"x" * 1000)
        os.ftruncate(file.fileno(), 10)
        os.ftruncate(file.fileno(), 1000)
        assert os.pread(file.fileno(), 1000, 0) == b"x" * 10 + bytes(990)
    assert path.read_bytes() == b"x" * 10 + bytes(990)


@either_way
@pytest.mark.parametrize("size", [0, 3, 7, 20])
def test_mtime_and_ctime_change(directory: Path, truncate: Callable[[Path, int], None], size: int) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    with changes_times(path, "mtime", "ctime"), changes_times(directory):
        truncate(path, size)


def test_a_file_that_somebody_writes_is_cut_for_them_too(directory: Path) -> None:
    path = directory / "file"
    with path.open("w+b", buffering=0) as file:
        file.write(b"content")
        os.truncate(path, 3)
        assert os.fstat(file.fileno()).st_size == 3
        file.write(b"!")
        assert os.pread(file.fileno(), 100, 0) == b"con\0\0\0\0!"
    assert path.read_bytes() == b"con\0\0\0\0!"


def test_a_hole_of_a_gibibyte_reads_as_zeros(directory: Path) -> None:
    path = directory / "file"
    with path.open("wb") as file:
        file.write(b"start")
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    assert path.stat().st_size == (1 << 30) + 3
    with path.open("rb") as file:
        assert file.read(10) == b"start" + bytes(5)
        file.seek(1 << 29)
        assert file.read(1000) == bytes(1000)
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"\0end"


def test_a_link_is_followed(directory: Path) -> None:
    (directory / "file").write_bytes(b"content")
    (directory / "link").symlink_to("file")
    os.truncate(directory / "link", 3)
    assert (directory / "file").read_bytes() == b"con"


def test_set_id_bits_are_cleared_for_others_than_root(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    path.chmod(0o6777)
    with as_user(BOB):
        os.truncate(path, 3)
    assert path.stat().st_mode & 0o7777 == 0o777


def test_it_needs_permission_to_write(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    with as_user(BOB), changes_times(path), refused(errno.EACCES):
        os.truncate(path, 0)
    assert path.read_bytes() == b"content"


def test_a_directory_is_eisdir(directory: Path) -> None:
    with changes_times(directory), refused(errno.EISDIR):
        os.truncate(directory, 0)


def test_a_negative_size_is_einval(directory: Path) -> None:
    (directory / "file").touch()
    with refused(errno.EINVAL):
        os.truncate(directory / "file", -1)


def test_a_descriptor_for_reading_is_einval(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file, changes_times(path), refused(errno.EINVAL):
        os.ftruncate(file.fileno(), 0)


def test_a_size_that_no_blob_can_have_is_efbig_and_changes_nothing(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    with changes_times(path), refused(errno.EFBIG):
        os.truncate(path, 1 << 50)
    assert path.read_bytes() == b"content"
