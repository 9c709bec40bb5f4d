import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import CALLER, DEFAULTS, FailingStore, ManualClock, MemoryStore, filesystem_of, machine
from waiting import wait_until

from blobfs.content.memory import Buffer
from blobfs.errors import (
    AccessDenied,
    AlreadyExists,
    BadHandle,
    Changed,
    DirectoryNotEmpty,
    Failure,
    InvalidArgument,
    InvalidName,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotFound,
    NotPermitted,
    ReadOnly,
    Unavailable,
    Unsupported,
)
from blobfs.filesystem.commits import WriteBack
from blobfs.filesystem.deletions import MOST_GRACES
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.handles import Opened
from blobfs.spool.directory import Spool
from blobfs.store import ALWAYS, BlobKind, BlobStore
from blobfs.tree.creators import STREAK

BLOCK = 8
COPY_THREAD = 77
BODY = b"0123456789abcdefghijklmnopqrstuvwxyz"
HIDDEN = "/.fuse_hidden0000000100000001"
MARKER = {"hdi_isfolder": "true"}

Mount = Callable[..., Filesystem]


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def mount(memory: MemoryStore, clock: ManualClock) -> Iterator[Mount]:
    """Call it for one more mount of the same container."""
    with ExitStack() as stack:

        def mount(store: BlobStore = memory, **options: object) -> Filesystem:
            parts = stack.enter_context(machine(store, block_bytes=BLOCK, inline=True))
            return filesystem_of(parts, clock, **options)  # type: ignore[arg-type]

        yield mount


@pytest.fixture
def behind(memory: MemoryStore, clock: ManualClock, tmp_path: Path) -> Iterator[Filesystem]:
    """A mount that writes back, with room for so little that what is closed is due when `later` is called."""
    spool = Spool(tmp_path / "spool", "account", "container", "")
    with closing(spool), machine(memory, block_bytes=BLOCK, inline=True) as parts:
        limits = WriteBack(files=1, buffered_bytes=1 << 20)
        yield filesystem_of(replace(parts, make_journal=spool.journal), clock, write_back=limits)


@pytest.fixture
def fs(mount: Mount) -> Filesystem:
    return mount()


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


def read_handle(fs: Filesystem, handle: int) -> bytes:
    target = memoryview(bytearray(1000))
    return bytes(target[: fs.handles.read_into(handle, 0, target)])


def read(fs: Filesystem, path: str) -> bytes:
    handle = fs.handles.open(path, os.O_RDONLY).handle
    try:
        return read_handle(fs, handle)
    finally:
        fs.handles.release(handle)


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


def is_blocked(thread_id: int) -> bool:
    """Tell whether a thread of this process waits for something (proc(5): syscall)."""
    return not Path(f"/proc/self/task/{thread_id}/syscall").read_text().startswith("running")


def later(fs: Filesystem) -> None:
    fs.volume.transfers.run_later()  # type: ignore[attr-defined]


# Files


def test_copy_of_a_small_file_is_one_put(fs: Filesystem, memory: MemoryStore) -> None:
    fs.stat("/")
    entries(fs, "/")
    memory.requests.clear()
    with pytest.raises(NotFound):
        fs.stat("/x")
    memory.requests.clear()
    handle = create(fs, "/x", os.O_WRONLY)
    fs.handles.write(handle, 0, memoryview(b"bytes"))
    fs.chmod("/x", 0o600)
    fs.set_times("/x", 5, 7)
    close(fs, handle)
    assert fs.stat("/x").size_bytes == 5
    assert memory.requests == {"PUT blob": 1}
    assert memory.bodies == {"x": b"bytes"}


def test_copy_of_many_files_costs_one_request_each_beyond_the_first_few(
    fs: Filesystem, memory: MemoryStore
) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    memory.requests.clear()
    for number in range(100):
        with pytest.raises(NotFound):
            fs.stat(f"/d/{number}", lambda: COPY_THREAD)
        write_new(fs, f"/d/{number}", b"1")
    assert memory.requests == {"PUT blob": 100, "LIST": STREAK}


def test_name_that_another_node_has_just_made_is_found_where_this_one_makes_and_removes_names(
    fs: Filesystem, memory: MemoryStore
) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    for number in range(20):
        write_new(fs, f"/d/{number}", b"1")
        with pytest.raises(NotFound):
            fs.stat("/d/theirs")
    fs.unlink("/d/0")
    memory.put("d/theirs", b"new")
    memory.put("d/0", b"again")
    assert read(fs, "/d/theirs") == b"new"
    assert read(fs, "/d/0") == b"again"


def write_new(fs: Filesystem, path: str, body: bytes) -> None:
    handle = create(fs, path)
    fs.handles.write(handle, 0, memoryview(body))
    close(fs, handle)


def test_listing_gives_the_attributes_of_all(fs: Filesystem, memory: MemoryStore) -> None:
    for number in range(10):
        memory.put(f"d/{number}", bytes(number), {"permissions": str(stat.S_IFREG | 0o600)})
    listed = dict(fs.directories.entries("/d"))
    for number in range(10):
        found = fs.stat(f"/d/{number}")
        assert found == listed[f"{number}"]
        assert (found.size_bytes, found.attributes.mode) == (number, stat.S_IFREG | 0o600)
    assert memory.requests == {"LIST": 1}


def test_second_look_costs_nothing_while_names_are_believed(
    fs: Filesystem, memory: MemoryStore, clock: ManualClock
) -> None:
    memory.put("x", b"1")
    fs.stat("/x")
    memory.requests.clear()
    clock.advance(0.9)
    fs.stat("/x")
    assert memory.requests == {}
    clock.advance(0.2)
    fs.stat("/x")
    assert memory.requests.total() == 1


