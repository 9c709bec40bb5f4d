import logging
from collections.abc import Mapping

import pytest
from fakes import NOBODY, InlineTransfers, ManualClock, MemoryStore

from blobfs.blocks import MAX_LIST_RESULTS
from blobfs.errors import NameTooLong, NotADirectory, NotFound
from blobfs.format.names import NameMap
from blobfs.store import ALWAYS, ListPage
from blobfs.tree.cache import ENTRY_BYTES, Node, TreeCache, Walk
from blobfs.tree.namespace import NEIGHBOURS, SMALL_DIRECTORY, Lookup, Namespace

MARKER = {"hdi_isfolder": "true"}
COPYING = Lookup(believe_absence=lambda: True, may_search=True)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def namespace(store: MemoryStore, clock: ManualClock, prefix: str = "") -> Namespace:
    cache = TreeCache(ttl_seconds=1.0, capacity_bytes=10 << 20, now=clock)
    return Namespace(store, cache, NameMap(prefix, 1024), InlineTransfers(), NOBODY)


@pytest.fixture
def names(store: MemoryStore, clock: ManualClock) -> Namespace:
    return namespace(store, clock)


def kinds(nodes: Mapping[str, Node]) -> dict[str, str]:
    return {entry: "directory" if node.is_directory else "file" for entry, node in nodes.items()}


def test_directory_is_a_prefix_or_a_marker_or_both(store: MemoryStore, names: Namespace) -> None:
    store.put("virtual/x", b"")
    store.put("marked", b"", MARKER)
    store.put("both", b"", MARKER)
    store.put("both/x", b"")
    store.put("old style/", b"")
    store.put("file", b"1")
    assert kinds(names.entries("/")) == {
        "virtual": "directory",
        "marked": "directory",
        "both": "directory",
        "old style": "directory",
        "file": "file",
    }
    assert names.node("/both").blob == store.head("both")
    assert names.node("/virtual").blob is None
    assert names.entries("/marked") == names.entries("/old style") == {}


def test_listing_answers_for_every_name_of_its_directory(store: MemoryStore, names: Namespace) -> None:
    for number in range(50):
        store.put(f"d/{number}", b"")
    names.entries("/d")
    for number in range(50):
        assert names.node(f"/d/{number}").blob is not None
    assert store.requests == {"LIST": 1}


def test_first_look_at_a_name_lists_its_small_directory(store: MemoryStore, names: Namespace) -> None:
    store.put("d/x", b"")
    store.put("d/y", b"")
    assert names.find("/d/x") is not None
    assert names.find("/d/y") is not None
    assert store.requests == {"LIST": 1}


def test_name_that_another_node_just_made_is_found(store: MemoryStore, names: Namespace) -> None:
    store.put("d/x", b"")
    assert names.find("/d/new") is None
    store.put("d/new", b"")
    assert names.find("/d/new") is not None


def look_for_new_names(names: Namespace, directories: int, looks: int = 3) -> None:
    for directory in range(directories):
        for look in range(looks):
            path = f"/tree/d{directory:02}/new{look}"
            assert names.find(path, COPYING) is None


def test_who_looks_for_new_names_in_one_directory_after_the_other_is_answered_by_one_listing(
    store: MemoryStore, names: Namespace
) -> None:
    for directory in range(50):
        store.put(f"tree/d{directory:02}", b"", MARKER)
    store.put("tree/d40/old", b"")
    names.entries("/tree")
    store.requests.clear()
    look_for_new_names(names, 50)
    assert store.requests["LIST"] < 10
    assert names.node("/tree/d40/old").blob == store.head("tree/d40/old")


def test_who_comes_to_few_directories_a_second_has_each_listed_by_itself(
    store: MemoryStore, clock: ManualClock, names: Namespace
) -> None:
    for directory in range(50):
        store.put(f"tree/d{directory:02}", b"", MARKER)
    names.entries("/tree")
    store.requests.clear()
    for directory in range(50):
        clock.advance(0.2)
        assert names.find(f"/tree/d{directory:02}/new", COPYING) is None
    assert store.requests["LIST"] == 50


