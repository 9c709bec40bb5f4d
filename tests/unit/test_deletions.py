"""Blobs that go behind their names, and who waits for that."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FailingStore, ManualClock, MemoryStore, filesystem_of, machine
from syscalls import (
    BLOCK,
    BODY,
    HIDDEN,
    Mount,
    entries,
    later,
    read,
    read_handle,
    replace_after_unlink,
    tree,
    write,
    write_new,
)
from waiting import wait_until

from blobfs.errors import AccessDenied, Incomplete, NotFound, Unavailable
from blobfs.filesystem.commits import WriteBack
from blobfs.filesystem.deletions import MOST_GRACES
from blobfs.filesystem.filesystem import Filesystem
from blobfs.spool.directory import Spool
from blobfs.tree.cache import Node


def is_blocked(thread_id: int) -> bool:
    """Tell whether a thread of this process waits for something (proc(5): syscall)."""
    return not Path(f"/proc/self/task/{thread_id}/syscall").read_text().startswith("running")


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
    replace_after_unlink(fs, memory, is_asked_for=is_asked_for)
    later(fs)
    fs.sync("/")  # has nothing to say
    assert (read(fs, "/x"), caplog.messages) == (b"theirs", [])


def test_open_file_that_another_client_replaced_just_before_is_removed_all_the_same(
    fs: Filesystem, memory: MemoryStore
) -> None:
    write(fs, "/x", b"old")
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    memory.put("x", b"theirs")
    fs.rename("/x", HIDDEN)
    later(fs)
    assert memory.bodies == {}
    assert read_handle(fs, handle) == b"old"  # as far as it was read before


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
    later(fs)
    store.heal()
    fs.rmdir("/a")
    fs.sync("/")
    assert (list(fs.uncommitted()), memory.bodies) == ([], {})


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


def removing(mount: Mount, store: FailingStore, memory: MemoryStore) -> Filesystem:
    """Return a mount that writes back, on which five files were removed together."""
    for number in range(5):
        memory.put(f"d/{number}", BODY)
    fs = mount(store, write_back=WriteBack(files=10, buffered_bytes=0))
    for entry in entries(fs, "/d"):
        fs.unlink(f"/d/{entry}")
    assert len(memory.bodies) == 5
    store.heal()
    return fs


@pytest.mark.parametrize("is_asked", [False, True])
def test_blobs_whose_names_were_removed_together_go_together(
    mount: Mount, store: FailingStore, memory: MemoryStore, is_asked: bool
) -> None:
    fs = removing(mount, store, memory)
    if is_asked:
        fs.sync("/")
    else:
        later(fs)
    assert list(memory.bodies) == ["d"]  # a marker
    assert store.calls.count("delete") + store.calls.count("delete_batch") < 5
    assert (entries(fs, "/"), entries(fs, "/d")) == (["d"], [])


def test_of_names_removed_together_only_what_failed_comes_back(
    mount: Mount, store: FailingStore, memory: MemoryStore
) -> None:
    fs = removing(mount, store, memory)
    memory.put("d/3", b"theirs")
    later(fs)
    later(fs)
    assert memory.bodies["d/3"] == b"theirs"
    assert entries(fs, "/d") == ["3"]
    assert [path for path, _ in fs.volume.lost_changes.below("/")] == ["/d/3"]


def test_names_removed_together_are_deleted_side_by_side_where_their_batch_fails(
    mount: Mount, store: FailingStore, memory: MemoryStore
) -> None:
    fs = removing(mount, store, memory)
    store.fail_method("delete_batch", Unavailable("no service"))
    later(fs)
    tasks = fs.volume.transfers.take_due()  # type: ignore[attr-defined]
    assert (len(tasks), len(memory.bodies)) == (5, 5)
    for task in tasks:
        task()
    assert list(memory.bodies) == ["d"]
    fs.sync("/")


def test_time_of_a_removal_behind_says_nothing_of_a_later_one(mount: Mount, memory: MemoryStore) -> None:
    memory.put("x", b"1")
    fs = mount(write_back=WriteBack(files=9, buffered_bytes=0))
    fs.unlink("/x")
    removal = fs.volume.transfers.take_due()  # type: ignore[attr-defined]
    write_new(fs, "/x", b"2")
    fs.handles.open("/x", os.O_RDONLY)
    fs.rename("/x", HIDDEN)
    for task in removal:
        task()
    assert memory.bodies == {"x": b"2"}


def test_nobody_waits_for_names_removed_together_of_which_one_met_a_bug(
    mount: Mount, store: FailingStore, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = removing(mount, store, memory)
    record, is_first = fs.volume.namespace.record, True

    def record_but_once(path: str, node: Node | None) -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            raise ValueError("a bug")
        record(path, node)

    monkeypatch.setattr(fs.volume.namespace, "record", record_but_once)
    with pytest.raises(ValueError, match="a bug"):
        later(fs)
    syncing = threading.Thread(target=fs.sync, args=("/",), daemon=True)
    syncing.start()
    syncing.join(10)
    assert not syncing.is_alive()
    assert (list(memory.bodies), list(fs.uncommitted())) == (["d"], [])


def test_removal_behind_is_refused_at_once_while_the_credential_shows_that_it_may_not_delete(
    mount: Mount, memory: MemoryStore
) -> None:
    fs = mount(write_back=WriteBack(files=9, buffered_bytes=0))
    memory.put("x", BODY)
    memory.may_delete = False
    with pytest.raises(AccessDenied):
        fs.unlink("/x")
    assert (entries(fs, "/"), list(fs.uncommitted())) == (["x"], [])
    fs.sync("/")


def test_removal_that_was_refused_later_is_named_with_its_cure_until_it_is_removed_again(
    mount: Mount, memory: MemoryStore
) -> None:
    fs = mount(write_back=WriteBack(files=9, buffered_bytes=0))
    memory.put("x", BODY)
    memory.may_delete = memory.shows_rights = False
    fs.unlink("/x")
    with pytest.raises(AccessDenied):
        fs.sync("/")
    memory.may_delete = True
    with pytest.raises(Incomplete, match="it is there again, to be removed again"):
        fs.sync("/")
    assert memory.bodies == {"x": BODY}
    fs.unlink("/x")
    fs.sync("/")
    assert (memory.bodies, list(fs.uncommitted())) == ({}, [])
