import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import FailingStore, ManualClock, MemoryStore, filesystem_of, machine

from blobfs.blocks import KiB
from blobfs.callers import Callers
from blobfs.errors import Changed, Unavailable
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.next_files import SKIPPED
from blobfs.store import ALWAYS, Properties

COUNT = 30
NAMES = [f"f{number:02}" for number in range(COUNT)]


class Caller(Callers):
    """A program of whatever name."""

    def __init__(self, program: str = "cp", thread: int = 7) -> None:
        super().__init__(lambda: self.thread, lambda: False)
        self.thread = thread
        self.name = program
        self.on_wait: Callable[[], None] = lambda: None

    def program(self) -> str:
        return self.name

    def wait_to_hear(self, tell: Callable[[Callable[[object], None]], object]) -> None:
        self.on_wait()
        super().wait_to_hear(tell)


@pytest.fixture
def memory() -> MemoryStore:
    memory = MemoryStore()
    for name in NAMES:
        put(memory, name, b"old")
    return memory


def put(memory: MemoryStore, name: str, body: bytes) -> None:
    memory.put_blob(f"d/{name}", body, Properties(), ALWAYS)


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
def fs(store: FailingStore, clock: ManualClock, caller: Caller) -> Iterator[Filesystem]:
    with machine(store, inline=True) as parts:
        fs = filesystem_of(parts, clock, callers=caller)
        fs.volume.namespace.entries("/d")
        store.heal()
        yield fs


def read(fs: Filesystem, name: str) -> bytes:
    handle = fs.handles.open(f"/d/{name}", os.O_RDONLY).handle
    target = bytearray(100)
    count = fs.handles.read_into(handle, 0, memoryview(target))
    fs.handles.release(handle)
    return bytes(target[:count])


def by_inode(fs: Filesystem) -> list[str]:
    return sorted(NAMES, key=lambda name: fs.volume.inodes.of(f"d/{name}"))


def requests(store: FailingStore) -> int:
    return len(store.calls)


@pytest.mark.parametrize("by_number", [False, True])
def test_files_ahead_of_a_copy_are_asked_for_before_they_are_opened(
    fs: Filesystem, store: FailingStore, by_number: bool
) -> None:
    order = by_inode(fs) if by_number else NAMES
    for name in order[:2]:
        read(fs, name)
    asked = requests(store)
    assert asked == 2 + 4
    assert read(fs, order[2]) == b"old"
    assert requests(store) == asked + 1


def test_each_file_is_asked_for_once(fs: Filesystem, store: FailingStore) -> None:
    assert [read(fs, name) for name in NAMES] == [b"old"] * COUNT
    assert store.calls == ["read_range"] * COUNT


def test_file_that_is_passed_over_does_not_end_the_walk(fs: Filesystem, store: FailingStore) -> None:
    for name in NAMES[::SKIPPED]:
        read(fs, name)
    store.heal()
    read(fs, NAMES[COUNT - 1])
    assert requests(store) == 0


def fetched_bytes_ahead(fs: Filesystem, memory: MemoryStore, opened: list[str]) -> int:
    """Return how much of the file after those is here when they have been read."""
    info = memory.head(f"d/{NAMES[NAMES.index(opened[-1]) + 1]}")
    for name in opened:
        read(fs, name)
    return fs.volume.warming.cached_bytes(info)


def test_who_opens_every_file_has_the_next_ones_fetched_whole(
    memory: MemoryStore, clock: ManualClock, caller: Caller
) -> None:
    for name in NAMES:
        put(memory, name, bytes(100 * KiB))
    with machine(memory, inline=True, budget_bytes=4096 * KiB, fragment_bytes=KiB) as parts:
        fs = filesystem_of(parts, clock, callers=caller)
        fs.volume.namespace.entries("/d")
        assert fetched_bytes_ahead(fs, memory, NAMES[:3]) == 100 * KiB
        assert fetched_bytes_ahead(fs, memory, NAMES[10:20:2]) == 64 * KiB


@pytest.mark.parametrize(("program", "thread"), [("python3", 7), ("mv", 7), ("", 7), ("cp", 0)])
def test_other_programs_see_what_another_node_closed_before_they_open(
    fs: Filesystem, memory: MemoryStore, caller: Caller, program: str, thread: int
) -> None:
    caller.name, caller.thread = program, thread
    for number, name in enumerate(NAMES):
        body = f"new {number}".encode()
        put(memory, name, body)
        assert read(fs, name) == body


def test_programs_that_open_one_file_each_are_no_walk(
    fs: Filesystem, memory: MemoryStore, caller: Caller
) -> None:
    for number, name in enumerate(NAMES):
        caller.thread = 1 + number
        put(memory, name, b"new")
        assert read(fs, name) == b"new"


def test_answer_that_is_too_old_is_not_used(fs: Filesystem, memory: MemoryStore, clock: ManualClock) -> None:
    for name in NAMES[:3]:
        read(fs, name)
    put(memory, NAMES[3], b"new")
    clock.advance(1.0)
    assert read(fs, NAMES[3]) == b"new"


def test_what_this_mount_writes_meanwhile_is_seen(fs: Filesystem) -> None:
    for name in NAMES[:3]:
        read(fs, name)
    handle = fs.handles.open(f"/d/{NAMES[3]}", os.O_WRONLY | os.O_TRUNC).handle
    fs.handles.write(handle, 0, memoryview(b"new"))
    fs.handles.flush(handle)
    fs.handles.release(handle)
    assert read(fs, NAMES[3]) == b"new"


