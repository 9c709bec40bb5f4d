"""chmod(2) and fchmod(2)."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from unix import ALICE, BOB, as_user, changes_times, refused

Maker = Callable[[Path], object]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("mode", [0, 0o111, 0o444, 0o640, 0o755, 0o1777, 0o2755, 0o4755, 0o7777])
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo])
def test_all_twelve_bits_are_kept_and_the_type_stays(directory: Path, make: Maker, mode: int) -> None:
    path = directory / "path"
    make(path)
    file_type = stat.S_IFMT(os.lstat(path).st_mode)
    path.chmod(mode)
    assert os.lstat(path).st_mode == file_type | mode


def test_a_link_is_followed_and_stays_as_it_is(directory: Path) -> None:
    (directory / "file").touch()
    (directory / "link").symlink_to("file")
    os.chmod(directory / "link", 0o600)
    assert mode_of(directory / "file") == 0o600
    assert mode_of(directory / "link") == 0o777


def test_only_ctime_changes(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    with changes_times(path, "ctime"), changes_times(directory):
        path.chmod(0o600)


def test_a_call_that_fails_changes_nothing(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    path.chmod(0o666)
    with changes_times(path), as_user(BOB), refused(errno.EPERM):
        path.chmod(0o600)
    assert mode_of(path) == 0o666


def test_the_owner_may_change_the_mode_even_without_any_permission(directory: Path) -> None:
    path = directory / "file"
    path.touch()
    path.chmod(0)
    os.chown(path, BOB, BOB)
    with as_user(BOB):
        path.chmod(0o600)
    assert mode_of(path) == 0o600


def test_set_group_id_is_cleared_for_an_owner_outside_the_group(directory: Path) -> None:
    path = directory / "file"
    path.touch()
    os.chown(path, BOB, ALICE)
    with as_user(BOB):
        path.chmod(0o2755)
        assert mode_of(path) == 0o755
    with as_user(BOB, groups=[ALICE]):
        path.chmod(0o2755)
        assert mode_of(path) == 0o2755


@pytest.mark.parametrize("bits", [0o4755, 0o2755, 0o6777])
def test_writing_clears_set_id_bits_for_others_than_root(directory: Path, bits: int) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    path.chmod(bits | 0o022)
    with as_user(BOB), path.open("r+b", buffering=0) as file:
        file.write(b"changed")
        assert os.fstat(file.fileno()).st_mode & 0o6000 == 0
    assert mode_of(path) == bits & 0o777 | 0o022


def test_a_descriptor_changes_a_file_that_is_not_committed_yet(directory: Path) -> None:
    path = directory / "file"
    with path.open("wb", buffering=0) as file:
        file.write(b"content")
        os.fchmod(file.fileno(), 0o640)
        assert mode_of(path) == 0o640
    assert mode_of(path) == 0o640
    assert path.read_bytes() == b"content"


def test_permissions_already_checked_at_open_stay_with_the_descriptor(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    os.chown(path, BOB, BOB)
    with as_user(BOB), path.open("r+b", buffering=0) as file:
        path.chmod(0)
        assert file.read() == b"content"
        file.write(b", more")
    assert path.read_bytes() == b"content, more"


def test_a_directory_without_read_permission_can_be_searched_and_without_search_not(directory: Path) -> None:
    (directory / "file").write_bytes(b"content")
    directory.chmod(0o711)
    with as_user(BOB):
        assert (directory / "file").read_bytes() == b"content"
        with refused(errno.EACCES):
            os.listdir(directory)
    directory.chmod(0o744)
    with as_user(BOB):
        assert os.listdir(directory) == ["file"]
        with refused(errno.EACCES):
            (directory / "file").read_bytes()