def test_small_file_is_opened_and_read_by_one_request(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("x", BODY[:BLOCK])
    fs.stat("/x")
    memory.requests.clear()
    assert read(fs, "/x") == BODY[:BLOCK]
    assert memory.requests == {"GET blob": 1}
    assert read(fs, "/x") == BODY[:BLOCK]
    assert memory.requests == {"GET blob": 2}  # asks whether it changed, and transfers nothing


def test_file_is_there_for_this_mount_before_its_commit_and_for_others_after(
    fs: Filesystem, mount: Mount, clock: ManualClock
) -> None:
    other = mount()
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(BODY))
    assert (entries(fs, "/"), fs.stat("/x").size_bytes) == (["x"], len(BODY))
    assert read(fs, "/x") == BODY
    assert entries(other, "/") == []
    close(fs, handle)
    clock.advance(1)
    assert (entries(other, "/"), read(other, "/x")) == (["x"], BODY)


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


def test_open_of_a_directory_or_of_nothing_is_refused(fs: Filesystem) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    with pytest.raises(IsADirectory):
        fs.handles.open("/d", os.O_RDONLY)
    with pytest.raises(Changed):  # so that the kernel looks again
        fs.handles.open("/none", os.O_RDONLY)
    with pytest.raises(InvalidName):
        fs.handles.open("/new\nline", os.O_RDONLY)


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


def test_sync_commits_every_file_and_names_the_failure(mount: Mount, memory: MemoryStore) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    for name in "abc":
        fs.handles.write(create(fs, f"/{name}"), 0, memoryview(b"1"))
    store.fail_call(0, Unavailable("no service"))
    with pytest.raises(Unavailable):
        fs.sync("/")
    assert len(memory.bodies) == 2
    assert len(list(fs.commits.uncommitted())) == 1
    fs.sync("/")
    assert (len(memory.bodies), list(fs.commits.uncommitted())) == (3, [])


def test_read_only_mount_refuses_every_change(mount: Mount, memory: MemoryStore) -> None:
    memory.put("x", b"1")
    fs = mount(read_only=True)
    changes: list[Callable[[], object]] = [
        lambda: create(fs, "/new"),
        lambda: fs.handles.open("/x", os.O_WRONLY),
        lambda: fs.unlink("/x"),
        lambda: fs.rename("/x", "/y"),
        lambda: fs.mkdir("/d", 0o755, CALLER),
        lambda: fs.rmdir("/d"),
        lambda: fs.symlink("x", "/link", CALLER),
        lambda: fs.mknod("/fifo", stat.S_IFIFO, 0, CALLER),
        lambda: fs.chmod("/x", 0o600),
        lambda: fs.handles.truncate_path("/x", 0),
    ]
    for change in changes:
        with pytest.raises(ReadOnly):
            change()
    assert read(fs, "/x") == b"1"
    assert memory.bodies == {"x": b"1"}


def test_sync_of_a_directory_commits_what_is_open_below_it(fs: Filesystem, memory: MemoryStore) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    for path in ("/d/x", "/dx", "/d/y"):
        fs.handles.write(create(fs, path), 0, memoryview(b"1"))
    fs.sync("/d/y")
    assert set(memory.bodies) == {"d", "d/y"}
    fs.sync("/d")
    assert set(memory.bodies) == {"d", "d/x", "d/y"}
    fs.sync("/")
    assert "dx" in memory.bodies


# Names that go


def test_unlinked_file_is_gone(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"1")
    fs.unlink("/x")
    assert (entries(fs, "/"), memory.bodies) == ([], {})
    with pytest.raises(NotFound):
        fs.unlink("/x")


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


def test_blob_stays_while_the_thread_that_hid_its_file_waits_for_a_lock(
    fs: Filesystem, memory: MemoryStore
) -> None:
    write(fs, "/x", b"old")
    write(fs, "/new", b"new")
    fs.handles.open("/x", os.O_RDONLY)
    hidden, may_go_on = threading.Event(), threading.Lock()

    def replace_slowly() -> None:
        fs.rename("/x", HIDDEN)
        hidden.set()
        with may_go_on:
            fs.rename("/new", "/x")

    with ThreadPoolExecutor(1) as threads:
        with may_go_on:
            replaced = threads.submit(replace_slowly)
            assert hidden.wait(10)
            later(fs)
            assert memory.bodies["x"] == b"old"
        replaced.result()
    later(fs)
    assert memory.bodies == {"x": b"new"}


def test_thread_that_asks_for_the_name_it_removed_is_told_at_once(
    fs: Filesystem, memory: MemoryStore
) -> None:
    write(fs, "/x", b"old")
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", HIDDEN)
    with pytest.raises(NotFound):
        fs.stat("/x")
    assert memory.bodies == {"x": b"old"}
    later(fs)
    assert memory.bodies == {}


