"""link(2): a blob has one name."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from unix import changes_times, refused

Maker = Callable[[Path], object]


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_a_second_name_is_eperm_and_leaves_nothing(directory: Path, make: Maker) -> None:
    make(directory / "one")
    with changes_times(directory / "one"), changes_times(directory), refused(errno.EPERM):
        os.link(directory / "one", directory / "two", follow_symlinks=False)
    assert os.listdir(directory) == ["one"]
    assert os.lstat(directory / "one").st_nlink == 1


def test_a_name_that_is_taken_is_eexist(directory: Path) -> None:
    (directory / "one").touch()
    (directory / "two").touch()
    with refused(errno.EEXIST):
        os.link(directory / "one", directory / "two")


def test_nothing_to_link_is_enoent(directory: Path) -> None:
    with refused(errno.ENOENT):
        os.link(directory / "missing", directory / "two")
