"""Names that go: files, open or not, and directories."""

import os
import weakref
from collections.abc import Callable

import pytest
from fakes import CALLER, FailingStore, ManualClock, MemoryStore
from syscalls import (
    BODY,
    HIDDEN,
    MARKER,
    Mount,
    close,
    create,
    entries,
    later,
    lose_new_file,
    no_room,
    opened_and_closed,
    read_handle,
    tree,
    write,
)

from blobfs.errors import (
    AccessDenied,
    AlreadyExists,
    Changed,
    DirectoryNotEmpty,
    InvalidName,
    IsADirectory,
    NotADirectory,
    NotFound,
)
from blobfs.filesystem.file_table import CLOSED_SECONDS
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.removal import UNUSED_SECONDS
from blobfs.store import ALWAYS


def test_unlinked_file_is_gone(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"1")
    fs.unlink("/x")
    assert (entries(fs, "/"), memory.bodies) == ([], {})
    with pytest.raises(NotFound):
        fs.unlink("/x")


def test_file_closed_while_it_loses_its_name_is_forgotten(fs: Filesystem) -> None:
    """libfuse removes no hidden name that it gives after the last close."""
    write(fs, "/x", BODY)
    opened_and_closed(fs, "/x")
    fs.rename("/x", HIDDEN)
    assert fs.stat(HIDDEN).links == 0  # an open of it may be under way
    later(fs)
    with pytest.raises(Changed):
        fs.stat(HIDDEN)


def test_file_unlinked_while_open_is_read_to_its_end(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", BODY)
    handle = fs.handles.open("/x", os.O_RDWR).handle
    fs.rename("/x", HIDDEN)
    assert entries(fs, "/") == []
    later(fs)
    assert memory.bodies == {}
    fs.handles.write(handle, len(BODY), memoryview(b"!"))
    assert read_handle(fs, handle) == BODY + b"!"
    assert fs.stat(HIDDEN).links == 0
    close(fs, handle)
    fs.unlink(HIDDEN)
    with pytest.raises(Changed):  # after which the kernel looks for what has the old name
        fs.stat(HIDDEN)
    assert (memory.bodies, list(fs.commits.uncommitted())) == ({}, [])


def test_file_opened_while_its_hidden_name_goes_is_known_by_it(fs: Filesystem) -> None:
    # libfuse unlinks the hidden name after a close, and another open(2) of the file may be under way.
    write(fs, "/x", BODY)
    first = fs.handles.open("/x", os.O_RDONLY).handle
    fs.rename("/x", HIDDEN)
    second = fs.handles.open(HIDDEN, os.O_RDONLY).handle
    fs.handles.release(first)
    fs.unlink(HIDDEN)
    fs.chmod(HIDDEN, 0o600)
    for told in (fs.stat_open(second), fs.stat(HIDDEN)):
        assert (told.size_bytes, told.links, told.attributes.mode) == (len(BODY), 0, 0o100600)
    assert read_handle(fs, second) == BODY
    fs.handles.release(second)
    for ask in (fs.stat, lambda path: fs.handles.open(path, os.O_RDONLY)):
        with pytest.raises(Changed):
            ask(HIDDEN)


def test_hidden_name_of_a_closed_file_is_known_until_it_is_removed(fs: Filesystem) -> None:
    # libfuse takes a file for open a little longer than it is.
    write(fs, "/x", BODY)
    fs.handles.release(fs.handles.open("/x", os.O_RDONLY).handle)
    with pytest.raises(NotFound):
        fs.stat(HIDDEN)  # libfuse asks before it gives a name
    fs.rename("/x", HIDDEN)
    handle = fs.handles.open(HIDDEN, os.O_RDONLY).handle
    fs.handles.release(handle)
    assert fs.stat(HIDDEN).size_bytes == len(BODY)
    fs.unlink(HIDDEN)
    with pytest.raises(Changed):
        fs.stat(HIDDEN)


def test_fstat_of_a_replaced_file_is_not_of_what_replaced_it(fs: Filesystem) -> None:
    write(fs, "/x", BODY)
    write(fs, "/y", b"new")
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    fs.rename("/x", HIDDEN)
    fs.rename("/y", "/x")
    assert fs.stat_open(handle).size_bytes == len(BODY)
    assert fs.stat("/x").size_bytes == len(b"new")


def test_removal_of_an_open_file_that_fails_leaves_it_to_its_writer(
    mount: Mount, memory: MemoryStore, clock: ManualClock
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    memory.put("x", b"old")
    handle = fs.handles.open("/x", os.O_RDWR).handle
    fs.handles.write(handle, 0, memoryview(b"new"))
    clock.advance(10)
    store.fail_method("head", AccessDenied("no"))
    with pytest.raises(AccessDenied):
        fs.rename("/x", HIDDEN)
    store.heal()
    fs.handles.write(handle, 3, memoryview(b"er"))
    close(fs, handle)
    later(fs)
    assert memory.bodies == {"x": b"newer"}


def test_file_without_a_name_goes_with_its_last_handle(fs: Filesystem) -> None:
    """With it go its bytes, and its descriptor in the temporary directory."""
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(BODY))
    file = weakref.ref(fs.volume.files.get("x"))
    fs.rename("/x", HIDDEN)
    close(fs, handle)
    fs.unlink(HIDDEN)
    fs.volume.transfers.run_later(within_seconds=UNUSED_SECONDS / 10)  # type: ignore[attr-defined]
    assert file() is None


def test_file_never_committed_and_unlinked_while_open_sends_nothing(
    fs: Filesystem, memory: MemoryStore
) -> None:
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"temporary"))
    memory.requests.clear()
    fs.rename("/x", HIDDEN)
    fs.handles.write(handle, 0, memoryview(b"T"))
    assert read_handle(fs, handle) == b"Temporary"
    close(fs, handle)
    fs.unlink(HIDDEN)
    later(fs)
    assert memory.requests == {}


