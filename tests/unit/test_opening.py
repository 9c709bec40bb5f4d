"""What open(2) finds, and what the kernel may believe of its pages and sizes from then on."""

import os

import pytest
from fakes import CALLER, FailingStore, ManualClock, MemoryStore
from syscalls import BLOCK, BODY, Mount, close, create, opened_and_closed, read, read_handle, write

from blobfs.errors import Changed, InvalidName, IsADirectory, NotPermitted
from blobfs.filesystem.filesystem import Filesystem
from blobfs.store import ALWAYS


def test_small_file_is_opened_and_read_by_one_request(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("x", BODY[:BLOCK])
    fs.stat("/x")
    memory.requests.clear()
    assert read(fs, "/x") == BODY[:BLOCK]
    assert memory.requests == {"GET blob": 1}
    assert read(fs, "/x") == BODY[:BLOCK]
    assert memory.requests == {"GET blob": 2}  # asks whether it changed, and transfers nothing


def test_open_of_a_directory_or_of_nothing_is_refused(fs: Filesystem) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    with pytest.raises(IsADirectory):
        fs.handles.open("/d", os.O_RDONLY)
    with pytest.raises(Changed):  # so that the kernel looks again
        fs.handles.open("/none", os.O_RDONLY)
    with pytest.raises(InvalidName):
        fs.handles.open("/new\nline", os.O_RDONLY)


def test_open_without_close_to_open_believes_no_longer_what_is_open_than_what_is_told(
    mount: Mount, memory: MemoryStore, clock: ManualClock
) -> None:
    fs = mount(close_to_open=False)
    memory.put("x", b"1")
    reader = fs.handles.open("/x", os.O_RDONLY).handle
    assert read_handle(fs, reader) == b"1"
    memory.put("x", b"longer")
    assert read(fs, "/x") == b"1"
    clock.advance(1.0)
    assert fs.stat("/x").size_bytes == 6
    assert read(fs, "/x") == b"longer"
    memory.put("x", b"the third")
    clock.advance(1.0)
    assert read(fs, "/x") == b"the third"
    close(fs, reader)


def test_pages_are_bypassed_while_a_file_of_an_older_version_may_write_to_them(
    fs: Filesystem, memory: MemoryStore
) -> None:
    memory.put("x", b"old")
    older = fs.handles.open("/x", os.O_RDWR).handle
    memory.put("x", b"new")
    newer = [fs.handles.open("/x", os.O_RDWR) for _ in range(2)]
    assert [(opened.bypass_pages, opened.keep_pages) for opened in newer] == [(True, False)] * 2
    fs.handles.write(older, 0, memoryview(b"!"))
    with pytest.raises(Changed):
        fs.handles.flush(older)
    for opened in newer:
        fs.handles.release(opened.handle)
    again = fs.handles.open("/x", os.O_RDONLY)
    assert again.bypass_pages
    fs.handles.release(again.handle)
    fs.handles.release(older)
    last = fs.handles.open("/x", os.O_RDONLY)
    assert (last.bypass_pages, last.keep_pages) == (False, False)


@pytest.mark.parametrize("change", ["write", "truncate", "allocate"])
def test_pages_with_what_was_never_committed_are_dropped_by_the_next_open(
    mount: Mount, memory: MemoryStore, change: str
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    memory.put("x", b"committed")
    assert not opened_and_closed(fs, "/x").keep_pages
    assert opened_and_closed(fs, "/x").keep_pages
    handle = fs.handles.open("/x", os.O_RDWR).handle
    if change == "write":
        fs.handles.write(handle, 0, memoryview(b"lost"))
    elif change == "truncate":
        fs.handles.truncate(handle, 4)
    else:
        fs.handles.allocate(handle, 0, 4, keep_size=True, zero=True)
    store.fail_commits(NotPermitted("kept by a policy"))
    with pytest.raises(NotPermitted):
        fs.handles.flush(handle)
    fs.handles.release(handle)
    assert not opened_and_closed(fs, "/x").keep_pages
    assert opened_and_closed(fs, "/x").keep_pages


def test_pages_of_a_file_made_anew_are_bypassed_while_the_one_before_is_open(
    fs: Filesystem, memory: MemoryStore
) -> None:
    memory.put("x", b"old")
    older = fs.handles.open("/x", os.O_RDWR).handle
    memory.delete("x", ALWAYS)
    fs.volume.namespace.forget("/x")
    made = fs.handles.create("/x", 0o644, os.O_WRONLY, CALLER)
    assert made.bypass_pages
    fs.handles.write(made.handle, 0, memoryview(b"new"))
    close(fs, made.handle)
    fs.handles.write(older, 0, memoryview(b"!"))
    with pytest.raises(Changed):
        fs.handles.flush(older)
    assert not opened_and_closed(fs, "/x").keep_pages
    fs.handles.release(older)
    assert not opened_and_closed(fs, "/x").keep_pages
    assert opened_and_closed(fs, "/x").keep_pages


def test_open_of_a_file_that_was_never_committed_has_nothing_older_to_forget(fs: Filesystem) -> None:
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"bytes"))
    assert not fs.handles.open("/x", os.O_RDWR).is_newer
    fs.handles.flush(handle)
    fs.handles.write(handle, 0, memoryview(b"other"))
    assert fs.handles.open("/x", os.O_RDWR).is_newer


def test_kernel_is_told_of_a_size_that_a_listing_has_learned_before_it(fs: Filesystem, mount: Mount) -> None:
    other = mount()
    write(other, "/f", b"short")
    fs.handles.release(fs.handles.open("/f", os.O_RDONLY).handle)
    handle = other.handles.open("/f", os.O_WRONLY | os.O_TRUNC).handle
    other.handles.write(handle, 0, memoryview(b"longer than before"))
    close(other, handle)
    fs.volume.namespace.entries("/")
    first, second = (fs.handles.open("/f", os.O_RDONLY) for _ in range(2))
    assert first.is_newer
    assert second.is_newer  # the answer to the first may not have reached the kernel yet


def test_who_has_another_version_open_shares_its_pages_after_a_rename_too(
    fs: Filesystem, memory: MemoryStore
) -> None:
    memory.put("f", b"old")
    older = fs.handles.open("/f", os.O_RDONLY)
    memory.put("f", b"new")
    newer = fs.handles.open("/f", os.O_RDONLY)
    assert newer.bypass_pages
    fs.rename("/f", "/g")
    fs.handles.release(newer.handle)
    assert opened_and_closed(fs, "/g").bypass_pages
    fs.handles.release(older.handle)
    opened_and_closed(fs, "/g")
    assert not opened_and_closed(fs, "/g").bypass_pages


@pytest.mark.parametrize(("old", "new", "was"), [("/f", "/g", "f"), ("/d", "/e", "d/f")])
def test_older_version_that_is_open_when_its_name_moves_shares_the_pages(
    fs: Filesystem, memory: MemoryStore, old: str, new: str, was: str
) -> None:
    memory.put(was, b"old, and longer")
    handle = fs.handles.open(f"/{was}", os.O_RDONLY).handle
    memory.put(was, b"new")
    fs.rename(old, new)
    path = f"/{was}".replace(old, new, 1)
    opened = fs.handles.open(path, os.O_RDONLY)
    assert opened.bypass_pages
    with pytest.raises(Changed):
        fs.handles.flush(handle)  # it may have met the end of the newer version
    fs.handles.release(opened.handle)
    fs.handles.release(handle)
    opened_and_closed(fs, path)
    assert not opened_and_closed(fs, path).bypass_pages
