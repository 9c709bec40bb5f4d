"""mkfifo(3), mknod(2), and the sockets that bind(2) makes."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from mounts import Mounts
from unix import BOB, as_user, changes_times, refused, umask

KINDS = {
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "character device": stat.S_IFCHR,
    "block device": stat.S_IFBLK,
    "file": stat.S_IFREG,
}
DEVICE = os.makedev(259, 1048575)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[int]:
    """A file type that mknod makes."""
    return KINDS[request.param]


def device_of(kind: int) -> int:
    return DEVICE if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0


def test_a_node_is_what_it_was_made_as(directory: Path, kind: int) -> None:
    path = directory / "node"
    with umask(0o027), changes_times(directory, "mtime", "ctime"):
        os.mknod(path, kind | 0o666, device_of(kind))
    found = os.lstat(path)
    assert found.st_mode == kind | 0o640
    assert (found.st_rdev, found.st_size, found.st_nlink) == (device_of(kind), 0, 1)
    assert [(entry.name, entry.inode()) for entry in os.scandir(directory)] == [("node", found.st_ino)]


def test_a_node_is_the_same_after_a_remount(shared_mounts: Mounts, directory: Path, kind: int) -> None:
    os.mknod(directory / "node", kind | 0o644, device_of(kind))
    before = os.lstat(directory / "node")
    again = shared_mounts()
    after = os.lstat(again.path / directory.name / "node")
    assert (after.st_mode, after.st_rdev, after.st_mtime_ns) == (
        before.st_mode,
        before.st_rdev,
        before.st_mtime_ns,
    )
    shared_mounts.unmount(again)


def test_a_node_is_renamed_changed_and_removed_like_a_file(directory: Path, kind: int) -> None:
    os.mknod(directory / "old", kind | 0o644, device_of(kind))
    os.rename(directory / "old", directory / "new")
    os.chmod(directory / "new", 0o600)
    os.chown(directory / "new", BOB, BOB)
    found = os.lstat(directory / "new")
    assert (found.st_mode, found.st_rdev, found.st_uid) == (kind | 0o600, device_of(kind), BOB)
    os.unlink(directory / "new")
    assert os.listdir(directory) == []


def test_nobody_but_root_makes_devices_and_a_refused_one_leaves_nothing(directory: Path) -> None:
    directory.chmod(0o777)
    with as_user(BOB), changes_times(directory):
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            with refused(errno.EPERM):
                os.mknod(directory / "node", kind | 0o666, DEVICE)
    assert os.listdir(directory) == []


def test_others_make_fifos_that_are_theirs(directory: Path) -> None:
    directory.chmod(0o777)
    with as_user(BOB):
        os.mkfifo(directory / "fifo")
    found = os.lstat(directory / "fifo")
    assert (found.st_uid, found.st_gid) == (BOB, BOB)


def test_two_programs_talk_through_a_fifo(directory: Path) -> None:
    path = directory / "fifo"
    os.mkfifo(path)
    writer = Thread(target=path.write_bytes, args=(b"spoken",))
    writer.start()
    assert path.read_bytes() == b"spoken"
    writer.join()
    assert path.stat().st_size == 0


def test_two_programs_talk_through_a_socket(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)  # the address of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        assert stat.S_ISSOCK(os.lstat("socket").st_mode)
        client.connect("socket")
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"spoken")
            assert accepted.recv(6) == b"spoken"
    monkeypatch.undo()