def test_name_of_a_hidden_file_is_refused_to_a_program(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("x", b"precious")
    with pytest.raises(InvalidName):
        fs.rename("/x", HIDDEN)
    later(fs)
    assert memory.bodies == {"x": b"precious"}


def test_file_can_be_removed_though_an_open_handle_of_it_is_stale(
    fs: Filesystem, mount: Mount, memory: MemoryStore, clock: ManualClock
) -> None:
    write(fs, "/x", BODY * 10_000)
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    write(mount(), "/x", b"theirs")
    clock.advance(1)
    fs.rename("/x", HIDDEN)
    later(fs)
    assert memory.bodies == {}
    fs.handles.release(handle)


def test_directory_stays_when_its_last_file_goes(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("a/b/x", b"")
    entries(fs, "/a/b")
    fs.unlink("/a/b/x")
    assert tree(fs) == ["/a", "/a/b"]
    fs.rmdir("/a/b")
    assert tree(fs) == ["/a"]
    fs.rmdir("/a")
    assert (tree(fs), memory.bodies) == ([], {})


@pytest.mark.parametrize("markers", [["a/b/"], ["a/b", "a/b/"]], ids=str)
def test_directory_with_a_marker_in_the_old_style_is_removed_with_it(
    fs: Filesystem, memory: MemoryStore, clock: ManualClock, markers: list[str]
) -> None:
    for name in markers:
        memory.put(name, b"", MARKER)
    assert tree(fs) == ["/a", "/a/b"]
    fs.rmdir("/a/b")
    clock.advance(2)
    assert tree(fs) == ["/a"]
    assert memory.bodies == {"a": b""}


def test_directory_is_not_removed_with_a_blob_in_it_that_has_bytes_and_no_name(
    fs: Filesystem, memory: MemoryStore
) -> None:
    memory.put("a/", b"bytes")
    with pytest.raises(DirectoryNotEmpty):
        fs.rmdir("/a")
    assert memory.bodies == {"a/": b"bytes"}


def test_directory_with_entries_is_not_removed(fs: Filesystem, mount: Mount) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    handle = create(fs, "/d/x")
    with pytest.raises(DirectoryNotEmpty):
        fs.rmdir("/d")
    close(fs, handle)
    with pytest.raises(DirectoryNotEmpty):
        fs.rmdir("/d")
    fs.unlink("/d/x")
    write(mount(), "/d/theirs", b"")
    with pytest.raises(DirectoryNotEmpty):
        fs.rmdir("/d")


def test_a_commit_that_is_noted_late_brings_no_removed_name_back(fs: Filesystem) -> None:
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(BODY))
    file = fs.volume.files.get("x")
    assert file is not None
    file.commit()
    fs.unlink("/x")
    fs.volume.note_commit(file)
    with pytest.raises(NotFound):
        fs.stat("/x")
    close(fs, handle)


def test_removal_of_the_wrong_kind_is_refused(fs: Filesystem) -> None:
    write(fs, "/x", b"")
    fs.mkdir("/d", 0o755, CALLER)
    with pytest.raises(NotADirectory):
        fs.rmdir("/x")
    with pytest.raises(IsADirectory):
        fs.unlink("/d")
    with pytest.raises(NotFound):
        fs.rmdir("/none")


def test_name_can_be_taken_from_a_file_that_only_an_older_version_s_handles_hold(
    fs: Filesystem, memory: MemoryStore, clock: ManualClock
) -> None:
    memory.put("x", b"old")
    older = fs.handles.open("/x", os.O_RDONLY).handle
    memory.put("x", b"new")
    opened_and_closed(fs, "/x")
    clock.advance(CLOSED_SECONDS)
    fs.rename("/x", HIDDEN)
    later(fs)
    assert memory.bodies == {}
    fs.handles.release(older)


@pytest.mark.parametrize("act", [lambda fs: fs.rmdir("/d"), lambda fs: fs.rename("/d", "/e")])
def test_open_file_that_lost_its_name_to_another_client_is_in_nobodys_way(
    fs: Filesystem, memory: MemoryStore, act: Callable[[Filesystem], object]
) -> None:
    memory.put("d", b"", MARKER)
    memory.put("d/x", b"old")
    handle = fs.handles.open("/d/x", os.O_RDWR).handle
    fs.handles.write(handle, 0, memoryview(b"mine"))
    memory.delete("d/x", ALWAYS)
    with pytest.raises(Changed):
        fs.handles.fsync(handle)
    fs.volume.namespace.forget("/d/x")
    assert entries(fs, "/d") == []
    act(fs)


def test_removal_of_a_file_that_waits_for_its_commit_needs_no_disk(
    behind: Filesystem, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(behind, "/x", b"mine")
    monkeypatch.setattr("blobfs.content.draft.disk_buffer", no_room)
    behind.unlink("/x")
    later(behind)
    assert (entries(behind, "/"), memory.bodies) == ([], {})


def test_name_that_another_client_was_first_to_make_can_be_removed_by_who_has_his_own_open(
    fs: Filesystem, memory: MemoryStore
) -> None:
    lose_new_file(fs, memory)
    fs.rename("/x", HIDDEN)
    later(fs)
    assert memory.bodies == {}


def test_name_that_another_client_was_first_to_make_can_be_removed(
    behind: Filesystem, memory: MemoryStore
) -> None:
    write(behind, "/x", b"mine")
    memory.put("x", b"theirs")
    with pytest.raises(AlreadyExists):
        behind.sync("/")
    behind.unlink("/x")
    later(behind)
    assert memory.bodies == {}
