"""Uploads behind close(): what programs see of them, and what a crash, a race or a refusal does to them."""

import errno
import json
import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from azurite import Azurite
from mounts import Mount, Mounts, blobfs, on_both_bindings, small_disk
from responder.control import Responder
from responder.faults import Fault, Rule
from trees import make_tree, snapshot
from unix import refused
from waiting import wait_until

LARGE = os.urandom(300_000)  # several blocks
COMMITS_REFUSED = [Rule(kind=kind, status=403) for kind in ("PUT blob", "PUT block list")]


@pytest.fixture
def mounts(service: Responder, box: str, binding: str) -> Iterator[Mounts]:
    with Mounts(service, box, binding) as mounts:
        mounts.tolerate_log("403|not committed yet, but kept|is committed after all")
        yield mounts
        service.order()


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    return ["--writeback", "--spool-dir", str(tmp_path / "spool"), "--block-size", "64KiB"]


def bodies(blobs: ContainerClient) -> dict[str, bytes]:
    return {name: blobs.download_blob(name).readall() for name in blobs.list_blob_names()}


@contextmanager
def sending(mount: Mount) -> Iterator[None]:
    """Have what was closed be sent at once, again and again."""
    is_over = threading.Event()

    def send() -> None:
        while not is_over.is_set():
            os.getxattr(mount.path, "user.blobfs.sync")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        is_over.set()
        sender.join()