def test_who_looks_for_new_names_behind_many_others_has_one_page_of_them_read_in_vain(
    store: MemoryStore, names: Namespace
) -> None:
    for number in range(3 * MAX_LIST_RESULTS):
        store.put(f"tree/a/{number}", b"")
    for directory in range(50):
        store.put(f"tree/d{directory:02}", b"", MARKER)
    names.entries("/tree")
    store.requests.clear()
    look_for_new_names(names, 50)
    assert store.requests["LIST"] == 50 + 1


def test_who_looks_for_new_names_takes_nothing_from_a_walk_through_the_same_tree(
    store: MemoryStore, names: Namespace
) -> None:
    walked = [f"/tree/a{number:02}" for number in range(20)]
    for path in walked:
        for number in range(1000):
            store.put(f"{path[1:]}/{number:03}", b"")
    for directory in range(50):
        store.put(f"tree/d{directory:02}", b"", MARKER)
    names.entries("/tree")
    for path in walked[:3]:
        names.entries(path)
    look_for_new_names(names, 50)
    store.requests.clear()
    assert all(len(names.entries(path)) == 1000 for path in walked[3:])
    assert store.requests["LIST"] <= 5


def test_listing_for_a_search_is_shown_to_others_no_longer_than_their_own_would_be(
    store: MemoryStore, clock: ManualClock, names: Namespace
) -> None:
    for directory in range(50):
        store.put(f"tree/d{directory:02}", b"", MARKER)
    names.entries("/tree")
    look_for_new_names(names, 10)
    store.put("tree/d40/new", b"by another node")
    clock.advance(0.9)
    assert names.entries("/tree/d41") == {}
    assert names.find("/tree/other/new", COPYING) is None  # it goes on
    clock.advance(0.2)
    assert set(names.entries("/tree/d40")) == {"new"}


def test_nobody_else_is_told_by_that_listing_that_a_name_is_absent(
    store: MemoryStore, names: Namespace
) -> None:
    for directory in range(50):
        store.put(f"tree/d{directory:02}", b"", MARKER)
    names.entries("/tree")
    look_for_new_names(names, 10)
    store.put("tree/d49/new0", b"by another node")
    assert names.node("/tree/d49/new0").blob == store.head("tree/d49/new0")


def test_page_that_waited_for_a_walk_tells_of_absent_names_no_longer_than_a_listing_would(
    store: MemoryStore, clock: ManualClock
) -> None:
    cache = TreeCache(ttl_seconds=1.0, capacity_bytes=10 << 20, now=clock)
    asked_at = cache.now()
    clock.advance(0.6)
    cache.offer_listing("d/", {"old": Node(store.put("d/old", b""))}, asked_at, Walk(cache.now()))
    assert cache.lookup("d/", "new").is_known
    clock.advance(0.6)
    assert not cache.lookup("d/", "new").is_known
    assert cache.lookup("d/", "old").is_known


def test_file_is_asked_for_again_when_its_time_is_over(
    store: MemoryStore, names: Namespace, clock: ManualClock
) -> None:
    store.put("x", b"1")
    names.node("/x")
    new = store.put("x", b"2")
    clock.advance(1)
    assert names.node("/x").blob == new
    store.delete("x", ALWAYS)
    clock.advance(1)
    with pytest.raises(NotFound):
        names.node("/x")


def test_file_that_became_a_directory_is_one(
    store: MemoryStore, names: Namespace, clock: ManualClock
) -> None:
    store.put("x", b"1")
    names.node("/x")
    store.delete("x", ALWAYS)
    store.put("x/y", b"")
    clock.advance(1)
    assert names.node("/x").is_directory


def test_large_directory_is_not_listed_for_one_name(store: MemoryStore, names: Namespace) -> None:
    for number in range(SMALL_DIRECTORY + 1):
        store.put(f"d/{number:05}", b"")
    store.put("d/z/below", b"")
    assert names.find("/d/00007") is not None
    store.requests.clear()
    assert names.find("/d/00008") is not None
    assert names.find("/d/none") is None
    assert names.node("/d/z").is_directory
    assert store.requests == {"LIST": 3}


