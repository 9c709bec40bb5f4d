"""symlink(2) and readlink(2)."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from unix import BOB, as_user, changes_times, refused

Maker = Callable[[Path], object]

TARGETS = [
    "file",
    "../up",
    "/absolute/path",
    "with space",
    "grüße/ß",
    "back\\slash",
    "line\nbreak",
    "t" * 4095,
]


@pytest.mark.parametrize("target", TARGETS, ids=range(len(TARGETS)))
def test_the_target_is_kept_as_it_was_given(directory: Path, target: str) -> None:
    os.symlink(target, directory / "link")
    assert os.readlink(directory / "link") == target
    assert os.lstat(directory / "link").st_size == len(target.encode())


def test_bytes_that_are_no_text_are_kept(directory: Path) -> None:
    os.symlink(b"\xff\xfe", os.fsencode(directory / "link"))
    assert os.readlink(os.fsencode(directory / "link")) == b"\xff\xfe"


def test_a_link_is_a_link_with_all_permissions(directory: Path) -> None:
    os.symlink("nowhere", directory / "link")
    found = os.lstat(directory / "link")
    assert found.st_mode == stat.S_IFLNK | 0o777
    assert found.st_nlink == 1


def test_a_link_leads_to_a_file_or_a_directory(directory: Path) -> None:
    (directory / "file").write_bytes(b"content")
    (directory / "below").mkdir()
    (directory / "below" / "link").symlink_to("../file")
    (directory / "here").symlink_to("below")
    assert (directory / "here" / "link").read_bytes() == b"content"
    (directory / "here" / "link").write_bytes(b"changed")
    assert (directory / "file").read_bytes() == b"changed"
    assert os.path.islink(directory / "below" / "link")


def test_a_file_is_made_where_a_dangling_link_leads(directory: Path) -> None:
    (directory / "link").symlink_to("file")
    (directory / "link").write_bytes(b"content")
    assert (directory / "file").read_bytes() == b"content"


def test_it_belongs_to_its_maker(directory: Path) -> None:
    directory.chmod(0o777)
    with as_user(BOB):
        os.symlink("nowhere", directory / "link")
    found = os.lstat(directory / "link")
    assert (found.st_uid, found.st_gid) == (BOB, BOB)


def test_the_parents_mtime_and_ctime_change(directory: Path) -> None:
    with changes_times(directory, "mtime", "ctime"):
        os.symlink("nowhere", directory / "link")


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo])
def test_reading_what_is_no_link_is_einval(directory: Path, make: Maker) -> None:
    make(directory / "path")
    with refused(errno.EINVAL):
        os.readlink(directory / "path")


def test_an_empty_target_is_enoent(directory: Path) -> None:
    with refused(errno.ENOENT):
        os.symlink("", directory / "link")


def test_a_link_that_was_replaced_leads_to_the_new_target(directory: Path) -> None:
    for target in ("one", "two"):
        (directory / target).write_text(target)
        (directory / "new").symlink_to(target)
        (directory / "new").rename(directory / "link")
        assert os.readlink(directory / "link") == target
        assert (directory / "link").read_text() == target