def recover(service: Responder, box: str, spool: Path, *arguments: str) -> str:
    where = [service.account, box, "--endpoint", service.endpoint, "--spool-dir", spool]
    ended = blobfs("recover", *where, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def leftovers(service: Responder, box: str, spool: Path) -> dict[str, str]:
    return {each["name"]: each["state"] for each in json.loads(recover(service, box, spool, "--json"))}


@on_both_bindings
def test_a_closed_file_is_there_for_its_mount_before_it_is_sent(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mount = mounts(*options)
    service.order(*COMMITS_REFUSED)
    for name, body in (("small", b"bytes"), ("large", LARGE), ("gone", b""), ("moved", b"old name")):
        (mount.path / name).write_bytes(body)
    with (mount.path / "small").open("ab") as file:
        file.write(b" and more")
    os.chmod(mount.path / "small", 0o600)
    os.utime(mount.path / "small", ns=(7, 7))
    (mount.path / "moved").rename(mount.path / "new name")
    (mount.path / "gone").unlink()
    assert sorted(os.listdir(mount.path)) == ["large", "new name", "small"]
    status = (mount.path / "small").stat()
    assert (status.st_size, status.st_mode & 0o777, status.st_mtime_ns) == (14, 0o600, 7)
    expected = {"small": b"bytes and more", "large": LARGE, "new name": b"old name"}
    assert {name: (mount.path / name).read_bytes() for name in expected} == expected
    assert bodies(blobs) == {}

    service.order()
    assert blobfs("sync", mount.path).returncode == 0
    assert bodies(blobs) == expected
    assert blobs.get_blob_client("small").get_blob_properties().metadata["modtime"] == "7"
    assert {name: (mount.path / name).read_bytes() for name in expected} == expected


def test_what_is_removed_before_it_is_sent_costs_nothing(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    service.order(*COMMITS_REFUSED)
    mount = mounts(*options)
    (mount.path / "x").write_bytes(b"bytes")
    (mount.path / "x").unlink()
    service.order()
    mounts.unmount(mount)
    assert "DELETE blob" not in service.counters.requests
    assert bodies(blobs) == {}


def test_a_rename_over_another_file_before_both_are_sent_costs_nothing(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mount = mounts(*options)
    service.order(*COMMITS_REFUSED)
    (mount.path / "x").write_bytes(b"old")
    (mount.path / "new").write_bytes(b"new")
    (mount.path / "new").rename(mount.path / "x")
    assert (mount.path / "x").read_bytes() == b"new"
    service.order()
    mounts.unmount(mount)
    assert not {"PUT copy", "DELETE blob"} & service.counters.requests.keys()
    assert bodies(blobs) == {"x": b"new"}


def test_names_may_come_go_and_move_while_they_are_being_sent(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    service.order(Rule(pattern="^PUT", latency_seconds=0.02))
    mount = mounts(*options)
    directory = mount.path / "d"
    directory.mkdir()
    with sending(mount):
        for number in range(40):
            kept, other = directory / f"kept{number}", directory / "other"
            other.write_bytes(b"first")
            other.write_bytes(b"%d" % number)
            if number % 3 == 0:
                other.unlink()
                other.write_bytes(b"%d" % number)
            if number % 2:
                kept.write_bytes(b"replaced")
            other.rename(kept)
            assert kept.name in os.listdir(directory)
            assert kept.read_bytes() == b"%d" % number
    (directory / "kept7").unlink()
    mounts.unmount(mount)
    expected = {f"d/kept{number}": b"%d" % number for number in range(40)}
    del expected["d/kept7"]
    assert bodies(blobs) == {**expected, "d": b""}


@on_both_bindings
def test_a_crash_loses_nothing_that_was_closed(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mount = mounts(*options)
    service.order(*COMMITS_REFUSED)
    for number in range(50):
        (mount.path / str(number)).write_bytes(b"%d" % number)
    (mount.path / "large").write_bytes(LARGE)
    (mount.path / "0").rename(mount.path / "renamed")
    (mount.path / "1").unlink()
    unfinished = os.open(mount.path / "2", os.O_WRONLY | os.O_TRUNC)
    os.write(unfinished, b"unfinished")
    mount.kill()
    with refused(errno.ENOTCONN):
        os.close(unfinished)
    mounts.unmount(mount)
    assert bodies(blobs) == {}
    service.order()

    mounts.expect_log("2 is left in the spool: never closed")
    assert "files committed that a crash had left: 50" in mounts(*options).announcement
    expected = {str(number): b"%d" % number for number in range(2, 50)}
    assert bodies(blobs) == {**expected, "renamed": b"0", "large": LARGE}


def test_recovery_on_command_commits_what_was_closed_as_it_was(
    service: Responder, box: str, mounts: Mounts, options: list[str], blobs: ContainerClient, tmp_path: Path
) -> None:
    mount, spool = mounts(*options), tmp_path / "spool"
    service.order(*COMMITS_REFUSED)
    (mount.path / "dated").write_bytes(b"bytes")
    os.utime(mount.path / "dated", ns=(7, 7))
    unfinished = os.open(mount.path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(unfinished, b"open ")
    with (mount.path / "log").open("ab") as file:
        file.write(b"closed")
    os.write(unfinished, b" later")
    mount.kill()
    with refused(errno.ENOTCONN):
        os.close(unfinished)
    mounts.unmount(mount)
    service.order()

    listed = recover(service, box, spool)
    assert "log: to commit, 17 bytes" in listed
    assert listed.count("edits after that never were") == listed.count("closed with 11 bytes") == 1
    assert "  edits after that were never closed" in recover(service, box, spool, "--commit")
    assert bodies(blobs) == {"dated": b"bytes", "log": b"open closed"}
    assert blobs.get_blob_client("dated").get_blob_properties().metadata["modtime"] == "7"
    assert leftovers(service, box, spool) == {"log": "never closed"}
    recover(service, box, spool, "log", "--commit")
    assert bodies(blobs)["log"] == b"open closed later"
    assert leftovers(service, box, spool) == {}


def test_a_crash_does_not_send_over_what_somebody_else_wrote(
    service: Responder, box: str, mounts: Mounts, options: list[str], blobs: ContainerClient, tmp_path: Path
) -> None:
    mount = mounts(*options)
    service.order(*COMMITS_REFUSED)
    (mount.path / "x").write_bytes(b"ours")
    mount.kill()
    mounts.unmount(mount)
    service.order()
    blobs.upload_blob("x", b"theirs")
    mounts.expect_log("x was left by a crash and is not committed: .*somebody else")
    mounts.expect_log("x is left in the spool: conflict")
    assert (mounts(*options).path / "x").read_bytes() == b"theirs"
    assert leftovers(service, box, tmp_path / "spool") == {"x": "conflict"}


def test_the_loser_of_a_race_is_named_by_every_barrier_and_kept(
    service: Responder, box: str, mounts: Mounts, options: list[str], blobs: ContainerClient, tmp_path: Path
) -> None:
    mount = mounts(*options)
    service.order(*COMMITS_REFUSED)
    (mount.path / "x").write_bytes(b"ours")
    assert blobfs("sync", mount.path).returncode == 1
    service.order()
    blobs.upload_blob("x", b"theirs")
    mounts.expect_log("x: somebody else wrote it too; ours is kept, see: blobfs recover")
    mounts.tolerate_log("x was closed without being committed")
    ended = blobfs("sync", mount.path)
    assert ended.returncode == 1
    assert "\n/x: " in ended.stderr
    assert "\n/x: " in blobfs("umount", mount.path).stderr
    assert leftovers(service, box, tmp_path / "spool") == {"x": "conflict"}

    assert (mount.path / "x").read_bytes() == b"theirs"
    (mount.path / "x").write_bytes(b"ours again")
    mounts.unmount(mount)
    assert bodies(blobs) == {"x": b"ours again"}


def test_barriers_fail_while_the_service_refuses_and_succeed_afterwards(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mount = mounts(*options)
    service.order(*COMMITS_REFUSED)
    (mount.path / "x").write_bytes(b"bytes")
    descriptor = os.open(mount.path / "x", os.O_RDONLY)
    with refused(errno.EACCES):
        os.fsync(descriptor)
    directory = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    with refused(errno.EACCES):
        os.fsync(directory)
    for command in ("sync", "umount"):
        ended = blobfs(command, mount.path)
        assert ended.returncode == 1
        assert "\n/x: " in ended.stderr
    service.order()
    os.fsync(directory)
    assert bodies(blobs) == {"x": b"bytes"}
    os.fsync(descriptor)
    os.close(directory)
    os.close(descriptor)


def test_a_commit_whose_reply_was_lost_is_no_conflict(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mounts.tolerate_log("reset|aborted|does not answer")
    mount = mounts(*options)
    service.order(Rule(pattern="^PUT", fault=Fault.LOSE_REPLY, count=1))
    (mount.path / "x").write_bytes(b"bytes")
    mounts.unmount(mount)
    assert bodies(blobs) == {"x": b"bytes"}


def test_a_name_that_was_made_without_a_reply_is_removed_and_renamed(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mounts.tolerate_log("the service|until the service")
    mount = mounts(*options, "--timeout", "1")
    service.order(Rule(pattern="^PUT", fault=Fault.LOSE_REPLY))
    (mount.path / "gone").write_bytes(b"bytes")
    (mount.path / "old").write_bytes(b"bytes")
    assert blobfs("sync", mount.path).returncode == 1
    assert set(bodies(blobs)) == {"gone", "old"}
    with refused(errno.EIO):
        (mount.path / "gone").unlink()
    service.order()
    wait_until(lambda: os.getxattr(mount.path, "user.blobfs.status.service_answers") == b"true")
    (mount.path / "gone").unlink()
    (mount.path / "old").rename(mount.path / "new")
    mounts.unmount(mount)
    assert bodies(blobs) == {"new": b"bytes"}


def test_a_file_that_is_written_again_is_not_sent_half(
    mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mount = mounts(*options, "--memory", "32MiB")
    (mount.path / "again").write_bytes(b"whole")
    with (mount.path / "again").open("wb", buffering=0) as file:
        file.write(b"half")
        for number in range(50):  # so many that the oldest have to go
            (mount.path / str(number)).write_bytes(LARGE[:1000])
        wait_until(lambda: "0" in blobs.list_blob_names())
        assert "again" not in blobs.list_blob_names()
        file.write(b" and half")
    assert blobfs("sync", mount.path).returncode == 0
    assert bodies(blobs)["again"] == b"half and half"


def test_a_closed_file_is_sent_without_being_asked_for(
    mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mount = mounts(*options)
    (mount.path / "x").write_bytes(b"bytes")
    wait_until(lambda: bodies(blobs) == {"x": b"bytes"})
    wait_until(lambda: "closed, on its way" not in os.getxattr(mount.path, "user.blobfs.status").decode())


def test_what_is_done_to_a_file_soon_after_its_close_costs_no_request(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mount = mounts(*options)
    service.reset_counters()
    for number in range(30):
        path, final = mount.path / f"{number}.lock", mount.path / str(number)
        path.write_bytes(b"bytes")
        path.chmod(0o444)
        os.utime(path, ns=(7, 7))
        path.rename(final)
        assert final.read_bytes() == b"bytes"
        assert final.stat().st_mtime_ns == 7
    assert blobfs("sync", mount.path).returncode == 0
    requests = service.reset_counters().requests
    assert requests.pop("PUT blob") == 30
    assert requests.keys() == {"LIST"}, requests  # by which absent names were looked for
    assert blobs.get_blob_client("0").get_blob_properties().metadata["modtime"] == "7"


def test_when_too_much_waits_close_sends_itself(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mount = mounts(*options, "--memory", "32MiB")
    service.order(*COMMITS_REFUSED)
    accepted = 0
    with refused(errno.EACCES):
        for number in range(1000):
            (mount.path / str(number)).write_bytes(LARGE[:60_000])
            accepted = number + 1
    assert 10 < accepted < 200
    service.order()
    mounts.unmount(mount)
    assert len(bodies(blobs)) == accepted + 1


def test_a_full_spool_refuses_the_write_and_loses_nothing_that_was_accepted(
    service: Responder, mounts: Mounts, tmp_path: Path, blobs: ContainerClient
) -> None:
    mounts.tolerate_log(
        "the spool does not know of its commit|the spool takes no more|no journal can be made"
    )
    accepted: dict[str, bytes] = {}
    with small_disk(tmp_path / "small", "1m") as disk:
        mount = mounts("--writeback", "--spool-dir", disk)
        service.order(*COMMITS_REFUSED)
        with refused(errno.ENOSPC):
            for number in range(50):
                with (mount.path / str(number)).open("wb", buffering=0) as file:
                    file.write(LARGE[:50_000])
                    accepted[str(number)] = LARGE[:50_000]
        assert 10 < len(accepted) < 22
        service.order()
        mounts.unmount(mount)
    found = bodies(blobs)
    assert {name: found[name] for name in accepted} == accepted


def test_reads_do_not_wait_for_uploads(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    blobs.upload_blob("other", LARGE)
    mount = mounts(*options)
    service.order(Rule(pattern="^PUT", latency_seconds=1.0))
    service.reset_counters()
    for number in range(40):
        (mount.path / str(number)).write_bytes(b"bytes")
    with sending(mount):
        wait_until(lambda: service.counters.requests.get("PUT blob", 0) > 1)
        assert (mount.path / "other").read_bytes() == LARGE
        assert "closed, on its way" in os.getxattr(mount.path, "user.blobfs.status").decode()
        assert len(list(blobs.list_blob_names())) < 40
        service.order()


def test_many_waiting_files_are_counted_in_the_status_and_those_listed_that_fit(
    service: Responder, mounts: Mounts, options: list[str]
) -> None:
    mount = mounts(*options)
    service.order(*COMMITS_REFUSED)
    for number in range(300):
        (mount.path / f"{number:0200}").write_bytes(b"bytes")
    status = json.loads(os.getxattr(mount.path, "user.blobfs.status"))
    assert status["uncommitted_files"] == 300
    assert 0 < len(status["uncommitted"]) < 300
    ended = blobfs("umount", mount.path)
    assert f"\nand {300 - ended.stderr.count('/000')} more\n" in ended.stderr
    service.order()
    mounts.unmount(mount)


def test_a_tree_is_copied_with_one_request_a_file_and_rsync_finds_nothing_to_do(
    azurite: Azurite, tmp_path: Path, options: list[str]
) -> None:
    container = uuid.uuid4().hex
    azurite.create_container(container)
    source = tmp_path / "source"
    make_tree(source)
    with Mounts(azurite, container, "libfuse3") as mounts:
        mount = mounts(*options)
        subprocess.run(["cp", "-a", source, mount.path / "copy"], check=True)
        assert snapshot(mount.path / "copy") == snapshot(source)
        subprocess.run(["rsync", "-a", f"{source}/", mount.path / "synced/"], check=True)
        mounts.unmount(mount)
        mount = mounts(*options)
        for copy in ("copy", "synced"):
            command = ["rsync", "-ain", f"{source}/", mount.path / copy]
            assert subprocess.run(command, check=True, capture_output=True).stdout == b""
