"""chown(2), lchown(2) and fchown(2)."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from unix import ALICE, BOB, as_user, changes_times, refused

Maker = Callable[[Path], object]


def owners_of(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_uid, found.st_gid


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo])
def test_root_gives_anything_to_anybody(directory: Path, make: Maker) -> None:
    make(directory / "path")
    os.chown(directory / "path", 4_000_000_000, 3_000_000_000)
    assert owners_of(directory / "path") == (4_000_000_000, 3_000_000_000)


def test_minus_one_leaves_an_id(directory: Path) -> None:
    path = directory / "file"
    path.touch()
    os.chown(path, ALICE, -1)
    assert owners_of(path) == (ALICE, 0)
    os.chown(path, -1, BOB)
    assert owners_of(path) == (ALICE, BOB)
    os.chown(path, -1, -1)
    assert owners_of(path) == (ALICE, BOB)


def test_a_link_is_followed_unless_it_is_meant_itself(directory: Path) -> None:
    (directory / "file").touch()
    (directory / "link").symlink_to("file")
    os.chown(directory / "link", ALICE, ALICE)
    assert owners_of(directory / "file") == (ALICE, ALICE)
    assert owners_of(directory / "link") == (0, 0)
    os.lchown(directory / "link", BOB, BOB)
    assert owners_of(directory / "file") == (ALICE, ALICE)
    assert owners_of(directory / "link") == (BOB, BOB)
    assert os.readlink(directory / "link") == "file"


def test_only_ctime_changes(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    with changes_times(path, "ctime"), changes_times(directory):
        os.chown(path, BOB, BOB)


def test_an_owner_may_choose_only_among_own_groups(directory: Path) -> None:
    path = directory / "file"
    path.touch()
    os.chown(path, BOB, BOB)
    with as_user(BOB, groups=[7]):
        os.chown(path, -1, 7)
        assert owners_of(path) == (BOB, 7)
        with changes_times(path), refused(errno.EPERM):
            os.chown(path, -1, 8)
    assert owners_of(path) == (BOB, 7)


def test_nobody_but_root_gives_files_away_or_takes_them(directory: Path) -> None:
    (directory / "bobs").touch()
    os.chown(directory / "bobs", BOB, BOB)
    (directory / "roots").touch()
    with as_user(BOB):
        with changes_times(directory / "bobs"), refused(errno.EPERM):
            os.chown(directory / "bobs", ALICE, -1)
        with changes_times(directory / "roots"), refused(errno.EPERM):
            os.chown(directory / "roots", BOB, -1)
    assert owners_of(directory / "bobs") == (BOB, BOB)
    assert owners_of(directory / "roots") == (0, 0)


def test_a_new_group_clears_set_id_bits_of_a_program(directory: Path) -> None:
    path = directory / "program"
    path.touch()
    os.chown(path, BOB, BOB)
    path.chmod(0o6755)
    with as_user(BOB, groups=[7]):
        os.chown(path, -1, 7)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_directory_keeps_its_set_group_id_bit(directory: Path) -> None:
    path = directory / "below"
    path.mkdir()
    path.chmod(0o2755)
    os.chown(path, BOB, BOB)
    assert stat.S_IMODE(path.stat().st_mode) == 0o2755


def test_a_descriptor_changes_a_file_that_is_not_committed_yet(directory: Path) -> None:
    path = directory / "file"
    with path.open("wb", buffering=0) as file:
        file.write(b"content")
        os.fchown(file.fileno(), ALICE, BOB)
        assert owners_of(path) == (ALICE, BOB)
    assert owners_of(path) == (ALICE, BOB)
    assert path.read_bytes() == b"content"
