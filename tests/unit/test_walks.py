"""Recursive walks: what they ask of the service, and how old what they see may be."""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from fakes import (
    CALLER,
    NOBODY,
    FailingStore,
    InlineTransfers,
    ManualClock,
    MemoryStore,
    filesystem_of,
    machine,
)
from hypothesis import given
from hypothesis import strategies as st

from blobfs.callers import Callers
from blobfs.errors import NotFound, Unavailable
from blobfs.filesystem.filesystem import Filesystem
from blobfs.format.names import NameMap
from blobfs.store import ALWAYS, BlobStore, ListPage
from blobfs.transfers import Transfers
from blobfs.tree.cache import ENTRY_BYTES, WALK_SECONDS, Node, TreeCache
from blobfs.tree.namespace import Namespace

MARKER = {"hdi_isfolder": "true"}
DIRECTORIES = [f"/d{number:03}" for number in range(200)]

components = st.sampled_from(["a", "a-", "a.txt", "b", "é", "z"])
names = st.lists(components, min_size=1, max_size=4).map("/".join)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    for directory in DIRECTORIES:
        for number in range(50):
            store.put(f"{directory[1:]}/{number}", b"")
    return store


@pytest.fixture
def filesystem(store: MemoryStore, clock: ManualClock) -> Iterator[Filesystem]:
    with machine(store) as parts:
        yield filesystem_of(parts, clock)


class BusyTransfers(InlineTransfers):
    """Does not get to any work."""

    def submit_read(self, *_task: object, **_options: object) -> "Future[Any]":
        return Future()


def namespace(
    store: BlobStore,
    clock: ManualClock,
    *,
    entries: int = 100_000,
    prefix: str = "",
    transfers: Transfers | None = None,
    callers: Callers = NOBODY,
) -> Namespace:
    cache = TreeCache(ttl_seconds=1.0, capacity_bytes=entries * ENTRY_BYTES, now=clock)
    return Namespace(store, cache, NameMap(prefix, 1024), transfers or InlineTransfers(), callers)


def walk(names: Namespace, path: str = "/") -> Iterator[tuple[str, dict[str, Node]]]:
    """Yield a directory's entries, then those of each directory below, as find does."""
    entries = names.entries(path)
    yield path, entries
    for entry, node in entries.items():
        if node.is_directory:
            yield from walk(names, f"{path.rstrip('/')}/{entry}")


def begin_walk(names: Namespace) -> None:
    """Walk far enough for the rest to be listed ahead."""
    for path in ("/", *DIRECTORIES[:2]):
        names.entries(path)


