"""What programs do with the files of a `Filesystem`, and what the tests of one have in common."""

import os
from collections.abc import Callable

import pytest
from fakes import CALLER, MemoryStore

from blobfs.content.memory import Buffer
from blobfs.errors import AlreadyExists, NoSpace, NotFound
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.handles import Opened

BLOCK = 8
BODY = b"0123456789abcdefghijklmnopqrstuvwxyz"
HIDDEN = "/.fuse_hidden0000000100000001"
MARKER = {"hdi_isfolder": "true"}

Mount = Callable[..., Filesystem]


def create(fs: Filesystem, path: str, flags: int = os.O_RDWR) -> int:
    return fs.handles.create(path, 0o644, flags, CALLER).handle


def close(fs: Filesystem, handle: int) -> None:
    fs.handles.flush(handle)
    fs.handles.release(handle)


def write(fs: Filesystem, path: str, body: bytes) -> None:
    try:
        fs.stat(path)
    except NotFound:
        handle = create(fs, path)
    else:
        handle = fs.handles.open(path, os.O_WRONLY | os.O_TRUNC).handle
    fs.handles.write(handle, 0, memoryview(body))
    close(fs, handle)


def write_new(fs: Filesystem, path: str, body: bytes) -> None:
    handle = create(fs, path)
    fs.handles.write(handle, 0, memoryview(body))
    close(fs, handle)


def read_handle(fs: Filesystem, handle: int) -> bytes:
    target = memoryview(bytearray(1000))
    return bytes(target[: fs.handles.read_into(handle, 0, target)])


def read(fs: Filesystem, path: str) -> bytes:
    handle = fs.handles.open(path, os.O_RDONLY).handle
    try:
        return read_handle(fs, handle)
    finally:
        fs.handles.release(handle)


def replace_after_unlink(fs: Filesystem, memory: MemoryStore, *, is_asked_for: bool) -> None:
    """Unlink "/x" while it is open, perhaps ask for it, and have another client write the name."""
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", HIDDEN)
    if is_asked_for:
        with pytest.raises(NotFound):
            fs.stat("/x")
    memory.put("x", b"theirs")


def lose_new_file(fs: Filesystem, memory: MemoryStore) -> int:
    """Make "/x" when another client is first to do so; return the handle of the loser."""
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"mine"))
    memory.put("x", b"theirs")
    with pytest.raises(AlreadyExists):
        fs.handles.fsync(handle)
    return handle


def opened_and_closed(fs: Filesystem, path: str) -> Opened:
    opened = fs.handles.open(path, os.O_RDONLY)
    fs.handles.release(opened.handle)
    return opened


def entries(fs: Filesystem, path: str) -> list[str]:
    return sorted(name for name, _ in fs.directories.entries(path))


def tree(fs: Filesystem, path: str = "/") -> list[str]:
    found = []
    for name, stat_of in fs.directories.entries(path):
        child = f"{path.rstrip('/')}/{name}"
        found.append(child)
        if stat_of.attributes.is_directory:
            found += tree(fs, child)
    return sorted(found)


def later(fs: Filesystem) -> None:
    fs.volume.transfers.run_later()  # type: ignore[attr-defined]


def no_room(_size_bytes: int) -> Buffer:
    raise NoSpace("no room in the temporary directory")
