"""A mount that is killed, the spool it leaves, and what users do about it."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from mounts import Mounts, blobfs, on_both_bindings, shell, small_disk
from responder.control import Responder
from responder.faults import Fault, Rule
from unix import refused
from waiting import wait_until

from blobfs.spool import directory as spool_directory
from blobfs.spool.records import Target

SIZE_BYTES = 300_000
BODY = os.urandom(SIZE_BYTES)
MORE_THAN_STAYS = os.urandom(8_000_000)  # in memory of 16 MiB, of what was staged

# Writes what it reads to a file, tells that, and goes on to close it only when its input ends.
WRITER = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
data = sys.stdin.buffer.read(int(sys.argv[2]))
while data:
    data = data[os.write(descriptor, data):]
if sys.argv[3] == "fsync":
    os.fsync(descriptor)
print("written", flush=True)
sys.stdin.buffer.read()
try:
    os.close(descriptor)
except OSError as error:
    sys.exit(error.errno)
"""


class Writer:
    """A process that has written a file and not closed it yet."""

    def __init__(self, path: Path, data: bytes, *, then: str = "") -> None:
        command = [sys.executable, "-c", WRITER, str(path), str(len(data)), then]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(data)
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"written\n"

    def begin_to_close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()

    def end(self) -> int:
        """Close the file; return the errno, or 0."""
        self.begin_to_close()
        with self._process:
            return self._process.wait(60)


@pytest.fixture
def mounts(service: Responder, box: str, binding: str) -> Iterator[Mounts]:
    with Mounts(service, box, binding) as mounts:
        yield mounts
        service.order()


class Spool:
    """A spool directory, and the command that looks after it."""

    def __init__(self, service: Responder, box: str, path: Path) -> None:
        self._where = [service.account, box, "--endpoint", service.endpoint, "--spool-dir", str(path)]
        self.path = path

    def recover(self, *arguments: str | Path, exit_code: int = 0) -> str:
        ended = blobfs("recover", *self._where, *arguments)
        assert ended.returncode == exit_code, ended.stderr
        return ended.stdout + ended.stderr

    def states(self) -> dict[str, str]:
        return {each["name"]: each["state"] for each in json.loads(self.recover("--json"))}


@pytest.fixture
def spool(service: Responder, box: str, tmp_path: Path) -> Spool:
    return Spool(service, box, tmp_path / "spool")


@pytest.fixture
def options(spool: Spool) -> list[str]:
    return ["--spool-dir", str(spool.path), "--block-size", "64KiB"]


@on_both_bindings
def test_a_file_that_was_being_written_is_offered_after_a_crash(
    mounts: Mounts, options: list[str], spool: Spool, tmp_path: Path
) -> None:
    mount = mounts(*options)
    writer = Writer(mount.path / "x", BODY)
    mount.kill()
    assert writer.end() == errno.ENOTCONN
    mounts.unmount(mount)

    mounts.expect_log("x is left in the spool: never closed")
    mount = mounts(*options)
    assert "spool: x is left: never closed" in mount.announcement
    assert f"--spool-dir {spool.path}" in mount.announcement
    assert os.listdir(mount.path) == []
    assert f"x: never closed, {SIZE_BYTES} bytes, a new file" in spool.recover()
    assert "saved" in spool.recover("x", "--save-to", tmp_path / "saved")
    assert (tmp_path / "saved" / "x").read_bytes() == BODY
    assert spool.recover("--commit") == "x: never closed, and still in the spool; name it to commit it.\n"
    spool.recover("x", "--commit")
    assert (mount.path / "x").read_bytes() == BODY
    assert spool.recover() == "Nothing is left.\n"