def test_walk_takes_a_request_for_5000_names(store: MemoryStore, clock: ManualClock) -> None:
    found = dict(walk(namespace(store, clock)))
    assert [len(found[directory]) for directory in DIRECTORIES] == [50] * 200
    assert store.requests == {"LIST": 2 + 10_000 // 5000}


def test_second_walk_takes_no_more_requests_than_the_first(store: MemoryStore, clock: ManualClock) -> None:
    names = namespace(store, clock)
    for _ in range(3):
        store.requests.clear()
        assert len(list(walk(names))) == 201
        assert store.requests == {"LIST": 4}
        clock.advance(1.0)


def test_one_directory_is_listed_alone(store: MemoryStore, clock: ManualClock) -> None:
    names = namespace(store, clock)
    names.entries("/")
    names.entries("/d005")
    clock.advance(1.0)
    names.entries("/d006")
    assert names.cache.listing("d007/") is None
    assert store.requests == {"LIST": 3}


def test_deep_tree_is_walked_by_few_requests(clock: ManualClock) -> None:
    store = MemoryStore()
    for number in range(1000):
        store.put(f"top/{number // 100}/{number // 10}/{number}", b"")
    found = dict(walk(namespace(store, clock, prefix="top/")))
    assert sum(map(len, found.values())) == 10 + 100 + 1000
    assert store.requests["LIST"] <= 6


@given(st.sets(names, max_size=30), st.sets(names, max_size=5), st.sets(names, max_size=3))
def test_walk_sees_what_listings_of_single_directories_show(
    files: set[str], markers: set[str], old_markers: set[str]
) -> None:
    store, clock = MemoryStore(), ManualClock()
    for name in files:
        store.put(name, b"1")
    for name in markers:
        store.put(name, b"", MARKER)
    for name in old_markers:
        store.put(f"{name}/", b"")
    for path, entries in walk(namespace(store, clock)):
        assert namespace(store, clock).entries(path) == entries


def test_change_of_another_client_is_seen_when_the_walk_has_taken_its_time(
    store: MemoryStore, clock: ManualClock
) -> None:
    names = namespace(store, clock)
    begin_walk(names)
    store.put("d090/new", b"")
    store.put("d091/new", b"")
    for _ in range(int(WALK_SECONDS / 0.5) - 1):
        clock.advance(0.5)
        names.entries("/d003")
    assert "new" not in names.entries("/d090")
    clock.advance(0.5)
    assert "new" in names.entries("/d091")


def test_change_of_another_client_is_seen_after_a_pause(store: MemoryStore, clock: ManualClock) -> None:
    names = namespace(store, clock)
    begin_walk(names)
    store.put("d090/new", b"")
    clock.advance(1.0)
    assert "new" in names.entries("/d090")


def test_directory_that_was_shown_to_the_walk_is_asked_for_again(
    store: MemoryStore, clock: ManualClock
) -> None:
    names = namespace(store, clock)
    begin_walk(names)
    names.entries("/d004")
    store.put("d004/new", b"")
    clock.advance(0.9)
    names.entries("/d005")
    clock.advance(0.1)
    assert "new" in names.entries("/d004")


def test_what_is_shown_to_a_walk_late_is_told_to_its_thread_and_to_nobody_else(
    store: MemoryStore, clock: ManualClock
) -> None:
    threads = [7]
    callers = Callers(lambda: threads[-1], lambda: False)
    names = namespace(store, clock, callers=callers)
    with callers.may_leave:
        begin_walk(names)
        old = names.cache.last_known("d090/", "7")
        store.put("d090/7", b"changed")
        store.delete("d090/8", ALWAYS)
        for _ in range(4):
            clock.advance(0.5)
            names.entries("/d003")
        store.requests.clear()
        assert names.entries("/d090")["7"] == old
        assert names.find("/d090/7") == old
        assert store.requests == {}
        threads.append(8)
        assert names.node("/d090/7").blob == store.head("d090/7")
        assert names.find("/d090/8") is None
        threads.append(7)
        assert names.node("/d090/7").blob == store.head("d090/7")


def test_thread_that_serves_no_call_is_not_asked_for(store: MemoryStore, clock: ManualClock) -> None:
    """libfuse has no context there."""

    def fail() -> int:
        raise AssertionError

    names = namespace(store, clock, callers=Callers(fail, lambda: False))
    assert len(names.entries("/d090")) == 50
    assert names.find("/d091/absent") is None


@pytest.mark.parametrize("seconds", [0.01, 0.1])
def test_walk_that_asks_for_each_name_takes_requests_for_flat_listings_only(
    store: MemoryStore, clock: ManualClock, seconds: float
) -> None:
    callers = Callers(lambda: 7, lambda: False)
    names = namespace(store, clock, callers=callers)
    with callers.may_leave:
        for path, entries in walk(names):
            for entry in entries:
                names.node(f"{path.rstrip('/')}/{entry}")
            clock.advance(seconds)
    assert store.requests["LIST"] <= 6 + 2 * 200 * seconds  # the first directory's, whenever a second is over


def test_changes_made_here_are_seen_by_the_walk_at_once(clock: ManualClock, filesystem: Filesystem) -> None:
    begin_walk(filesystem.volume.namespace)
    filesystem.unlink("/d010/7")
    filesystem.mkdir("/d010/new", 0o755, CALLER)
    filesystem.rename("/d011/7", "/d012/moved")
    filesystem.rename("/d013", "/d014/moved")
    clock.advance(0.9)

    def shown(path: str) -> set[str]:
        return {entry for entry, _ in filesystem.directories.entries(path)}

    assert {"7", "new"} & shown("/d010") == {"new"}
    assert "7" not in shown("/d011")
    assert "moved" in shown("/d012")
    assert "moved" in shown("/d014")
    assert len(shown("/d014/moved")) == 50
    with pytest.raises(NotFound):
        filesystem.directories.entries("/d013")


def test_slow_answer_of_the_service_is_no_pause(store: MemoryStore, clock: ManualClock) -> None:
    class SlowStore(MemoryStore):
        def list_page(self, prefix: str, **options: Any) -> ListPage:
            clock.advance(1.5)
            return store.list_page(prefix, **options)

    found = dict(walk(namespace(SlowStore(), clock, transfers=BusyTransfers())))
    assert len(found) == 201
    assert store.requests == {"LIST": 4}


def test_next_page_is_asked_for_while_the_walk_goes_through_one(
    store: MemoryStore, clock: ManualClock
) -> None:
    names = namespace(store, clock)
    begin_walk(names)
    assert store.requests == {"LIST": 3 + 1}
    store.put("d150/new", b"")
    clock.advance(0.5)
    assert len(names.entries("/d150")) == 50
    assert store.requests == {"LIST": 4}


def test_page_that_was_asked_for_too_early_is_asked_for_again(store: MemoryStore, clock: ManualClock) -> None:
    names = namespace(store, clock)
    begin_walk(names)
    store.put("d150/new", b"")
    for directory in DIRECTORIES[2:8]:
        names.entries(directory)
        clock.advance(0.5)
    assert "new" in names.entries("/d150")
    assert store.requests == {"LIST": 5}


def test_walk_that_goes_slowly_has_no_page_asked_for_ahead(store: MemoryStore, clock: ManualClock) -> None:
    counts = []
    for transfers in (BusyTransfers(), InlineTransfers()):
        names = namespace(store, clock, entries=2000, transfers=transfers)  # pages of 20 directories
        for directory in ("/", *DIRECTORIES):
            names.entries(directory)
            clock.advance(0.25)
        counts.append(store.requests.pop("LIST"))
    assert counts[1] == counts[0] + 1


def test_pages_are_asked_for_ahead_of_as_many_walks_as_memory_has_room_for(
    store: MemoryStore, clock: ManualClock
) -> None:
    for top in "abcd":
        for number in range(6000):
            store.put(f"{top}/{number // 50:03}/{number}", b"")
    names = namespace(
        store, clock, entries=40_000
    )  # of which half may be listed ahead, and half of that wait
    for top in "abcd":
        for path in (f"/{top}", f"/{top}/000", f"/{top}/001"):
            names.entries(path)
    assert store.requests == {"LIST": 4 * 3 + 2}


def test_page_that_could_not_be_asked_for_ahead_is_asked_for_again(
    store: MemoryStore, clock: ManualClock
) -> None:
    failing = FailingStore(store)
    names = namespace(failing, clock)
    for path in ("/", DIRECTORIES[0]):
        names.entries(path)
    failing.fail_call(1, Unavailable("away"))
    names.entries(DIRECTORIES[1])
    assert failing.calls == ["list_page"] * 2
    assert len(names.entries("/d150")) == 50


def test_slow_walk_lists_a_small_tree_again(store: MemoryStore, clock: ManualClock) -> None:
    for _ in walk(namespace(store, clock)):
        clock.advance(0.5)
    assert store.requests["LIST"] < len(DIRECTORIES) / 2


def test_name_forgotten_while_a_page_is_on_its_way_is_not_believed(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = namespace(store, clock)
    list_page = store.list_page

    def list_and_change(prefix: str, **options: str) -> object:
        page = list_page(prefix, **options)  # type: ignore[arg-type]
        if not options.get("delimiter"):
            store.delete("d050/7", ALWAYS)
            names.forget("/d050/7")
            monkeypatch.undo()
        return page

    monkeypatch.setattr(store, "list_page", list_and_change)
    begin_walk(names)
    assert "7" not in names.entries("/d050")


def test_walk_that_meets_a_large_directory_lists_the_others_alone(clock: ManualClock) -> None:
    store = MemoryStore()
    for number in range(2000):
        store.put(f"b/{number}", b"")
    for directory in "acde":
        store.put(f"{directory}/x", b"")
    names = namespace(store, clock, entries=200)
    for path in ("/", "/a", "/c", "/d", "/e"):
        assert names.entries(path)
    assert store.requests["LIST"] <= 5 + 4
    assert names.cache.listing("b/") is None


def test_directories_ahead_are_kept_within_the_bound(store: MemoryStore, clock: ManualClock) -> None:
    names = namespace(store, clock, entries=1000)
    found = dict(walk(names))
    assert len(found) == 201
    assert sum(map(len, found.values())) == 10_200
    assert store.requests["LIST"] < 60
