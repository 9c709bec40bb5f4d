import os
from collections.abc import Iterator

import pytest
from fakes import FailingStore, ManualClock, MemoryStore, filesystem_of, machine

from blobfs.callers import Callers
from blobfs.errors import NotFound
from blobfs.filesystem.early_opens import MOST_IN_VAIN, RETRIED
from blobfs.filesystem.filesystem import Filesystem
from blobfs.store import ALWAYS, Properties


class Caller(Callers):
    """A thread that is inside open(2), or not."""

    def __init__(self) -> None:
        super().__init__(lambda: self.thread, lambda: False)
        self.thread = 7
        self.is_opening = True

    def is_opening_to_read(self) -> bool:
        return self.is_opening


@pytest.fixture
def memory() -> MemoryStore:
    memory = MemoryStore()
    put(memory, b"old")
    return memory


def put(memory: MemoryStore, body: bytes, name: str = "f") -> None:
    memory.put_blob(name, body, Properties(), ALWAYS)


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
def fs(store: FailingStore, clock: ManualClock, caller: Caller) -> Iterator[Filesystem]:
    with machine(store, inline=True) as parts:
        yield filesystem_of(parts, clock, callers=caller)


def read(fs: Filesystem, path: str = "/f") -> bytes:
    handle = fs.handles.open(path, os.O_RDONLY).handle
    target = bytearray(100)
    count = fs.handles.read_into(handle, 0, memoryview(target))
    fs.handles.release(handle)
    return bytes(target[:count])


def look_for_missing(fs: Filesystem, clock: ManualClock, count: int) -> None:
    for number in range(count):
        clock.advance(2.0)
        with pytest.raises(NotFound):
            fs.stat(f"/missing{number}")


def test_first_bytes_are_asked_for_beside_the_lookup(fs: Filesystem, store: FailingStore) -> None:
    fs.stat("/f")
    assert sorted(store.calls) == ["list_page", "read_range"]
    assert read(fs) == b"old"
    assert len(store.calls) == 2


def test_file_known_from_earlier_is_asked_for_beside_its_lookup(
    fs: Filesystem, store: FailingStore, clock: ManualClock
) -> None:
    fs.stat("/f")
    read(fs)
    clock.advance(2.0)
    store.heal()
    fs.stat("/f")
    asked = len(store.calls)
    assert read(fs) == b"old"
    assert len(store.calls) == asked


def test_lookup_for_something_else_serves_no_open(
    fs: Filesystem, memory: MemoryStore, caller: Caller
) -> None:
    caller.is_opening = False
    fs.stat("/f")
    put(memory, b"new")
    assert read(fs) == b"new"


def test_lookup_of_one_thread_serves_no_open_of_another(
    fs: Filesystem, memory: MemoryStore, caller: Caller
) -> None:
    fs.stat("/f")
    put(memory, b"new")
    caller.thread += 1
    assert read(fs) == b"new"


def test_thread_that_looked_at_another_name_asks_anew(fs: Filesystem, memory: MemoryStore) -> None:
    put(memory, b"other", "g")
    fs.stat("/f")
    fs.stat("/g")
    put(memory, b"new")
    assert read(fs) == b"new"


def test_what_was_asked_of_one_file_serves_no_open_of_another(fs: Filesystem, memory: MemoryStore) -> None:
    put(memory, b"other", "g")
    fs.stat("/f")
    assert read(fs, "/g") == b"other"


def test_second_open_asks_anew(fs: Filesystem, memory: MemoryStore) -> None:
    fs.stat("/f")
    assert read(fs) == b"old"
    put(memory, b"new")
    assert read(fs) == b"new"


def test_what_this_mount_writes_meanwhile_is_seen(fs: Filesystem, caller: Caller) -> None:
    fs.stat("/f")
    caller.thread += 1
    handle = fs.handles.open("/f", os.O_WRONLY | os.O_TRUNC).handle
    fs.handles.write(handle, 0, memoryview(b"new"))
    fs.handles.flush(handle)
    fs.handles.release(handle)
    caller.thread -= 1
    assert read(fs) == b"new"


def test_nothing_is_asked_for_beside_what_is_known(fs: Filesystem, store: FailingStore) -> None:
    fs.stat("/f")
    store.heal()
    fs.stat("/f")
    assert store.calls == []


def test_asking_in_vain_becomes_rare(fs: Filesystem, store: FailingStore, clock: ManualClock) -> None:
    look_for_missing(fs, clock, 10 * RETRIED)
    assert MOST_IN_VAIN <= store.calls.count("read_range") <= MOST_IN_VAIN + 10


def test_file_that_is_opened_shows_that_asking_is_of_use(
    fs: Filesystem, store: FailingStore, clock: ManualClock
) -> None:
    look_for_missing(fs, clock, RETRIED - 1)
    clock.advance(2.0)
    fs.stat("/f")
    read(fs)
    store.heal()
    look_for_missing(fs, clock, 1)
    assert "read_range" in store.calls
