"""mkdir(2)."""

import os
import stat
from pathlib import Path

import pytest
from unix import ALICE, BOB, as_user, changes_times, umask


@pytest.mark.parametrize(
    ("mode", "mask", "expected"), [(0o777, 0o022, 0o755), (0o1750, 0, 0o1750), (0, 0, 0)]
)
def test_the_mode_is_what_the_umask_leaves(directory: Path, mode: int, mask: int, expected: int) -> None:
    with umask(mask):
        os.mkdir(directory / "new", mode)
    assert os.stat(directory / "new").st_mode == stat.S_IFDIR | expected


def test_a_new_directory_is_empty_and_has_two_links(directory: Path) -> None:
    os.mkdir(directory / "new")
    assert os.listdir(directory / "new") == []
    assert os.stat(directory / "new").st_nlink == 2


def test_every_subdirectory_is_a_link_of_its_parent(directory: Path) -> None:
    for name in ("one", "two", "three"):
        os.mkdir(directory / name)
    (directory / "file").touch()
    assert os.stat(directory).st_nlink == 5
    os.rmdir(directory / "two")
    assert os.stat(directory).st_nlink == 4


def test_it_belongs_to_its_maker(directory: Path) -> None:
    directory.chmod(0o777)
    with as_user(BOB):
        os.mkdir(directory / "new")
    found = os.stat(directory / "new")
    assert (found.st_uid, found.st_gid) == (BOB, BOB)


def test_a_set_group_id_directory_hands_its_group_and_the_bit_down(directory: Path) -> None:
    os.chown(directory, 0, ALICE)
    directory.chmod(0o2777)
    with as_user(BOB):
        os.mkdir(directory / "new", 0o700)
        (directory / "file").touch()
    found = os.stat(directory / "new")
    assert (found.st_uid, found.st_gid) == (BOB, ALICE)
    assert stat.S_IMODE(found.st_mode) == 0o2700
    found = os.stat(directory / "file")
    assert (found.st_uid, found.st_gid) == (BOB, ALICE)
    assert not found.st_mode & stat.S_ISGID


def test_the_parents_mtime_and_ctime_change(directory: Path) -> None:
    before = os.stat(directory)
    with changes_times(directory, "mtime", "ctime"):
        os.mkdir(directory / "new")
    made = os.stat(directory / "new")
    assert made.st_mtime_ns == made.st_ctime_ns >= before.st_ctime_ns


def test_a_directory_can_be_made_again_after_it_was_removed(directory: Path) -> None:
    for _ in range(3):
        os.mkdir(directory / "again")
        (directory / "again" / "file").touch()
        (directory / "again" / "file").unlink()
        os.rmdir(directory / "again")
    assert os.listdir(directory) == []
