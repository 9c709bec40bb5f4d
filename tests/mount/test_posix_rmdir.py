"""rmdir(2)."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from azurite import Azurite
from mounts import Mount
from unix import ALICE, BOB, as_user, changes_times, refused

Maker = Callable[[Path], object]


def test_an_empty_directory_goes_and_the_parents_mtime_and_ctime_change(directory: Path) -> None:
    (directory / "below").mkdir()
    with changes_times(directory, "mtime", "ctime"):
        os.rmdir(directory / "below")
    assert os.listdir(directory) == []
    with refused(errno.ENOENT):
        os.stat(directory / "below")


@pytest.mark.parametrize(
    "make", [Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")],
    ids=["file", "directory", "fifo", "link"],
)  # fmt: skip
def test_a_directory_with_an_entry_stays(directory: Path, make: Maker) -> None:
    (directory / "below").mkdir()
    make(directory / "below" / "entry")
    with changes_times(directory), changes_times(directory / "below"), refused(errno.ENOTEMPTY):
        os.rmdir(directory / "below")
    assert os.listdir(directory / "below") == ["entry"]


def test_a_directory_with_a_file_that_is_being_written_stays(directory: Path) -> None:
    (directory / "below").mkdir()
    with (directory / "below" / "file").open("wb", buffering=0) as file:
        file.write(b"content")
        with refused(errno.ENOTEMPTY):
            os.rmdir(directory / "below")
    assert (directory / "below" / "file").read_bytes() == b"content"


def test_a_directory_in_which_somebody_else_put_a_blob_stays(
    azurite: Azurite, shared_container: str, directory: Path
) -> None:
    (directory / "below").mkdir()
    assert os.listdir(directory / "below") == []
    with azurite.client() as client:
        client.get_blob_client(shared_container, f"{directory.name}/below/file").upload_blob(b"content")
    with refused(errno.ENOTEMPTY):
        os.rmdir(directory / "below")
    assert (directory / "below" / "file").read_bytes() == b"content"


@pytest.mark.parametrize(
    "make",
    [Path.touch, os.mkfifo, lambda path: path.symlink_to("."), lambda path: path.symlink_to("nowhere")],
    ids=["file", "fifo", "link", "dangling link"],
)
def test_what_is_no_directory_is_enotdir_and_stays(directory: Path, make: Maker) -> None:
    make(directory / "path")
    with changes_times(directory), refused(errno.ENOTDIR):
        os.rmdir(directory / "path")
    assert os.listdir(directory) == ["path"]


def test_dot_is_einval_and_dot_dot_is_enotempty(directory: Path) -> None:
    (directory / "below").mkdir()
    with refused(errno.EINVAL):
        os.rmdir(f"{directory}/below/.")
    with refused(errno.ENOTEMPTY):
        os.rmdir(f"{directory}/below/..")


def test_the_mountpoint_is_ebusy(shared_mount: Mount) -> None:
    with refused(errno.EBUSY):
        os.rmdir(shared_mount.path)


def test_a_directory_goes_after_its_last_entry(directory: Path) -> None:
    (directory / "below").mkdir()
    (directory / "below" / "file").write_bytes(b"content")
    os.unlink(directory / "below" / "file")
    os.rmdir(directory / "below")
    assert os.listdir(directory) == []


def test_a_directory_goes_while_a_file_removed_from_it_is_open(directory: Path) -> None:
    (directory / "below").mkdir()
    (directory / "below" / "file").write_bytes(b"content")
    with (directory / "below" / "file").open("rb") as file:
        os.unlink(directory / "below" / "file")
        os.rmdir(directory / "below")
        assert file.read() == b"content"
    assert os.listdir(directory) == []


@pytest.mark.parametrize(
    ("parent_owner", "owner", "allowed"), [(ALICE, ALICE, False), (BOB, ALICE, True), (ALICE, BOB, True)]
)
def test_in_a_sticky_directory_only_owners_remove(
    directory: Path, parent_owner: int, owner: int, allowed: bool
) -> None:
    os.chown(directory, parent_owner, parent_owner)
    directory.chmod(0o1777)
    (directory / "below").mkdir()
    os.chown(directory / "below", owner, owner)
    with as_user(BOB):
        if allowed:
            os.rmdir(directory / "below")
        else:
            with refused(errno.EPERM):
                os.rmdir(directory / "below")
    assert os.listdir(directory) == ([] if allowed else ["below"])


def test_a_parent_that_may_not_be_written_is_eacces(directory: Path) -> None:
    (directory / "below").mkdir()
    os.chown(directory / "below", BOB, BOB)
    with as_user(BOB), changes_times(directory), refused(errno.EACCES):
        os.rmdir(directory / "below")
