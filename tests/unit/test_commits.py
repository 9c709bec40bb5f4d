"""When files are committed, and what is known of those that are not."""

import os

import pytest
from fakes import FailingStore, ManualClock, MemoryStore, filesystem_of, machine
from syscalls import BLOCK, Mount, close, create, entries, later, write

from blobfs.errors import Changed, Unavailable
from blobfs.filesystem.filesystem import Filesystem


def test_what_one_closed_is_sent_though_another_has_edited_it_since_and_has_it_open(
    behind: Filesystem, memory: MemoryStore
) -> None:
    log = create(behind, "/log", os.O_WRONLY | os.O_APPEND)
    other = behind.handles.open("/log", os.O_WRONLY | os.O_APPEND).handle
    behind.handles.write(other, 0, memoryview(b"closed"))
    close(behind, other)
    behind.handles.write(log, 0, memoryview(b" and half a block"))
    later(behind)
    assert memory.bodies == {"log": b"closed and half a block"}
    behind.handles.write(log, 0, memoryview(b", and more"))
    later(behind)
    assert memory.bodies == {"log": b"closed and half a block"}
    close(behind, log)
    later(behind)
    assert memory.bodies == {"log": b"closed and half a block, and more"}


def test_what_was_closed_and_is_being_written_anew_is_sent_after_its_next_close(
    behind: Filesystem, memory: MemoryStore
) -> None:
    write(behind, "/x", b"old")
    handle = behind.handles.open("/x", os.O_WRONLY | os.O_TRUNC).handle
    behind.handles.write(handle, 0, memoryview(b"half"))
    later(behind)
    assert memory.bodies == {}
    behind.handles.write(handle, 4, memoryview(b" and half"))
    close(behind, handle)
    later(behind)
    assert memory.bodies == {"x": b"half and half"}


def test_rsync_s_temporary_name_costs_one_request(fs: Filesystem, memory: MemoryStore) -> None:
    entries(fs, "/")
    handle = create(fs, "/.x.Ab12Cd")
    fs.handles.write(handle, 0, memoryview(b"bytes"))
    memory.requests.clear()
    close(fs, handle)
    fs.set_times("/.x.Ab12Cd", 5, 7)
    fs.rename("/.x.Ab12Cd", "/x")
    assert memory.requests["PUT blob"] == memory.requests.total() - memory.requests["LIST"] == 1
    assert memory.bodies == {"x": b"bytes"}
    assert fs.stat("/x").attributes.mtime_ns == 7


def test_name_that_is_removed_while_open_is_no_longer_reported_as_lost(fs: Filesystem) -> None:
    write(fs, "/x", b"bytes")
    fs.volume.lost_changes.note("/x", "removed, but that could not be carried out")
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", "/.fuse_hidden0000000200000001")
    assert list(fs.commits.uncommitted()) == []


def test_temporary_name_that_was_renamed_takes_no_memory(memory: MemoryStore, clock: ManualClock) -> None:
    with machine(memory, block_bytes=BLOCK, inline=True) as parts:
        fs = filesystem_of(parts, clock)
        write(fs, "/.x.Ab12Cd", b"bytes")
        assert parts.pool.in_use_bytes > 0
        fs.rename("/.x.Ab12Cd", "/x")
        parts.cache.drop(memory.head("x").version)  # for who reads it now
        assert parts.pool.in_use_bytes == 0


def test_temporary_name_that_is_not_renamed_is_committed_later(fs: Filesystem, memory: MemoryStore) -> None:
    handle = create(fs, "/.x.Ab12Cd")
    fs.handles.write(handle, 0, memoryview(b"bytes"))
    close(fs, handle)
    assert [file.path for file in fs.commits.uncommitted()] == ["/.x.Ab12Cd"]
    later(fs)
    assert (memory.bodies, list(fs.commits.uncommitted())) == ({".x.Ab12Cd": b"bytes"}, [])


def test_temporary_file_that_lost_its_memory_is_committed_later_too(
    fs: Filesystem, memory: MemoryStore
) -> None:
    handle = create(fs, "/.x.Ab12Cd")
    fs.handles.write(handle, 0, memoryview(b"bytes"))
    close(fs, handle)
    fs.volume.files.release_memory(0)
    later(fs)
    assert (memory.bodies, list(fs.commits.uncommitted())) == ({".x.Ab12Cd": b"bytes"}, [])


def test_file_that_a_newer_version_has_displaced_is_committed_by_its_close(
    behind: Filesystem, memory: MemoryStore
) -> None:
    memory.put("x", b"old")
    older = behind.handles.open("/x", os.O_RDWR).handle
    memory.put("x", b"new")
    newer = behind.handles.open("/x", os.O_RDONLY).handle
    behind.handles.write(older, 0, memoryview(b"mine"))
    assert [file.path for file in behind.commits.uncommitted()] == ["/x"]
    with pytest.raises(Changed):
        behind.sync("/")
    with pytest.raises(Changed):
        behind.handles.flush(older)
    behind.handles.release(older)
    behind.handles.release(newer)
    assert memory.bodies == {"x": b"new"}


def test_bytes_of_a_displaced_file_that_an_outage_keeps_from_the_service_are_named(
    mount: Mount, memory: MemoryStore
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    memory.put("x", b"old")
    older = fs.handles.open("/x", os.O_RDWR).handle
    memory.put("x", b"new")
    fs.handles.open("/x", os.O_RDONLY)
    fs.handles.write(older, 0, memoryview(b"mine"))
    store.fail_commits(Unavailable("away"))
    with pytest.raises(Unavailable):
        fs.handles.flush(older)
    fs.handles.release(older)
    assert [file.path for file in fs.uncommitted()] == ["/x"]
