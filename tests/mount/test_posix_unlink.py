"""unlink(2)."""

import errno
import os
from pathlib import Path

import pytest
from unix import ALICE, BOB, as_user, changes_times, refused

MAKERS = {
    "file": lambda path: path.write_bytes(b"content"),
    "link": lambda path: path.symlink_to("nowhere"),
    "fifo": os.mkfifo,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_name_goes_and_the_parents_mtime_and_ctime_change(directory: Path, kind: str) -> None:
    MAKERS[kind](directory / "name")
    with changes_times(directory, "mtime", "ctime"):
        os.unlink(directory / "name")
    assert os.listdir(directory) == []
    with refused(errno.ENOENT):
        os.unlink(directory / "name")


def test_a_link_goes_and_not_what_it_leads_to(directory: Path) -> None:
    (directory / "file").write_bytes(b"content")
    (directory / "link").symlink_to("file")
    os.unlink(directory / "link")
    assert (directory / "file").read_bytes() == b"content"


def test_a_directory_is_eisdir_and_stays(directory: Path) -> None:
    (directory / "below").mkdir()
    with changes_times(directory / "below"), changes_times(directory), refused(errno.EISDIR):
        os.unlink(directory / "below")
    assert os.listdir(directory) == ["below"]


def test_a_name_is_free_at_once(directory: Path) -> None:
    for content in (b"one", b"two", b"three"):
        (directory / "name").write_bytes(content)
        assert (directory / "name").read_bytes() == content
        os.unlink(directory / "name")
        assert not (directory / "name").exists()
    os.mkdir(directory / "name")
    assert os.listdir(directory) == ["name"]


@pytest.mark.parametrize(
    ("parent_owner", "owner", "allowed"), [(ALICE, ALICE, False), (BOB, ALICE, True), (ALICE, BOB, True)]
)
@pytest.mark.parametrize("kind", MAKERS)
def test_in_a_sticky_directory_only_owners_remove(
    directory: Path, kind: str, parent_owner: int, owner: int, allowed: bool
) -> None:
    os.chown(directory, parent_owner, parent_owner)
    directory.chmod(0o1777)
    MAKERS[kind](directory / "name")
    os.lchown(directory / "name", owner, owner)
    with as_user(BOB):
        if allowed:
            os.unlink(directory / "name")
        else:
            with changes_times(directory / "name"), refused(errno.EPERM):
                os.unlink(directory / "name")
    assert os.listdir(directory) == ([] if allowed else ["name"])


def test_permission_to_write_the_file_is_not_needed(directory: Path) -> None:
    (directory / "name").touch(mode=0)
    directory.chmod(0o777)
    with as_user(BOB):
        os.unlink(directory / "name")
    assert os.listdir(directory) == []