class Measured(MemoryStore):
    """Keeps how many names each listing asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.page_sizes: list[int] = []

    def list_page(
        self, prefix: str, *, delimiter: str = "", marker: str = "", max_results: int = 5000
    ) -> ListPage:
        """List, and take note."""
        self.page_sizes.append(max_results)
        return super().list_page(prefix, delimiter=delimiter, marker=marker, max_results=max_results)


def test_directory_for_which_memory_has_no_room_is_not_listed_for_each_name(clock: ManualClock) -> None:
    store = Measured()
    cache = TreeCache(ttl_seconds=1.0, capacity_bytes=10 * ENTRY_BYTES, now=clock)
    names = Namespace(store, cache, NameMap("", 1024), InlineTransfers(), NOBODY)
    for number in range(100):
        store.put(f"d/{number:03}", b"")
    for number in range(100):
        assert names.find(f"/d/{number:03}") is not None
    assert store.page_sizes == [SMALL_DIRECTORY, *[NEIGHBOURS] * 99]


def test_name_with_many_neighbours_is_found_as_a_directory_too(store: MemoryStore, names: Namespace) -> None:
    for number in range(SMALL_DIRECTORY + 1):
        store.put(f"d/z{number:05}", b"")
    for number in range(40):
        store.put(f"d/z-{number}", b"")
    store.put("d/z/below", b"")
    assert names.node("/d/z").is_directory
    assert names.find("/d/z-") is None


def test_directory_of_many_pages_is_listed_whole(store: MemoryStore, names: Namespace) -> None:
    for number in range(5100):
        store.put(f"d/{number}", b"")
    store.put("d/10", b"", MARKER)
    store.put("d/10/below", b"")
    nodes = names.entries("/d")
    assert len(nodes) == 5100
    assert nodes["10"].is_directory
    assert store.requests == {"LIST": 2}


def test_listing_a_file_or_nothing_is_refused(store: MemoryStore, names: Namespace) -> None:
    store.put("x", b"")
    with pytest.raises(NotADirectory):
        names.entries("/x")
    with pytest.raises(NotFound):
        names.entries("/y")
    assert names.entries("/") == {"x": Node(store.head("x"))}


def test_empty_container_has_an_empty_root(names: Namespace) -> None:
    assert names.entries("/") == {}
    assert names.node("/").is_directory


def test_name_longer_than_the_service_takes_is_refused(names: Namespace) -> None:
    with pytest.raises(NameTooLong):
        names.find("/" + "/".join(["d" * 250] * 5))


def test_blob_under_the_name_of_a_directory_is_reported_and_not_shown(
    store: MemoryStore, names: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("a", b"bytes")
    store.put("a/b", b"")
    with caplog.at_level(logging.WARNING):
        assert kinds(names.entries("/")) == {"a": "directory"}
    assert names.node("/a").blob is None
    assert names.hidden("/") == {"a": "a directory has the same name"}
    assert "blob 'a' is not shown: a directory has the same name" in caplog.text


@pytest.mark.parametrize(
    "name", ["d//x", "d/./x", "d/../x", "d/new\nline", "d/back\\slash", f"d/{'n' * 256}"]
)
def test_blob_that_cannot_be_a_path_is_reported_and_does_not_spoil_the_listing(
    store: MemoryStore, names: Namespace, name: str
) -> None:
    store.put("d/good", b"")
    store.put(name, b"")
    assert kinds(names.entries("/d")) == {"good": "file"}
    (reported,) = names.hidden("/d")
    assert name.startswith(reported)


def test_each_hidden_blob_is_logged_once(
    store: MemoryStore, names: Namespace, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("d/new\nline", b"")
    for _ in range(3):
        names.entries("/d")
        clock.advance(1)
    assert len(caplog.records) == 1


def test_mount_of_a_prefix_shows_that_subtree_only(store: MemoryStore, clock: ManualClock) -> None:
    names = namespace(store, clock, "sub/tree/")
    store.put("sub/tree/x", b"")
    store.put("sub/tree/d/y", b"")
    store.put("sub/tree2", b"")
    store.put("other", b"")
    assert kinds(names.entries("/")) == {"x": "file", "d": "directory"}
    assert names.node("/d/y").blob == store.head("sub/tree/d/y")
    assert names.find("/other") is None


def test_emptiness_is_asked_of_the_service_and_not_of_the_cache(store: MemoryStore, names: Namespace) -> None:
    store.put("d", b"", MARKER)
    store.put("d/", b"")
    assert names.entries("/d") == {}
    assert names.below("/d") == (store.head("d/"), False)
    store.put("d/x/y", b"")
    assert names.entries("/d") == {}
    assert names.below("/d") == (store.head("d/"), True)
    assert [blob.name for blob in names.descendants("/d")] == ["d/", "d/x/y"]
