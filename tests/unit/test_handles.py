"""Reading, writing and closing by handle, here and where other clients write too."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import FailingStore, ManualClock, MemoryStore, filesystem_of, machine
from syscalls import (
    BLOCK,
    BODY,
    Mount,
    close,
    create,
    later,
    lose_new_file,
    opened_and_closed,
    read,
    read_handle,
    write,
    write_new,
)

from blobfs.errors import AlreadyExists, BadHandle, Changed, Unavailable, Unsupported
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.handles import PAGE_BYTES
from blobfs.store import ALWAYS, BlobKind


def test_open_after_another_mounts_close_sees_its_bytes(fs: Filesystem, mount: Mount) -> None:
    other = mount()
    write(fs, "/x", b"first")
    assert read(other, "/x") == b"first"
    for body in (b"second", b"third, longer", b"4"):
        write(fs, "/x", body)
        assert read(other, "/x") == body
        write(other, "/x", body + b"!")
        assert read(fs, "/x") == body + b"!"


def test_open_handle_keeps_reading_its_version_or_says_stale(fs: Filesystem, mount: Mount) -> None:
    long = BODY * 10_000
    write(fs, "/x", long)
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    write(mount(), "/x", b"new")
    target = memoryview(bytearray(10))
    assert fs.handles.read_into(handle, 0, target) == 10
    assert bytes(target) == long[:10]
    with pytest.raises(Changed) as stale:
        fs.handles.read_into(handle, 200_000, target)
    assert stale.value.errno == errno.ESTALE
    assert read(fs, "/x") == b"new"


def test_reader_does_not_take_for_its_version_what_the_kernel_believes_of_another(
    fs: Filesystem, memory: MemoryStore
) -> None:
    """The kernel has one size for a name: that of a longer version that was open for a moment."""
    memory.put("x", BODY * 1000)
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    page_end = -(-len(BODY * 1000) // PAGE_BYTES) * PAGE_BYTES
    for body in (BODY * 9000, b"short"):
        memory.put("x", body)
        opened_and_closed(fs, "/x")
    target = memoryview(bytearray(PAGE_BYTES))
    rest = len(BODY * 1000) - (page_end - PAGE_BYTES)
    assert fs.handles.read_into(handle, page_end - PAGE_BYTES, target) == rest
    with pytest.raises(Changed, match="another client has written more"):
        fs.handles.read_into(handle, page_end, target)


def test_lost_update_is_refused(fs: Filesystem, mount: Mount) -> None:
    write(fs, "/x", b"old")
    handle = fs.handles.open("/x", os.O_RDWR).handle
    fs.handles.write(handle, 0, memoryview(b"mine"))
    write(mount(), "/x", b"theirs")
    for _ in range(2):
        with pytest.raises(Changed):
            fs.handles.flush(handle)
    fs.handles.release(handle)
    assert [file.path for file in fs.commits.uncommitted()] == ["/x"]
    assert read(fs, "/x") == b"theirs"


def test_of_two_that_create_a_name_the_second_is_refused(fs: Filesystem, mount: Mount) -> None:
    other = mount()
    first, second = create(fs, "/x"), create(other, "/x")
    close(fs, first)
    with pytest.raises(AlreadyExists):
        other.handles.flush(second)


def test_append_by_two_handles_loses_nothing(fs: Filesystem) -> None:
    first = create(fs, "/log", os.O_WRONLY | os.O_APPEND)
    second = fs.handles.open("/log", os.O_WRONLY | os.O_APPEND).handle
    for handle, line in ((first, b"1\n"), (second, b"2\n"), (first, b"3\n")):
        fs.handles.write(handle, 0, memoryview(line))
    close(fs, first)
    close(fs, second)
    assert read(fs, "/log") == b"1\n2\n3\n"


def test_truncation_by_path_is_committed_when_it_returns(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", BODY)
    fs.handles.truncate_path("/x", 20)
    assert memory.bodies == {"x": BODY[:20]}
    fs.handles.truncate_path("/x", 22)
    assert memory.bodies == {"x": BODY[:20] + bytes(2)}


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_truncation_by_path_is_committed_though_somebody_has_the_file_open(
    fs: Filesystem, memory: MemoryStore, flags: int
) -> None:
    write(fs, "/x", BODY)
    handle = fs.handles.open("/x", flags).handle
    fs.handles.truncate_path("/x", 4)
    assert memory.bodies == {"x": BODY[:4]}
    assert read_handle(fs, handle) == BODY[:4]
    close(fs, handle)


def test_truncation_by_path_does_not_keep_back_what_was_closed_before(
    behind: Filesystem, memory: MemoryStore
) -> None:
    write(behind, "/x", BODY)
    reader = behind.handles.open("/x", os.O_RDONLY).handle
    behind.handles.truncate_path("/x", len(BODY))
    assert memory.bodies == {}
    later(behind)
    assert memory.bodies == {"x": BODY}
    close(behind, reader)


def test_handle_does_what_it_was_opened_for(fs: Filesystem) -> None:
    write(fs, "/x", b"1")
    reader = fs.handles.open("/x", os.O_RDONLY).handle
    with pytest.raises(BadHandle):
        fs.handles.write(reader, 0, memoryview(b"2"))
    with pytest.raises(BadHandle):
        fs.handles.truncate(reader, 0)
    fs.handles.release(reader)
    with pytest.raises(BadHandle):
        fs.handles.read_into(reader, 0, memoryview(bytearray(1)))


def test_open_that_fails_to_empty_the_file_leaves_nothing_open(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("x", b"pages")
    memory.set_kind("x", BlobKind.PAGE)
    with pytest.raises(Unsupported):
        fs.handles.open("/x", os.O_WRONLY | os.O_TRUNC)
    assert list(fs.volume.files) == []


def test_failed_commit_is_reported_by_close_and_the_old_blob_stays(mount: Mount, memory: MemoryStore) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    write(fs, "/x", b"old")
    handle = fs.handles.open("/x", os.O_RDWR).handle
    fs.handles.write(handle, 0, memoryview(b"new"))
    store.fail_method("put_blob", Unavailable("no service"))
    with pytest.raises(Unavailable):
        fs.handles.flush(handle)
    assert memory.bodies == {"x": b"old"}
    fs.handles.release(handle)
    assert [(file.path, file.reason) for file in fs.commits.uncommitted()] == [("/x", "no service")]


def test_open_file_that_another_client_removes_is_stale(
    fs: Filesystem, mount: Mount, clock: ManualClock
) -> None:
    write(fs, "/x", BODY * 10_000)
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    mount().unlink("/x")
    clock.advance(5)
    assert fs.stat_open(handle).size_bytes == len(BODY) * 10_000
    with pytest.raises(Changed):
        fs.handles.read_into(handle, 200_000, memoryview(bytearray(100)))


def test_threads_that_open_append_and_close_lose_nothing(memory: MemoryStore, clock: ManualClock) -> None:
    def append(number: int) -> None:
        for step in range(25):
            handle = fs.handles.open("/log", os.O_WRONLY | os.O_APPEND).handle
            fs.handles.write(handle, 0, memoryview(b"%d-%d\n" % (number, step)))
            close(fs, handle)
            if step % 5 == 0:
                fs.chmod("/log", 0o640)

    with machine(memory, block_bytes=BLOCK) as parts:
        fs = filesystem_of(parts, clock)
        write_new(fs, "/log", b"")
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(append, range(6)))
    lines = memory.bodies["log"].decode().split()
    assert sorted(lines) == sorted(f"{number}-{step}" for number in range(6) for step in range(25))
    assert list(fs.commits.uncommitted()) == []


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_EXCL])
def test_name_can_be_made_again_while_a_file_that_lost_it_is_open(
    fs: Filesystem, memory: MemoryStore, flags: int
) -> None:
    lost = lose_new_file(fs, memory)
    memory.delete("x", ALWAYS)
    again = create(fs, "/x", flags)
    fs.handles.write(again, 0, memoryview(b"again"))
    close(fs, again)
    assert memory.bodies == {"x": b"again"}
    fs.handles.release(lost)
