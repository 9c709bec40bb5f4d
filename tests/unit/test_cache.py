import pytest
from fakes import ManualClock

from blobfs.store import BlobInfo
from blobfs.tree.cache import ENTRY_BYTES, Belief, Node, TreeCache

ABSENT = Belief(None, is_known=True)
UNKNOWN = Belief(None, is_known=False)
DIRECTORY = Node(None, is_directory=True)


def file(etag: str = "1") -> Node:
    return Node(BlobInfo("x", etag, 1, 0))


def known(node: Node) -> Belief:
    return Belief(node, is_known=True)


@pytest.fixture
def cache(clock: ManualClock) -> TreeCache:
    return TreeCache(ttl_seconds=1.0, capacity_bytes=100 * ENTRY_BYTES, now=clock)


def test_name_is_believed_for_its_time(cache: TreeCache, clock: ManualClock) -> None:
    cache.record("d/", "x", file())
    assert cache.lookup("d/", "x") == known(file())
    clock.advance(0.9)
    assert cache.lookup("d/", "x") == known(file())
    clock.advance(0.1)
    assert cache.lookup("d/", "x") == UNKNOWN
    assert cache.last_known("d/", "x") == file()


def test_name_recorded_as_gone_is_absent_for_its_time(cache: TreeCache, clock: ManualClock) -> None:
    cache.record("d/", "x", None)
    assert cache.lookup("d/", "x") == ABSENT
    clock.advance(1)
    assert cache.lookup("d/", "x") == UNKNOWN


def test_listing_is_believed_from_its_end_on_however_long_it_took(
    cache: TreeCache, clock: ManualClock
) -> None:
    asked_at = cache.now()
    clock.advance(5)
    cache.record_listing("d/", {"x": file()}, asked_at)
    assert cache.listing("d/") == {"x": file()}
    clock.advance(1)
    assert cache.listing("d/") is None
    assert cache.lookup("d/", "x") == UNKNOWN


def test_name_missing_from_a_listing_was_absent_then(cache: TreeCache, clock: ManualClock) -> None:
    cache.record_listing("d/", {"x": file()}, cache.now())
    assert cache.lookup("d/", "y") == ABSENT
    clock.advance(1)
    assert cache.lookup("d/", "y") == UNKNOWN


def test_answer_older_than_a_change_made_here_is_not_believed(cache: TreeCache, clock: ManualClock) -> None:
    asked_at = cache.now()
    clock.advance(0.1)
    cache.record("d/", "removed", None)
    cache.record("d/", "made", file())
    assert cache.record_answer("d/", "removed", file(), asked_at) is None
    assert cache.record_answer("d/", "made", None, asked_at) == file()
    clock.advance(0.1)
    assert cache.record_answer("d/", "removed", file(), cache.now()) == file()


def test_new_directory_is_known_to_be_empty(cache: TreeCache) -> None:
    cache.record_empty("d/")
    assert cache.listing("d/") == {}
    assert cache.lookup("d/", "x") == ABSENT
    assert cache.is_known_empty("d/")


def test_change_made_here_is_not_undone_by_a_listing_asked_for_before(
    cache: TreeCache, clock: ManualClock
) -> None:
    asked_at = cache.now()
    clock.advance(0.1)
    cache.record("d/", "made", file())
    cache.record("d/", "removed", None)
    cache.record_listing("d/", {"removed": file(), "other": file()}, asked_at)
    assert cache.listing("d/") == {"made": file(), "other": file()}


def test_forgotten_name_makes_the_listing_incomplete(cache: TreeCache) -> None:
    cache.record_listing("d/", {"x": file(), "y": file()}, cache.now())
    cache.forget("d/", "x")
    assert cache.listing("d/") is None
    assert cache.lookup("d/", "x") == UNKNOWN
    assert cache.lookup("d/", "y") == known(file())


def test_forgotten_tree_is_forgotten_with_all_below(cache: TreeCache) -> None:
    for prefix in ("d/", "d/e/", "dx/"):
        cache.record_listing(prefix, {"x": file()}, cache.now())
    cache.forget_tree("d/")
    assert [cache.listing(prefix) for prefix in ("d/", "d/e/", "dx/")] == [None, None, {"x": file()}]


def test_directory_is_empty_when_all_it_had_was_removed_here(cache: TreeCache, clock: ManualClock) -> None:
    cache.record_listing("d/", {"x": file()}, cache.now())
    clock.advance(5)
    assert not cache.is_known_empty("d/")
    cache.record("d/", "x", None)
    assert cache.is_known_empty("d/")
    assert not cache.is_known_empty("never looked at/")


def test_subdirectories_are_counted_once_a_directory_was_listed(cache: TreeCache) -> None:
    cache.record("d/", "e", DIRECTORY)
    assert cache.count_subdirectories("d/") is None
    cache.record_listing("d/", {"e": DIRECTORY, "f": DIRECTORY, "x": file()}, cache.now())
    cache.record("d/", "f", None)
    assert cache.count_subdirectories("d/") == 1
    for entry in ("f", "f", "x"):
        cache.record("d/", entry, DIRECTORY)
    assert cache.count_subdirectories("d/") == 3
    cache.forget("d/", "e")
    cache.forget("d/", "never seen")
    assert cache.count_subdirectories("d/") == 2


def test_large_or_freshly_listed_directory_is_not_worth_listing(cache: TreeCache, clock: ManualClock) -> None:
    assert cache.is_worth_listing("d/")
    cache.record_listing("d/", {}, cache.now())
    assert not cache.is_worth_listing("d/")
    clock.advance(1)
    assert cache.is_worth_listing("d/")
    cache.mark_large("d/")
    assert not cache.is_worth_listing("d/")


def test_directories_used_least_recently_are_forgotten_first(clock: ManualClock) -> None:
    cache = TreeCache(ttl_seconds=1.0, capacity_bytes=6 * ENTRY_BYTES, now=clock)
    cache.record_listing("a/", {"x": file()}, cache.now())
    cache.record_listing("b/", {"x": file()}, cache.now())
    cache.listing("a/")
    cache.record_listing("c/", {"x": file(), "y": file()}, cache.now())
    assert [cache.listing(prefix) is not None for prefix in ("a/", "b/", "c/")] == [True, False, True]


def test_directory_larger_than_the_bound_is_not_kept(clock: ManualClock) -> None:
    cache = TreeCache(ttl_seconds=1.0, capacity_bytes=3 * ENTRY_BYTES, now=clock)
    cache.record_listing("d/", {f"{number}": file() for number in range(9)}, cache.now())
    assert cache.listing("d/") is None
    assert not cache.is_worth_listing("d/")
    for number in range(9):
        cache.record("d/", f"{number}", file())
        assert not cache.is_worth_listing("d/")
