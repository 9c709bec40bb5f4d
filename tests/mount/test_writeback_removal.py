"""Removals behind unlink(): what programs see of them, and what a crash, a race or a refusal does to them."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from mounts import Mount, Mounts, blobfs, on_both_bindings
from responder.control import Responder
from responder.faults import Rule
from tokens import container_sas
from unix import refused

KIND = "DELETE blob"
BATCH = "POST batch"
SLOW = Rule(kind=KIND, latency_seconds=0.3)
BUSY = Rule(kind=KIND, status=503)
REFUSED = Rule(kind=KIND, status=403)
FAILED = "was removed, but that could not be carried out"


@pytest.fixture
def mounts(service: Responder, box: str, binding: str) -> Iterator[Mounts]:
    with Mounts(service, box, binding) as mounts:
        mounts.tolerate_log("the service is busy")
        yield mounts
        service.order()


@pytest.fixture
def mount(mounts: Mounts, tmp_path: Path, blobs: ContainerClient) -> Mount:
    """A mount of two files, which knows for a while what they are."""
    for name in ("d/x", "y"):
        blobs.upload_blob(name, b"old")
    mount = mounts("--writeback", "--spool-dir", tmp_path / "spool", "--attr-timeout", "60")
    assert [path.read_bytes() for path in (mount.path / "d" / "x", mount.path / "y")] == [b"old", b"old"]
    return mount


def names(blobs: ContainerClient) -> list[str]:
    return sorted(blobs.list_blob_names())


def bodies(blobs: ContainerClient) -> dict[str, bytes]:
    return {name: blobs.download_blob(name).readall() for name in blobs.list_blob_names()}


@on_both_bindings
def test_a_removed_name_is_gone_at_once_and_its_blob_by_the_next_barrier(
    service: Responder, mounts: Mounts, blobs: ContainerClient, tmp_path: Path
) -> None:
    for name in ("d/x", "y"):
        blobs.upload_blob(name, b"old")
    # Whatever it is asked, it asks the service, which still has the blobs.
    mount = mounts("--writeback", "--spool-dir", tmp_path / "spool", "--attr-timeout", "0")
    service.order(BUSY)
    (mount.path / "y").unlink()
    (mount.path / "d" / "x").unlink()
    assert os.listdir(mount.path) == ["d"]
    assert os.listdir(mount.path / "d") == []
    with refused(errno.ENOENT):
        (mount.path / "y").stat()
    assert names(blobs) == ["d/x", "y"]
    service.order()
    assert blobfs("sync", mount.path).returncode == 0
    assert names(blobs) == ["d"]
    assert os.listdir(mount.path) == ["d"]


def test_a_name_that_was_removed_can_be_made_again(
    service: Responder, mounts: Mounts, mount: Mount, blobs: ContainerClient
) -> None:
    service.order(SLOW)
    for path in (mount.path / "d" / "x", mount.path / "y"):
        path.unlink()
    (mount.path / "d" / "x").write_bytes(b"new")
    (mount.path / "y").mkdir()
    mounts.unmount(mount)
    assert bodies(blobs) == {"d": b"", "d/x": b"new", "y": b""}


@pytest.mark.parametrize("command", [["mv"], ["mv", "--no-clobber"]], ids=" ".join)
@pytest.mark.parametrize("old", ["y", "d"])
def test_a_name_that_was_removed_can_be_renamed_onto(
    service: Responder, mounts: Mounts, mount: Mount, blobs: ContainerClient, command: list[str], old: str
) -> None:
    (mount.path / "gone").write_bytes(b"to be removed")
    assert blobfs("sync", mount.path).returncode == 0
    service.order(SLOW)
    (mount.path / "gone").unlink()
    subprocess.run([*command, mount.path / old, mount.path / "gone"], check=True)
    mounts.unmount(mount)
    expected = {"y": {"d/x": b"old", "gone": b"old"}, "d": {"gone/x": b"old", "y": b"old"}}
    assert bodies(blobs) == expected[old]


def test_a_directory_is_removed_after_what_was_in_it(
    service: Responder, mount: Mount, blobs: ContainerClient
) -> None:
    service.order(SLOW)
    subprocess.run(["rm", "-r", mount.path / "d"], check=True)
    assert names(blobs) == ["y"]


def test_fsync_of_a_directory_waits_for_what_was_removed_from_it(
    service: Responder, mount: Mount, blobs: ContainerClient
) -> None:
    service.order(SLOW)
    (mount.path / "y").unlink()
    directory = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
    assert names(blobs) == ["d/x"]


def test_a_file_that_is_open_keeps_its_bytes_when_its_name_is_removed(
    service: Responder, mounts: Mounts, mount: Mount, blobs: ContainerClient
) -> None:
    service.order(SLOW)
    with (mount.path / "y").open("rb") as file:
        (mount.path / "y").unlink()
        (mount.path / "y").write_bytes(b"new")
        assert file.read() == b"old"
    mounts.unmount(mount)
    assert bodies(blobs) == {"d/x": b"old", "y": b"new"}


def test_a_directory_whose_last_files_are_removed_gets_one_marker(
    service: Responder, mount: Mount, blobs: ContainerClient
) -> None:
    for number in range(20):
        blobs.upload_blob(f"virtual/{number}", b"")
    assert len(os.listdir(mount.path / "virtual")) == 20
    service.order(Rule(kind=KIND, latency_seconds=0.05))
    service.reset_counters()
    for number in range(20):
        (mount.path / "virtual" / str(number)).unlink()
    assert blobfs("sync", mount.path).returncode == 0
    requests = service.counters.requests
    assert requests.get(KIND, 0) + requests[BATCH] < 20
    assert requests["PUT blob"] == 1
    assert names(blobs) == ["d/x", "virtual", "y"]


def test_a_refused_deletion_brings_the_name_back_and_every_barrier_tells(
    service: Responder, mounts: Mounts, mount: Mount, blobs: ContainerClient
) -> None:
    mounts.expect_log(f"/y {FAILED}: .*403")
    service.order(REFUSED)
    (mount.path / "y").unlink()
    directory = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    with refused(errno.EACCES):
        os.fsync(directory)
    os.close(directory)
    assert (mount.path / "y").read_bytes() == b"old"
    for command in ("sync", "umount"):
        ended = blobfs(command, mount.path)
        assert ended.returncode == 1
        assert "\n/y: removed, but that could not be carried out: " in ended.stderr
        assert "; it is there again, to be removed again or written anew\n" in ended.stderr
    service.order()
    (mount.path / "y").unlink()
    mounts.unmount(mount)
    assert names(blobs) == ["d/x"]


def test_what_somebody_else_has_written_meanwhile_is_not_removed(
    mounts: Mounts, mount: Mount, blobs: ContainerClient
) -> None:
    mounts.expect_log(f"/y {FAILED}: ")
    blobs.upload_blob("y", b"theirs", overwrite=True)
    (mount.path / "y").unlink()
    ended = blobfs("sync", mount.path)
    assert (ended.returncode, "/y: removed, but that could not be carried out" in ended.stderr) == (1, True)
    assert (mount.path / "y").read_bytes() == b"theirs"
    (mount.path / "y").unlink()
    mounts.unmount(mount)
    assert names(blobs) == ["d/x"]


def test_what_somebody_else_has_removed_too_is_no_failure(
    mounts: Mounts, mount: Mount, blobs: ContainerClient
) -> None:
    blobs.delete_blob("y")
    (mount.path / "y").unlink()
    mounts.unmount(mount)
    assert names(blobs) == ["d/x"]


def test_a_crash_brings_back_what_was_removed_and_not_deleted_yet(
    service: Responder, mounts: Mounts, mount: Mount, tmp_path: Path
) -> None:
    service.order(BUSY)
    (mount.path / "y").unlink()
    assert "removed, to be deleted" in os.getxattr(mount.path, "user.blobfs.status").decode()
    mount.kill()
    mounts.unmount(mount)
    service.order()
    again = mounts("--writeback", "--spool-dir", tmp_path / "spool")
    assert (again.path / "y").read_bytes() == b"old"


@pytest.mark.parametrize("is_behind", [False, True])
def test_a_tree_is_removed_with_one_request_a_file_or_less_and_two_a_directory(
    service: Responder, mounts: Mounts, blobs: ContainerClient, tmp_path: Path, is_behind: bool
) -> None:
    options = ["--writeback", "--spool-dir", tmp_path / "spool"] if is_behind else []
    mount = mounts(*options, "--attr-timeout", "60")
    for directory in range(10):
        (mount.path / "tree" / str(directory)).mkdir(parents=True)
        for number in range(20):
            (mount.path / "tree" / str(directory) / str(number)).touch()
    assert blobfs("sync", mount.path).returncode == 0
    service.reset_counters()
    subprocess.run(["rm", "-r", mount.path / "tree"], check=True)
    requests = service.counters.requests
    assert names(blobs) == []
    deletions = requests.pop(KIND) + requests.pop(BATCH, 0)
    assert deletions < 211 if is_behind else deletions == 211
    assert requests.pop("LIST") <= 11 + 4
    assert not requests


def test_a_removal_by_a_sas_that_may_not_delete_is_refused_and_leaves_nothing_to_tell(
    mounts: Mounts, blobs: ContainerClient, tmp_path: Path
) -> None:
    blobs.upload_blob("y", b"old")
    token = container_sas(blobs.container_name, "racwl")
    mount = mounts("--writeback", "--spool-dir", tmp_path / "spool", AZURE_STORAGE_SAS_TOKEN=token)
    with refused(errno.EACCES):
        (mount.path / "y").unlink()
    assert (mount.path / "y").read_bytes() == b"old"
    mounts.unmount(mount)
    assert names(blobs) == ["y"]