@on_both_bindings
def test_blocks_that_the_service_has_lost_are_sent_again(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mount = mounts(*options, "--memory", "16MiB")
    service.order(Rule(kind="PUT block list", fault=Fault.DROP_BLOCKS, count=1))
    (mount.path / "x").write_bytes(MORE_THAN_STAYS)
    assert service.hits == [1]
    assert blobs.download_blob("x").readall() == MORE_THAN_STAYS


def test_without_a_spool_the_writer_is_told_of_blocks_that_the_service_has_lost(
    service: Responder, mounts: Mounts, blobs: ContainerClient
) -> None:
    """Unless they are still in memory."""
    mount = mounts("--block-size", "64KiB", "--memory", "16MiB")
    mounts.tolerate_log("staged blocks are gone|not committed")
    lose = Rule(kind="PUT block list", fault=Fault.DROP_BLOCKS, count=1)
    service.order(lose)
    (mount.path / "y").write_bytes(BODY)
    service.order(lose)
    with refused(errno.ESTALE):
        (mount.path / "x").write_bytes(MORE_THAN_STAYS)
    assert service.hits == [1]
    assert list(blobs.list_blob_names()) == ["y"]
    mounts.give_up(mount)


def test_what_was_written_and_sent_is_read_back_without_a_commit(
    service: Responder, mounts: Mounts, options: list[str]
) -> None:
    mount = mounts(*options, "--memory", "16MiB")
    with (mount.path / "x").open("w+b", buffering=0) as file:
        for _ in range(100):
            file.write(BODY)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert [os.pread(file.fileno(), SIZE_BYTES, number * SIZE_BYTES) for number in range(100)] == 100 * [
            BODY
        ]
        assert "PUT block list" not in service.counters.requests


@on_both_bindings
def test_a_file_that_was_being_closed_is_committed_by_the_next_mount(
    service: Responder, mounts: Mounts, options: list[str], spool: Spool
) -> None:
    mount = mounts(*options)
    mounts.tolerate_log("is busy|does not answer")
    writer = Writer(mount.path / "x", BODY)
    service.order(Rule(kind="PUT block list", status=503))
    writer.begin_to_close()
    wait_until(lambda: service.hits != [0])
    mount.kill()
    assert writer.end() == errno.ECONNABORTED
    mounts.unmount(mount)
    service.order()
    service.reset_counters()

    path = mounts.new_mountpoint()
    ended = blobfs(*mounts.arguments(path), "--log-file", path.with_suffix(".log"), *options)
    assert "committing x, which a crash had left: " in ended.stderr
    mount = mounts.adopt(path, path.with_suffix(".log"), ended.stdout)
    assert "spool: files committed that a crash had left: 1" in mount.announcement
    assert "PUT block" not in service.counters.requests  # the service held them all
    assert (mount.path / "x").read_bytes() == BODY
    assert spool.states() == {}


def test_an_edit_that_was_being_closed_is_committed_onto_what_it_changed(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    blobs.upload_blob("x", BODY)
    mount = mounts(*options)
    mounts.tolerate_log("is busy|does not answer")
    writer = Writer(mount.path / "x", b"new")
    service.order(Rule(pattern="^PUT", status=503))
    writer.begin_to_close()
    wait_until(lambda: service.hits != [0])
    mount.kill()
    writer.end()
    mounts.unmount(mount)
    service.order()
    mounts(*options)
    assert blobs.download_blob("x").readall() == b"new" + BODY[3:]


def test_what_was_synced_is_there_and_what_came_after_is_offered(
    mounts: Mounts, options: list[str], spool: Spool, blobs: ContainerClient
) -> None:
    mount = mounts(*options)
    writer = Writer(mount.path / "synced", BODY, then="fsync")
    (mount.path / "closed").write_bytes(BODY)
    other = Writer(mount.path / "closed", b"later")
    mount.kill()
    writer.end()
    other.end()
    mounts.unmount(mount)
    assert spool.states() == {"closed": "never closed"}
    assert [blobs.download_blob(name).readall() for name in ("synced", "closed")] == [BODY, BODY]
    assert "removed" in spool.recover("closed", "--discard")
    assert spool.states() == {}


def test_the_loser_of_a_race_is_kept_in_the_spool(
    mounts: Mounts, options: list[str], spool: Spool, blobs: ContainerClient, tmp_path: Path
) -> None:
    blobs.upload_blob("x", BODY)
    mount = mounts(*options)
    writer = Writer(mount.path / "x", b"ours")
    blobs.upload_blob("x", b"theirs", overwrite=True)
    mounts.expect_log("x: somebody else wrote it too; ours is kept, see: blobfs recover")
    mounts.tolerate_log("x was closed without being committed")
    assert writer.end() == errno.ESTALE
    assert spool.states() == {"x": "conflict"}
    assert "were in a blob that is gone" in spool.recover("--save-to", tmp_path / "saved")
    assert (tmp_path / "saved" / "x").read_bytes() == b"ours" + bytes(SIZE_BYTES - 4)
    assert "somebody else" in spool.recover("x", "--commit", exit_code=1)
    assert blobs.download_blob("x").readall() == b"theirs"
    assert spool.states() == {"x": "conflict"}
    (mount.path / "x").unlink()  # until then, umount names it


def test_a_crash_does_not_replace_what_somebody_else_wrote_since(
    service: Responder, mounts: Mounts, options: list[str], spool: Spool, blobs: ContainerClient
) -> None:
    mount = mounts(*options)
    mounts.tolerate_log("is busy|does not answer")
    writer = Writer(mount.path / "x", BODY)
    service.order(Rule(kind="PUT block list", status=503))
    writer.begin_to_close()
    wait_until(lambda: service.hits != [0])
    mount.kill()
    writer.end()
    mounts.unmount(mount)
    service.order()
    blobs.upload_blob("x", b"theirs")
    mounts.expect_log("x was left by a crash and is not committed: .*somebody else")
    mounts.expect_log("x is left in the spool: conflict")
    mount = mounts(*options)
    assert "spool: x is left: conflict" in mount.announcement
    assert (mount.path / "x").read_bytes() == b"theirs"
    assert spool.states() == {"x": "conflict"}


def test_a_full_disk_refuses_the_write_and_what_was_accepted_can_be_committed(
    mounts: Mounts, tmp_path: Path, blobs: ContainerClient
) -> None:
    with small_disk(tmp_path / "small", "1m") as disk:
        mount = mounts("--spool-dir", disk)
        descriptor = os.open(mount.path / "x", os.O_CREAT | os.O_WRONLY)
        accepted = b""
        with refused(errno.ENOSPC):
            while True:
                accepted += BODY[: os.write(descriptor, BODY[:100_000])]
        assert 500_000 < len(accepted) < 1 << 20
        os.close(descriptor)
        assert blobs.download_blob("x").readall() == accepted
        (mount.path / "y").write_bytes(BODY)
        assert blobs.download_blob("y").readall() == BODY
        mounts.unmount(mount)


def test_two_mounts_share_a_spool_directory(
    mounts: Mounts, options: list[str], spool: Spool, blobs: ContainerClient
) -> None:
    dying, living = mounts(*options), mounts(*options)
    writers = [Writer(mount.path / name, BODY) for mount, name in ((dying, "a"), (living, "b"))]
    dying.kill()
    assert spool.states() == {"a": "never closed"}
    assert [writer.end() for writer in writers] == [errno.ENOTCONN, 0]
    assert blobs.download_blob("b").readall() == BODY
    assert spool.states() == {"a": "never closed"}
    mounts.unmount(dying)


def test_files_that_were_given_up_are_committed_by_the_next_mount(
    service: Responder, mounts: Mounts, options: list[str], blobs: ContainerClient
) -> None:
    mounts.tolerate_log(".")
    mount = mounts(*options, "--timeout", "1")
    service.order(Rule(pattern="^PUT", status=503))
    assert Writer(mount.path / "x", BODY).end() == errno.EIO
    with mount.ending():
        ended = blobfs("umount", "--force", mount.path)
    assert "without the files named above" in ended.stderr
    service.order()
    assert "had left: 1" in mounts(*options).announcement
    assert blobs.download_blob("x").readall() == BODY


def leave(service: Responder, box: str, spool: Spool, names: Iterable[str]) -> None:
    """Leave files as a mount does that is killed."""
    journals = spool_directory.Spool(spool.path, service.account, box, "")
    for name in names:
        journal = journals.journal(partial(Target, name, base_etag="0x1" if name == "edited" else ""))
        journal.write(0, memoryview(BODY))
        journal.leave()
    journals.close()


def test_what_cannot_be_saved_does_not_keep_the_rest(
    service: Responder, box: str, spool: Spool, tmp_path: Path
) -> None:
    leave(service, box, spool, ["edited", "new"])
    service.order(Rule(kind="HEAD blob", status=403))
    said = spool.recover("--save-to", tmp_path / "saved", exit_code=1)
    service.order()
    assert "not saved, and still in the spool:\nedited: " in said
    assert os.listdir(tmp_path / "saved") == ["new"]
    assert (tmp_path / "saved" / "new").read_bytes() == BODY


def test_a_full_disk_keeps_no_half_of_what_is_saved(
    service: Responder, box: str, spool: Spool, tmp_path: Path
) -> None:
    leave(service, box, spool, ["x"])
    with small_disk(tmp_path / "small", "200k") as disk:
        assert "No space left on device" in spool.recover("--save-to", disk, exit_code=1)
        assert os.listdir(disk) == []


def test_more_may_be_left_than_a_process_usually_opens(
    service: Responder, box: str, spool: Spool, tmp_path: Path
) -> None:
    leave(service, box, spool, [f"f{number}" for number in range(100)])
    command = f"blobfs recover {service.account} {box} --spool-dir {spool.path} --json"
    assert len(json.loads(shell(tmp_path, f"ulimit -Sn 64; {command}"))) == 100


@pytest.mark.parametrize("where", ["in the mount", "open to others"])
def test_a_spool_in_a_wrong_place_is_refused(mounts: Mounts, tmp_path: Path, where: str) -> None:
    mountpoint = mounts.new_mountpoint()
    spool_dir = mountpoint / "spool" if where == "in the mount" else tmp_path
    tmp_path.chmod(0o755)
    ended = blobfs(*mounts.arguments(mountpoint), "--spool-dir", spool_dir)
    assert ended.returncode == 2
    assert str(spool_dir) in ended.stderr
    assert ("inside the mountpoint" if where == "in the mount" else "chmod 700") in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["--discard"], 2, "needs the names"),
        (["--discard", "--commit", "x"], 2, "contradict"),
        (["missing", "--commit"], 1, "nothing of missing is left"),
    ],
)
def test_recover_says_what_it_cannot_do(
    spool: Spool, arguments: list[str], exit_code: int, said: str
) -> None:
    spool.path.mkdir(mode=0o700)
    assert said in spool.recover(*arguments, exit_code=exit_code)


def test_a_spool_that_is_a_file_is_said_to_be_no_directory(mounts: Mounts, spool: Spool) -> None:
    spool.path.write_bytes(b"")
    assert "is no directory" in spool.recover(exit_code=2)
    ended = blobfs(*mounts.arguments(mounts.new_mountpoint()), "--spool-dir", spool.path)
    assert (ended.returncode, "is no directory" in ended.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [(), ("--commit",), ("--save-to", "/nowhere")])
def test_recover_says_that_there_is_nothing_to_do(spool: Spool, arguments: tuple[str, ...]) -> None:
    spool.path.mkdir(mode=0o700)
    assert spool.recover(*arguments) == "Nothing is left.\n"