def test_file_that_could_not_be_asked_for_ahead_is_asked_for_again(
    fs: Filesystem, store: FailingStore
) -> None:
    read(fs, NAMES[0])
    store.fail_method("read_range", Unavailable("away"))
    with pytest.raises(Unavailable):
        read(fs, NAMES[1])
    store.heal()
    assert read(fs, NAMES[2]) == b"old"


def test_file_that_is_gone_is_reported(fs: Filesystem, memory: MemoryStore) -> None:
    read(fs, NAMES[0])
    memory.delete(f"d/{NAMES[2]}", ALWAYS)
    read(fs, NAMES[1])
    with pytest.raises(Changed):
        read(fs, NAMES[2])


def test_link_that_is_being_asked_for_ahead_is_not_asked_for_twice(
    memory: MemoryStore, clock: ManualClock, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = f"d/{NAMES[2]}"
    memory.put_blob(link, b"target", Properties({"is_symlink": "true"}), ALWAYS)
    has_begun, may_end = threading.Event(), threading.Event()
    read_range = memory.read_range
    calls: list[str] = []

    def slow_read_range(name: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if name == link and calls.count(link) == 1:
            has_begun.set()
            may_end.wait()
        return read_range(name, *args, **kwargs)

    monkeypatch.setattr(memory, "read_range", slow_read_range)
    caller.on_wait = may_end.set
    with machine(memory) as parts:
        fs = filesystem_of(parts, clock, callers=caller)
        fs.volume.namespace.entries("/d")
        for name in NAMES[:2]:
            read(fs, name)
        try:
            has_begun.wait()
            assert fs.readlink(f"/{link}") == "target"
            assert calls.count(link) == 1
        finally:
            may_end.set()


@pytest.fixture
def copied(fs: Filesystem, store: FailingStore, clock: ManualClock, caller: Caller) -> Filesystem:
    """A filesystem of which another thread has read all files some time ago, and listed them a moment ago."""
    for name in NAMES:
        read(fs, name)
    caller.thread += 1
    clock.advance(10.0)
    fs.volume.namespace.entries("/d")
    clock.advance(0.125)
    store.heal()
    return fs


def test_copy_of_what_is_at_hand_is_told_by_one_listing(copied: Filesystem, store: FailingStore) -> None:
    assert [read(copied, name) for name in NAMES] == [b"old"] * COUNT
    assert store.calls == ["read_range", "list_page"]


def test_listing_is_asked_for_again_before_it_is_too_old(
    copied: Filesystem, store: FailingStore, clock: ManualClock
) -> None:
    for name in NAMES[:20]:
        read(copied, name)
        clock.advance(0.125)
    # Half of a second each, from the second file on.
    assert store.calls == ["read_range", *["list_page"] * 5]


def test_listing_that_tells_of_nothing_at_hand_is_not_asked_for_again(
    fs: Filesystem, store: FailingStore, clock: ManualClock
) -> None:
    for name in NAMES[:8]:
        read(fs, name)
        clock.advance(0.125)
    assert "list_page" not in store.calls


def test_listing_from_before_a_copy_began_is_not_believed(copied: Filesystem, memory: MemoryStore) -> None:
    for name in NAMES:
        put(memory, name, b"new")
    assert [read(copied, name) for name in NAMES] == [b"new"] * COUNT


def test_listing_from_before_a_pause_is_not_believed(
    copied: Filesystem, memory: MemoryStore, clock: ManualClock
) -> None:
    for name in NAMES[:20]:
        read(copied, name)
    for name in NAMES:
        put(memory, name, b"new")
    clock.advance(1.0)  # the number of the thread may be another one's by now
    assert [read(copied, name) for name in NAMES[20:]] == [b"new"] * 10


def test_listing_that_the_copy_itself_has_asked_for_is_believed(
    copied: Filesystem, store: FailingStore, clock: ManualClock
) -> None:
    for name in NAMES[:2]:
        read(copied, name)
    clock.advance(0.75)
    copied.volume.namespace.list_again("d/")
    store.heal()
    for name in NAMES[2:]:
        read(copied, name)
    assert store.calls == []


@pytest.mark.parametrize("program", ["python3", "mv", ""])
def test_others_are_not_told_by_listings(
    copied: Filesystem, store: FailingStore, caller: Caller, program: str
) -> None:
    caller.name = program
    for name in NAMES:
        read(copied, name)
    assert store.calls == ["read_range"] * COUNT


def test_what_this_mount_writes_is_not_told_by_an_older_listing(copied: Filesystem) -> None:
    for name in NAMES[:4]:
        read(copied, name)
    for name in NAMES[4:]:
        handle = copied.handles.open(f"/d/{name}", os.O_WRONLY | os.O_TRUNC).handle
        copied.handles.write(handle, 0, memoryview(b"new"))
        copied.handles.flush(handle)
        copied.handles.release(handle)
        assert read(copied, name) == b"new"


def test_file_that_another_client_has_removed_is_gone(copied: Filesystem, memory: MemoryStore) -> None:
    memory.delete(f"d/{NAMES[5]}", ALWAYS)
    for name in NAMES[:5]:
        read(copied, name)
    with pytest.raises(Changed):
        read(copied, NAMES[5])


def test_listing_that_fails_is_not_asked_for_again(copied: Filesystem, store: FailingStore) -> None:
    store.fail_method("list_page", Unavailable("away"))
    assert [read(copied, name) for name in NAMES] == [b"old"] * COUNT
    assert store.calls.count("list_page") == 1
    assert store.calls.count("read_range") == COUNT


def test_directory_that_takes_several_listings_is_not_listed(
    copied: Filesystem, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobfs.tree.namespace.SMALL_DIRECTORY", COUNT - 1)
    assert [read(copied, name) for name in NAMES] == [b"old"] * COUNT
    assert store.calls.count("list_page") == 1
    assert store.calls.count("read_range") == COUNT