def test_who_asks_for_a_name_is_told_at_once_when_the_thread_that_removed_it_has_gone_on(
    fs: Filesystem, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(fs, "/x", b"old")
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", HIDDEN)
    this = Path(f"/proc/self/task/{threading.get_native_id()}")
    monkeypatch.setattr("blobfs.filesystem.deletions.is_at_rest", lambda task: task == this)
    with ThreadPoolExecutor(1) as threads, pytest.raises(NotFound):
        threads.submit(fs.stat, "/x").result(10)
    assert memory.bodies == {"x": b"old"}
    later(fs)
    assert memory.bodies == {}


def test_who_waits_for_a_name_is_told_when_the_thread_that_removed_it_asks(fs: Filesystem) -> None:
    write(fs, "/x", b"old")
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", HIDDEN)
    thread_ids: list[int] = []

    def look() -> None:
        thread_ids.append(threading.get_native_id())
        with pytest.raises(NotFound):
            fs.stat("/x")

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(look)
        wait_until(lambda: bool(thread_ids) and is_blocked(thread_ids[0]))
        with pytest.raises(NotFound):
            fs.stat("/x")
        try:
            other.result(10)
        finally:
            later(fs)


def test_blob_goes_though_its_thread_never_comes_to_rest(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"old")
    fs.handles.open("/x", os.O_RDONLY)
    hidden, may_end = threading.Event(), threading.Event()

    def hide() -> None:
        fs.rename("/x", HIDDEN)
        hidden.set()
        may_end.wait(10)

    with ThreadPoolExecutor(1) as threads:
        threads.submit(hide)
        assert hidden.wait(10)
        for _ in range(MOST_GRACES):
            later(fs)
        may_end.set()
    assert memory.bodies == {}


def test_removal_of_an_open_file_that_fails_leaves_it_to_its_writer(
    mount: Mount, memory: MemoryStore, clock: ManualClock
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    memory.put("x", b"old")
    handle = fs.handles.open("/x", os.O_RDWR).handle
    fs.handles.write(handle, 0, memoryview(b"new"))
    clock.advance(10)
    store.fail_method("list_page", AccessDenied("no"))
    with pytest.raises(AccessDenied):
        fs.rename("/x", HIDDEN)
    store.heal()
    fs.handles.write(handle, 3, memoryview(b"er"))
    close(fs, handle)
    later(fs)
    assert memory.bodies == {"x": b"newer"}


@pytest.mark.parametrize("committed", [{"x": b"old"}, {}], ids=["committed", "never-committed"])
def test_writer_of_a_file_is_told_when_a_rename_over_it_fails(
    mount: Mount, memory: MemoryStore, committed: dict[str, bytes]
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    for name, body in committed.items():
        write(fs, f"/{name}", body)
    write(fs, "/y", b"other")
    handle = fs.handles.open("/x", os.O_RDWR).handle if committed else create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"new"))
    fs.rename("/x", HIDDEN)  # as libfuse does before the rename
    store.fail_method("copy", AccessDenied("no"))
    with pytest.raises(AccessDenied):
        fs.rename("/y", "/x")
    store.heal()
    for use in (fs.handles.fsync, fs.handles.flush):
        with pytest.raises(Changed):
            use(handle)
    fs.handles.release(handle)
    later(fs)
    assert memory.bodies == {**committed, "y": b"other"}
    assert [file.path for file in fs.commits.uncommitted()] == ["/x"]


def test_time_of_an_earlier_removal_says_nothing_of_a_later_one(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"1")
    write(fs, "/new", b"2")
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", HIDDEN)
    fs.rename("/new", "/x")
    earlier = fs.volume.transfers.take_due()  # type: ignore[attr-defined]
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", HIDDEN[:-1] + "2")
    for task in earlier:
        task()
    assert memory.bodies == {"x": b"2"}


def test_name_of_a_file_unlinked_while_open_can_be_used_again_at_once(
    fs: Filesystem, memory: MemoryStore
) -> None:
    write(fs, "/x", b"old")
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    fs.rename("/x", HIDDEN)
    write_new(fs, "/x", b"new")
    later(fs)
    assert (read_handle(fs, handle), read(fs, "/x"), memory.bodies) == (b"old", b"new", {"x": b"new"})


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_what_another_client_puts_under_the_name_of_a_file_unlinked_while_open_stays(
    fs: Filesystem, memory: MemoryStore, caplog: pytest.LogCaptureFixture, is_asked_for: bool
) -> None:
    write(fs, "/x", b"old")
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", HIDDEN)
    if is_asked_for:
        with pytest.raises(NotFound):
            fs.stat("/x")
    memory.put("x", b"theirs")
    later(fs)
    fs.sync("/")  # has nothing to say
    assert (read(fs, "/x"), caplog.messages) == (b"theirs", [])


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_rename_replaces_what_another_client_put_under_the_name_of_a_file_unlinked_while_open(
    fs: Filesystem, memory: MemoryStore, is_asked_for: bool
) -> None:
    write(fs, "/x", b"old")
    write(fs, "/new", b"new")
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", HIDDEN)
    if is_asked_for:
        with pytest.raises(NotFound):
            fs.stat("/x")
    memory.put("x", b"theirs")
    fs.rename("/new", "/x")
    later(fs)
    assert memory.bodies == {"x": b"new"}


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


def test_who_looks_for_a_name_being_deleted_waits_and_finds_it_absent(
    mount: Mount, memory: MemoryStore
) -> None:
    memory.put("x", b"1")
    store = FailingStore(memory)
    fs = mount(store)
    deleting, may_delete = threading.Event(), threading.Event()

    def on_call(method: str) -> None:
        if method == "delete":
            deleting.set()
            may_delete.wait(10)

    store.on_call = on_call
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    unlinking = threading.Thread(target=fs.rename, args=("/x", HIDDEN))
    unlinking.start()
    unlinking.join()
    # Python is done with it before the system is, and as long as it runs, a rename may follow.
    wait_until(lambda: not Path(f"/proc/self/task/{unlinking.native_id}").exists())
    thread_ids: list[int] = []

    def look() -> None:
        thread_ids.append(threading.get_native_id())
        with pytest.raises(NotFound):
            fs.stat("/x")

    with ThreadPoolExecutor(2) as threads:
        gone = threads.submit(later, fs)
        try:
            assert deleting.wait(10)
            looked = threads.submit(look)
            wait_until(lambda: bool(thread_ids) and is_blocked(thread_ids[0]))
            assert not looked.done()
        finally:
            may_delete.set()
        looked.result(10)
        gone.result(10)
    fs.handles.release(handle)


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


def test_rename_over_an_open_file_never_leaves_the_name_empty(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"old")
    write(fs, "/new", b"new")
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    fs.rename("/x", HIDDEN)
    assert memory.bodies["x"] == b"old"
    fs.rename("/new", "/x")
    later(fs)
    assert memory.bodies == {"x": b"new"}
    assert (read_handle(fs, handle), read(fs, "/x")) == (b"old", b"new")


def test_directory_stays_when_its_last_file_goes(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("a/b/x", b"")
    entries(fs, "/a/b")
    fs.unlink("/a/b/x")
    assert tree(fs) == ["/a", "/a/b"]
    fs.rmdir("/a/b")
    assert tree(fs) == ["/a"]
    fs.rmdir("/a")
    assert (tree(fs), memory.bodies) == ([], {})


def test_directory_whose_marker_is_refused_after_a_deletion_behind_is_named_until_there_is_one(
    mount: Mount, memory: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = FailingStore(memory)
    fs = mount(store, write_back=WriteBack(files=9, buffered_bytes=0))
    memory.put("a/b/x", b"")
    entries(fs, "/a/b")
    store.fail_method("put_blob", Unavailable("away"))
    fs.unlink("/a/b/x")
    later(fs)
    assert memory.bodies == {}
    assert "/a/b is empty, and no marker could be made to keep it: away" in caplog.text
    with pytest.raises(Unavailable):
        fs.sync("/")
    directory = fs.directories.open("/a/b")
    with pytest.raises(Unavailable):
        fs.sync_directory(directory)
    assert [(left.path, left.reason, left.has_failed) for left in fs.uncommitted()] == [
        ("/a/b", "empty, and no marker keeps it: away", True)
    ]
    with pytest.raises(NotFound):
        fs.unlink("/a/b/x")
    store.heal()
    fs.sync_directory(directory)
    assert list(fs.uncommitted()) == []
    assert memory.bodies == {"a/b": b""}


def test_directory_that_could_not_be_kept_and_was_removed_stays_removed(
    mount: Mount, memory: MemoryStore
) -> None:
    store = FailingStore(memory)
    fs = mount(store, write_back=WriteBack(files=9, buffered_bytes=0))
    memory.put("a/x", b"")
    assert tree(fs) == ["/a", "/a/x"]
    store.fail_method("put_blob", Unavailable("away"))
    fs.unlink("/a/x")
    later(fs)
    store.heal()
    fs.rmdir("/a")
    fs.sync("/")
    assert (list(fs.uncommitted()), memory.bodies) == ([], {})


def test_directory_stays_when_its_last_file_moves_out(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("a/x", b"1")
    fs.rename("/a/x", "/x")
    assert tree(fs) == ["/a", "/x"]
    assert memory.head("a").metadata["hdi_isfolder"] == "true"


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


def test_beyond_a_number_of_deletions_that_wait_unlink_deletes_itself(
    mount: Mount, memory: MemoryStore
) -> None:
    fs = mount(write_back=WriteBack(files=2, buffered_bytes=0))
    for name in "xyz":
        memory.put(name, BODY)
        fs.unlink(f"/{name}")
    assert list(memory.bodies) == ["x", "y"]
    assert [file.path for file in fs.uncommitted()] == ["/x", "/y"]
    fs.sync("/")
    assert (memory.bodies, list(fs.uncommitted())) == ({}, [])


def test_removal_of_the_wrong_kind_is_refused(fs: Filesystem) -> None:
    write(fs, "/x", b"")
    fs.mkdir("/d", 0o755, CALLER)
    with pytest.raises(NotADirectory):
        fs.rmdir("/x")
    with pytest.raises(IsADirectory):
        fs.unlink("/d")
    with pytest.raises(NotFound):
        fs.rmdir("/none")


# Renames


def test_renamed_file_keeps_bytes_attributes_and_number(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", BODY)
    fs.chmod("/x", 0o600)
    fs.set_times("/x", 5, 7)
    before = fs.stat("/x")
    memory.requests.clear()
    fs.rename("/x", "/y")
    assert memory.requests == {"PUT copy": 1, "DELETE blob": 1}
    after = fs.stat("/y")
    assert (after.inode, after.size_bytes, after.attributes.mode) == (
        before.inode,
        len(BODY),
        before.attributes.mode,
    )
    assert (after.attributes.mtime_ns, after.attributes.atime_ns) == (7, 5)
    assert memory.bodies == {"y": BODY}


def test_rename_replaces_a_file(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"new")
    write(fs, "/y", b"old")
    with pytest.raises(AlreadyExists):
        fs.rename("/x", "/y", replace_target=False)
    fs.rename("/x", "/y")
    assert (entries(fs, "/"), memory.bodies) == (["y"], {"y": b"new"})


def test_rename_of_the_wrong_kind_is_refused(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"")
    fs.mkdir("/d", 0o755, CALLER)
    fs.mkdir("/d/e", 0o755, CALLER)
    with pytest.raises(IsADirectory):
        fs.rename("/x", "/d")
    with pytest.raises(NotADirectory):
        fs.rename("/d", "/x")
    with pytest.raises(DirectoryNotEmpty):
        fs.rename("/d/e", "/d")
    with pytest.raises(InvalidArgument):
        fs.rename("/d", "/d/e/f")
    with pytest.raises(NotFound):
        fs.rename("/none", "/y")
    assert list(memory.bodies) == ["d", "d/e", "x"]


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


def test_open_handle_follows_a_rename(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"old")
    handle = fs.handles.open("/x", os.O_RDWR).handle
    fs.handles.write(handle, 3, memoryview(b" and new"))
    fs.rename("/x", "/y")
    fs.handles.write(handle, 0, memoryview(b"O"))
    close(fs, handle)
    assert memory.bodies == {"y": b"Old and new"}


def test_rename_of_what_was_never_committed_costs_nothing(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("y", b"old")
    fs.stat("/y")
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"new"))
    memory.requests.clear()
    fs.rename("/x", "/y")
    assert memory.requests == {}
    close(fs, handle)
    assert (memory.requests, memory.bodies) == ({"PUT blob": 1}, {"y": b"new"})


def unsent_over_committed(fs: Filesystem) -> int:
    """Have a file under /y that is to replace what the service has there."""
    write(fs, "/y", b"old")
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"newer"))
    fs.rename("/x", "/y")
    return handle


def test_blob_that_an_unsent_file_replaces_is_replaced_by_the_next_one_too(
    fs: Filesystem, memory: MemoryStore
) -> None:
    first = unsent_over_committed(fs)
    second = create(fs, "/x")
    fs.handles.write(second, 0, memoryview(b"newest"))
    fs.rename("/y", HIDDEN)  # as libfuse does with open files
    fs.rename("/x", "/y")
    for handle in (first, second):
        close(fs, handle)
    later(fs)
    assert memory.bodies == {"y": b"newest"}


def test_file_replaced_by_the_next_one_before_it_was_sent_leaves_no_conflict(
    memory: MemoryStore, mount: Mount
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    write(fs, "/y", b"old")
    store.fail_method("put_blob", Unavailable("no service"))
    for body in (b"newer", b"newest"):
        handle = create(fs, "/x")
        fs.handles.write(handle, 0, memoryview(body))
        fs.rename("/x", "/y")
        with pytest.raises(Unavailable):
            fs.handles.flush(handle)
        fs.handles.release(handle)
    store.heal()
    later(fs)
    assert (memory.bodies, list(fs.commits.uncommitted())) == ({"y": b"newest"}, [])


@pytest.mark.parametrize("is_open", [True, False])
def test_name_of_an_unsent_file_takes_the_blob_that_it_replaces_along_when_it_goes(
    fs: Filesystem, memory: MemoryStore, is_open: bool
) -> None:
    handle = unsent_over_committed(fs)
    if is_open:
        fs.rename("/y", HIDDEN)
    else:
        fs.unlink("/y")
    close(fs, handle)
    later(fs)
    assert memory.bodies == {}


def test_unsent_file_that_moves_on_leaves_no_blob_that_it_was_to_replace(
    fs: Filesystem, memory: MemoryStore
) -> None:
    handle = unsent_over_committed(fs)
    fs.rename("/y", "/z")
    close(fs, handle)
    assert memory.bodies == {"z": b"newer"}


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
    fs.volume.lost.note("/x", "removed, but that could not be carried out")
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


@pytest.mark.parametrize("kind", ["fs", "behind"])
def test_sync_of_an_open_directory_sends_a_closed_temporary_file_and_none_that_is_open(
    kind: str, request: pytest.FixtureRequest, memory: MemoryStore
) -> None:
    fs: Filesystem = request.getfixturevalue(kind)
    for path in ("/d", "/d/e"):
        fs.mkdir(path, 0o755, CALLER)
    for path in ("/d/.x.Ab12Cd", "/d/e/.x.Ab12Cd"):
        write(fs, path, b"bytes")
    handle = create(fs, "/d/open")
    directory = fs.directories.open("/d")
    fs.sync_directory(directory)
    assert memory.bodies == {"d": b"", "d/e": b"", "d/.x.Ab12Cd": b"bytes"}
    close(fs, handle)


def a_tree(fs: Filesystem, memory: MemoryStore) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    fs.mkdir("/d/empty", 0o700, CALLER)
    for number in range(3):
        write(fs, f"/d/{number}", BODY + b"%d" % number)
    memory.put("d/virtual/x", b"deep")


def test_renamed_directory_takes_all_along(fs: Filesystem, memory: MemoryStore, clock: ManualClock) -> None:
    a_tree(fs, memory)
    handle = fs.handles.open("/d/0", os.O_RDWR).handle
    fs.handles.write(handle, 0, memoryview(b"!"))
    before = {name.replace("d", "e", 1): body for name, body in memory.bodies.items()}
    fs.rename("/d", "/e")
    for _ in range(2):
        assert tree(fs) == ["/e", "/e/0", "/e/1", "/e/2", "/e/empty", "/e/virtual", "/e/virtual/x"]
        clock.advance(1)
    assert memory.bodies == {**before, "e/0": b"!" + BODY[1:] + b"0"}
    assert stat.S_IMODE(fs.stat("/e/empty").attributes.mode) == 0o700
    fs.handles.write(handle, 1, memoryview(b"!"))
    close(fs, handle)
    assert memory.bodies["e/0"][:3] == b"!!2"


def test_file_is_read_on_while_its_directory_is_renamed(
    fs: Filesystem, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(1 << 20)
    memory.put("d/x", body)
    handle = fs.handles.open("/d/x", os.O_RDONLY).handle
    target, delete = bytearray(9), memory.delete
    with ThreadPoolExecutor(1) as threads:

        def delete_slowly(*of: object) -> None:
            delete(*of)  # type: ignore[arg-type]
            monkeypatch.undo()
            reading = threads.submit(fs.handles.read_into, handle, 1 << 19, memoryview(target))
            readings.append(reading)
            wait([reading], timeout=0.2)

        readings: list[Future[int]] = []
        monkeypatch.setattr(memory, "delete", delete_slowly)
        fs.rename("/d", "/e")
        assert [reading.result(10) for reading in readings] == [9]
    assert target == body[1 << 19 :][:9]


def test_directory_is_renamed_over_an_empty_one_only(fs: Filesystem, memory: MemoryStore) -> None:
    a_tree(fs, memory)
    fs.mkdir("/e", 0o755, CALLER)
    write(fs, "/e/x", b"")
    with pytest.raises(DirectoryNotEmpty):
        fs.rename("/d", "/e")
    fs.unlink("/e/x")
    fs.rename("/d", "/e")
    assert "/e/virtual/x" in tree(fs)
    assert entries(fs, "/") == ["e"]


def test_virtual_directory_keeps_its_attributes_over_an_empty_one(
    mount: Mount, memory: MemoryStore, fs: Filesystem
) -> None:
    memory.put("virtual/x", b"theirs")
    fs.mkdir("/e", 0o700, CALLER)
    fs.set_xattr("/e", "of", b"the replaced one")
    mode = fs.stat("/virtual").attributes.mode
    fs.rename("/virtual", "/e")
    for seen in (fs, mount(memory)):
        assert tree(seen) == ["/e", "/e/x"]
        attributes = seen.stat("/e").attributes
        assert (attributes.mode, attributes.xattrs) == (mode, {})


def renaming(mount: Mount, *, onto_empty: bool) -> tuple[Filesystem, FailingStore, MemoryStore]:
    memory = MemoryStore()
    store = FailingStore(memory)
    fs = mount(store)
    a_tree(fs, memory)
    if onto_empty:
        fs.mkdir("/e", 0o755, CALLER)
    store.heal()
    return fs, store, memory


def count_rename_calls(mount: Mount, *, onto_empty: bool) -> int:
    fs, store, _ = renaming(mount, onto_empty=onto_empty)
    fs.rename("/d", "/e")
    return len(store.calls)


@pytest.mark.parametrize("onto_empty", [False, True])
def test_directory_rename_that_fails_at_any_request_loses_nothing(
    mount: Mount, clock: ManualClock, onto_empty: bool
) -> None:
    for number in range(count_rename_calls(mount, onto_empty=onto_empty)):
        fs, store, memory = renaming(mount, onto_empty=onto_empty)
        before, names = memory.bodies, tree(mount(memory))
        store.fail_call(number, Unavailable("no service"))
        with pytest.raises(Unavailable):
            fs.rename("/d", "/e")
        was_complete = store.calls[number] == "delete"
        store.heal()
        clock.advance(1)
        if was_complete:
            assert tree(mount(memory), "/e") == [
                "/e/0",
                "/e/1",
                "/e/2",
                "/e/empty",
                "/e/virtual",
                "/e/virtual/x",
            ]
            assert {memory.bodies[name] for name in memory.bodies if name.startswith("e/")} == set(
                before.values()
            )
        else:
            assert (memory.bodies, tree(mount(memory))) == (before, names)
        assert tree(fs) == tree(mount(memory))


def test_open_file_follows_a_directory_rename_that_could_not_delete_all(
    mount: Mount, memory: MemoryStore
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    write(fs, "/d/a", b"a")
    write(fs, "/d/b", b"b")
    handles = {name: fs.handles.open(f"/d/{name}", os.O_RDWR).handle for name in "ab"}
    store.heal()
    fs.rename("/d", "/e")
    deletes = [number for number, method in enumerate(store.calls) if method == "delete"]
    store.fail_call(deletes[0], Unavailable("no service"))
    with pytest.raises(Unavailable):
        fs.rename("/e", "/f")
    store.heal()
    for handle in handles.values():
        fs.handles.write(handle, 1, memoryview(b"!"))
        close(fs, handle)
    assert sorted(name for name, body in memory.bodies.items() if body.endswith(b"!")) == ["e/b", "f/a"]


def test_file_rename_that_fails_at_any_request_loses_nothing(mount: Mount) -> None:
    for number in range(2):
        memory = MemoryStore()
        store = FailingStore(memory)
        fs = mount(store)
        write(fs, "/x", b"new")
        write(fs, "/y", b"old")
        store.fail_call(number, Unavailable("no service"))
        with pytest.raises(Unavailable):
            fs.rename("/x", "/y")
        assert memory.bodies["x"] == b"new"
        assert memory.bodies["y"] in (b"old", b"new")


# Attributes and other kinds


def test_attributes_survive_a_remount(fs: Filesystem, mount: Mount) -> None:
    write(fs, "/x", b"1")
    fs.mkdir("/d", 0o750, CALLER)
    fs.symlink("target/of it", "/link", CALLER)
    fs.mknod("/fifo", stat.S_IFIFO | 0o600, 0, CALLER)
    fs.mknod("/device", stat.S_IFCHR | 0o600, os.makedev(1, 3), CALLER)
    fs.chmod("/x", 0o4751)
    fs.chown("/x", 7, -1)
    fs.set_times("/x", 123_456_789, 987_654_321)
    fs.set_xattr("/x", "colour", b"dark\0blue")
    expected = {name: (found.attributes, found.size_bytes) for name, found in fs.directories.entries("/")}
    again = {name: (found.attributes, found.size_bytes) for name, found in mount().directories.entries("/")}
    del expected["d"], again["d"]
    assert again == expected
    assert again["x"][0].uid == 7
    assert mount().readlink("/link") == "target/of it"
    assert stat.S_IMODE(mount().stat("/d").attributes.mode) == 0o750


def test_change_of_attributes_survives_a_replaced_blob(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("x", b"old")
    fs.stat("/x")
    memory.put("x", b"new", {"theirs": "kept"})
    fs.chmod("/x", 0o600)
    assert stat.S_IMODE(fs.stat("/x").attributes.mode) == 0o600
    assert memory.head("x").metadata["theirs"] == "kept"
    assert fs.stat("/x").size_bytes == 3


def test_virtual_directory_gets_a_marker_when_its_attributes_are_set(
    fs: Filesystem, memory: MemoryStore
) -> None:
    memory.put("d/x", b"")
    assert fs.stat("/d").attributes.mode == DEFAULTS.directory_mode
    fs.chmod("/d", 0o700)
    assert stat.S_IMODE(fs.stat("/d").attributes.mode) == 0o700
    assert memory.head("d").metadata["hdi_isfolder"] == "true"
    assert entries(fs, "/d") == ["x"]


def test_set_gid_directory_hands_its_group_down(fs: Filesystem) -> None:
    fs.mkdir("/d", 0o2755, CALLER)
    fs.chown("/d", -1, 42)
    write(fs, "/d/x", b"")
    fs.mkdir("/d/e", 0o755, CALLER)
    assert fs.stat("/d/x").attributes.gid == fs.stat("/d/e").attributes.gid == 42
    assert fs.stat("/d/e").attributes.mode & stat.S_ISGID


def test_names_that_cannot_be_shown_are_reported(fs: Filesystem, memory: MemoryStore) -> None:
    for name in ("d/good", "d//x", "d/new\nline", "d/both", "d/both/x"):
        memory.put(name, b"1")
    assert entries(fs, "/d") == ["both", "good"]
    assert set(fs.hidden("/d")) == {"d//", "d/new\nline", "d/both"}
    assert entries(fs, "/d/both") == ["x"]


def test_listing_of_an_open_directory_stays_as_it_was_until_read_again(fs: Filesystem) -> None:
    write(fs, "/a", b"")
    handle = fs.directories.open("/")
    first = [name for name, _ in fs.directories.read(handle, restart=True)]
    write(fs, "/b", b"")
    assert [name for name, _ in fs.directories.read(handle, restart=False)] == first == [".", "..", "a"]
    assert len(fs.directories.read(handle, restart=True)) == 4
    fs.directories.close(handle)
    with pytest.raises(BadHandle):
        fs.directories.read(handle, restart=False)


# Threads


def test_many_threads_work_in_one_directory_at_once(memory: MemoryStore, clock: ManualClock) -> None:
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(30)
        for step in range(15):
            path = f"/d/{number}-{step}"
            write_new(fs, path, BODY * 3)
            assert read(fs, path) == BODY * 3
            fs.rename(path, path + "-renamed")
            if step % 3 == 0:
                fs.unlink(path + "-renamed")
            entries(fs, "/d")

    with machine(memory, block_bytes=BLOCK) as parts:
        fs = filesystem_of(parts, clock)
        fs.mkdir("/d", 0o755, CALLER)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        assert len(entries(fs, "/d")) == 8 * 10
        assert parts.pool.in_use_bytes <= parts.pool.budget_bytes
    assert len(memory.bodies) == 1 + 8 * 10


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


@pytest.mark.parametrize(
    ("target", "meanwhile", "outcome", "left"),
    [
        (None, lambda memory: memory.delete("x", ALWAYS), NotFound, {}),
        (b"old", lambda memory: memory.delete("x", ALWAYS), None, {"y": b"first"}),
        (None, lambda memory: memory.put("x", b"second"), None, {"y": b"second"}),
        (b"old", lambda memory: memory.put("x", b"second"), None, {"y": b"second"}),
    ],
)
def test_rename_of_a_file_that_another_client_takes_or_writes_meanwhile(
    mount: Mount,
    memory: MemoryStore,
    target: bytes | None,
    meanwhile: Callable[[MemoryStore], object],
    outcome: type[Failure] | None,
    left: dict[str, bytes],
) -> None:
    memory.put("x", b"first")
    if target is not None:
        memory.put("y", target)
    store = FailingStore(memory)
    fs = mount(store)
    others = [meanwhile]

    def on_call(method: str) -> None:
        if method == "delete" and others:
            others.pop()(memory)

    store.on_call = on_call
    with pytest.raises(outcome) if outcome else nullcontext():
        fs.rename("/x", "/y")
    assert memory.bodies == left


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


def test_name_can_be_taken_from_a_file_that_only_an_older_version_s_handles_hold(
    fs: Filesystem, memory: MemoryStore
) -> None:
    memory.put("x", b"old")
    older = fs.handles.open("/x", os.O_RDONLY).handle
    memory.put("x", b"new")
    opened_and_closed(fs, "/x")
    fs.volume.files._closed.clear()  # time passes
    fs.rename("/x", HIDDEN)
    later(fs)
    assert memory.bodies == {}
    fs.handles.release(older)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_EXCL])
def test_name_can_be_made_again_while_a_file_that_lost_it_is_open(
    fs: Filesystem, memory: MemoryStore, flags: int
) -> None:
    lost = create(fs, "/x")
    fs.handles.write(lost, 0, memoryview(b"mine"))
    memory.put("x", b"theirs")
    with pytest.raises(AlreadyExists):
        fs.handles.fsync(lost)
    memory.delete("x", ALWAYS)
    again = create(fs, "/x", flags)
    fs.handles.write(again, 0, memoryview(b"again"))
    close(fs, again)
    assert memory.bodies == {"x": b"again"}
    fs.handles.release(lost)


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


def test_one_of_many_renames_onto_a_name_wins_and_nothing_is_mixed(
    memory: MemoryStore, clock: ManualClock
) -> None:
    def rename(number: int) -> str:
        try:
            fs.rename(f"/{number}", "/target")
        except Failure as failure:
            return type(failure).__name__
        return ""

    with machine(memory, block_bytes=BLOCK) as parts:
        fs = filesystem_of(parts, clock)
        for number in range(8):
            write_new(fs, f"/{number}", b"%d" % number * 20)
        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(rename, range(8)))
    left = dict(memory.bodies)
    target = left.pop("target")
    assert target in {b"%d" % number * 20 for number in range(8)}
    assert set(left) == {str(number) for number in range(8) if outcomes[number]}


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


def no_room(_size_bytes: int) -> Buffer:
    raise NoSpace("no room in the temporary directory")


def test_removal_of_a_file_that_waits_for_its_commit_needs_no_disk(
    behind: Filesystem, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(behind, "/x", b"mine")
    monkeypatch.setattr("blobfs.content.draft.disk_buffer", no_room)
    behind.unlink("/x")
    later(behind)
    assert (entries(behind, "/"), memory.bodies) == ([], {})


def test_rename_over_a_file_that_waits_for_its_commit_needs_no_disk(
    behind: Filesystem, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(behind, "/x", b"one")
    write(behind, "/y", b"two")
    monkeypatch.setattr("blobfs.content.draft.disk_buffer", no_room)
    behind.rename("/y", "/x")
    behind.sync("/")
    assert memory.bodies == {"x": b"two"}


def test_name_that_another_client_was_first_to_make_can_be_removed_by_who_has_his_own_open(
    fs: Filesystem, memory: MemoryStore
) -> None:
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"mine"))
    memory.put("x", b"theirs")
    with pytest.raises(AlreadyExists):
        fs.handles.fsync(handle)
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


def test_link_that_was_replaced_elsewhere_leads_to_its_new_target(mount: Mount) -> None:
    here, there = mount(), mount()
    there.symlink("one", "/link", CALLER)
    here.stat("/link")
    there.unlink("/link")
    there.symlink("two", "/link", CALLER)
    assert here.readlink("/link") == "two"


def test_directory_replaces_an_empty_one_where_both_have_markers_in_the_old_style(
    fs: Filesystem, memory: MemoryStore
) -> None:
    for name in ("a/", "b/", "a/x"):
        memory.put(name, b"")
    fs.rename("/a", "/b")
    assert sorted(memory.bodies) == ["b/", "b/x"]


def test_hidden_name_follows_its_directory(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("d/x", b"old")
    memory.put("d/y", b"1")
    handle = fs.handles.open("/d/x", os.O_RDONLY).handle
    fs.rename("/d/x", f"/d{HIDDEN}")
    later(fs)
    fs.rename("/d", "/e")
    assert fs.stat(f"/e{HIDDEN}").size_bytes == 3
    fs.unlink(f"/e{HIDDEN}")
    assert read_handle(fs, handle) == b"old"
    fs.handles.release(handle)
    with pytest.raises(Changed):
        fs.stat(f"/e{HIDDEN}")
    assert memory.bodies == {"e/y": b"1"}


@pytest.fixture
def unkept(
    memory: MemoryStore, clock: ManualClock, tmp_path: Path
) -> Iterator[tuple[Filesystem, FailingStore]]:
    """A mount that writes back, whose directory /d has lost its last file when no marker could be made."""
    store, spool = FailingStore(memory), Spool(tmp_path / "spool", "account", "container", "")
    with closing(spool), machine(store, block_bytes=BLOCK, inline=True) as parts:
        limits = WriteBack(files=10, buffered_bytes=1 << 20)
        fs = filesystem_of(replace(parts, make_journal=spool.journal), clock, write_back=limits)
        memory.put("d/x", b"old")
        entries(fs, "/d")
        store.fail_method("put_blob", Unavailable("away"))
        fs.unlink("/d/x")
        later(fs)
        yield fs, store


def test_directory_without_a_marker_can_be_removed_and_stays_so(
    unkept: tuple[Filesystem, FailingStore], memory: MemoryStore
) -> None:
    fs, store = unkept
    fs.rmdir("/d")
    store.heal()
    fs.sync("/")
    assert (memory.bodies, list(fs.uncommitted())) == ({}, [])


def test_directory_that_could_get_no_marker_is_named_as_long_as_it_needs_one(
    unkept: tuple[Filesystem, FailingStore],
) -> None:
    fs, store = unkept
    assert [found.path for found in fs.uncommitted()] == ["/d"]
    store.heal()
    write(fs, "/d/y", b"new")
    fs.commits.commit_all(list(fs.volume.files))
    assert list(fs.uncommitted()) == []


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
