import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import FailingStore, MemoryStore

from blobfs.blocks import KiB, md5_digest, xxh3_digest
from blobfs.content.fetcher import Fetcher
from blobfs.content.layout import Check, Layout, uniform_layout
from blobfs.content.memory import BufferPool
from blobfs.content.range_cache import RangeCache
from blobfs.content.runs import Fetch, Run
from blobfs.errors import Abandoned, Changed, Unavailable
from blobfs.store import BlobInfo, BlobStore

BODY = bytes(range(22))  # five fragments of four bytes and one of two
STEP = 4


class Gate:
    """Lets the store's reads wait, and tells how many of them do."""

    def __init__(self, store: FailingStore) -> None:
        self.reached = threading.Semaphore(0)
        self.opened = threading.Event()
        store.on_call = self._pass

    def _pass(self, _method: str) -> None:
        self.reached.release()
        assert self.opened.wait(30)


@pytest.fixture
def info(memory: MemoryStore) -> BlobInfo:
    return memory.put("x", BODY)


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool(1024 * KiB)


@pytest.fixture
def cache(store: FailingStore, pool: BufferPool) -> RangeCache:
    return cache_of(store, pool)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def cache_of(
    store: BlobStore, pool: BufferPool, step: int = STEP, capacity_bytes: int = 100 * STEP
) -> RangeCache:
    fetcher = Fetcher(store, None, range_md5=False, attempts=3)
    return RangeCache(fetcher, pool, fragment_bytes=step, capacity_bytes=capacity_bytes, smallest_bytes=1)


def unchecked(info: BlobInfo) -> Layout:
    return uniform_layout(info.size_bytes, 1 << 20)


def run_of(cache: RangeCache, info: BlobInfo, index: int, run: int = 1) -> Run:
    step = cache.fragment_bytes
    return cache.run(info.version, unchecked(info), index * step, (index + run) * step, whole=False)


def fragment(cache: RangeCache, info: BlobInfo, index: int, run: int = 1) -> bytes:
    step = cache.fragment_bytes
    target = bytearray(step)
    return bytes(target[: run_of(cache, info, index, run).copy(index * step, memoryview(target))])


def prefetch(cache: RangeCache, info: BlobInfo) -> Fetch | None:
    return cache.prefetch(info.version, unchecked(info), range(info.size_bytes), whole=True)


def held(cache: RangeCache, info: BlobInfo, indexes: Iterable[int]) -> list[bool]:
    return [cache.holds(info.version, index * cache.fragment_bytes) for index in indexes]


def test_fragment_is_fetched_once(cache: RangeCache, info: BlobInfo, memory: MemoryStore) -> None:
    assert [fragment(cache, info, 1) for _ in range(3)] == [BODY[4:8]] * 3
    assert memory.requests == {"GET blob": 1}


def test_one_request_fetches_a_run(cache: RangeCache, info: BlobInfo, memory: MemoryStore) -> None:
    assert [fragment(cache, info, index, run=6 - index) for index in range(6)] == [
        BODY[start : start + STEP] for start in range(0, len(BODY), STEP)
    ]
    assert memory.requests == {"GET blob": 1}


def test_run_ends_before_what_is_here_already(cache: RangeCache, info: BlobInfo, memory: MemoryStore) -> None:
    fragment(cache, info, 2)
    kept = run_of(cache, info, 2)
    fragment(cache, info, 0, run=6)
    assert run_of(cache, info, 2) is kept
    assert held(cache, info, range(6)) == [True, True, True, False, False, False]
    assert memory.requests == {"GET blob": 2}


def test_many_threads_that_want_one_fragment_share_one_fetch(
    cache: RangeCache,
    info: BlobInfo,
    store: FailingStore,
    memory: MemoryStore,
    threads: ThreadPoolExecutor,
) -> None:
    gate = Gate(store)
    readers = [threads.submit(fragment, cache, info, 0, 6) for _ in range(16)]
    assert gate.reached.acquire(timeout=10)
    gate.opened.set()
    assert {reader.result(10) for reader in readers} == {BODY[:4]}
    assert memory.requests == {"GET blob": 1}


def test_threads_that_race_for_runs_of_different_lengths_all_get_their_fragment(
    memory: MemoryStore, pool: BufferPool, info: BlobInfo, threads: ThreadPoolExecutor
) -> None:
    for _ in range(500):
        cache = cache_of(memory, pool)
        racers = [threads.submit(fragment, cache, info, 0, run) for run in (1, 6, 2, 6)]
        assert {racer.result(10) for racer in racers} == {BODY[:4]}


def test_fetch_that_waits_in_a_queue_while_the_blob_gets_other_metadata_is_planned_anew(
    cache: RangeCache, info: BlobInfo, memory: MemoryStore
) -> None:
    assert prefetch(cache, info) is not None
    new = info._replace(etag=memory.set_metadata(info.version, {}))
    cache.rename(info.version, new.version)
    assert fragment(cache, new, 1) == BODY[4:8]
    with pytest.raises(Changed):
        fragment(cache, info, 1)


def test_reader_takes_over_a_fetch_that_waits_in_a_queue(
    cache: RangeCache, info: BlobInfo, memory: MemoryStore
) -> None:
    queued = prefetch(cache, info)
    assert queued is not None
    assert fragment(cache, info, 3) == BODY[12:16]
    cache.perform(queued)
    assert memory.requests == {"GET blob": 1}


def test_reader_fetches_anew_what_a_killed_process_was_fetching(
    cache: RangeCache, info: BlobInfo, store: FailingStore, threads: ThreadPoolExecutor
) -> None:
    begun, seen = threading.Event(), threading.Event()

    def abandon_the_first(_method: str) -> None:
        if not begun.is_set():
            begun.set()
            assert seen.wait(30)
            raise Abandoned("killed")

    store.on_call = abandon_the_first
    killed = threads.submit(fragment, cache, info, 0)
    assert begun.wait(10)
    reader = threads.submit(fragment, cache, info, 0)
    seen.set()
    assert reader.result(10) == BODY[:4]
    with pytest.raises(Abandoned):
        killed.result(10)


def test_reader_waits_for_a_fetch_that_is_under_way(
    cache: RangeCache, info: BlobInfo, store: FailingStore, memory: MemoryStore, threads: ThreadPoolExecutor
) -> None:
    gate = Gate(store)
    fetch = prefetch(cache, info)
    assert fetch is not None
    background = threads.submit(cache.perform, fetch)
    assert gate.reached.acquire(timeout=10)
    reader = threads.submit(fragment, cache, info, 5)
    gate.opened.set()
    assert reader.result(10) == BODY[20:]
    background.result(10)
    assert memory.requests == {"GET blob": 1}


def checked(info: BlobInfo) -> Layout:
    return Layout(info.size_bytes, (0,), (Check(0, len(BODY), xxh3_digest(memoryview(BODY))),))


def fetch_in_parts(cache: RangeCache, info: BlobInfo) -> Fetch:
    """Plan a fetch of all by requests of 8, 8 and 6 bytes."""
    layout = checked(info)
    fetch = cache.prefetch(info.version, layout, layout.unit(0), whole=True, part_bytes=2 * STEP)
    assert fetch is not None
    return fetch


def whole(cache: RangeCache, info: BlobInfo) -> bytes:
    run = cache.run(info.version, checked(info), 0, len(BODY), whole=True)
    return bytes(run.buffer.view[: len(run.span)])


def test_parts_of_a_unit_are_received_side_by_side_and_the_reader_takes_what_nobody_began(
    cache: RangeCache, info: BlobInfo, store: FailingStore, memory: MemoryStore, threads: ThreadPoolExecutor
) -> None:
    gate = Gate(store)
    fetch = fetch_in_parts(cache, info)
    begun = threads.submit(cache.perform, fetch)
    readers = [threads.submit(whole, cache, info) for _ in range(2)]
    assert all(gate.reached.acquire(timeout=10) for _ in range(3))
    assert not fetch.waiting
    gate.opened.set()
    assert [reader.result(10) for reader in readers] == [BODY] * 2
    begun.result(10)
    assert memory.requests == {"GET blob": 3}


def test_part_that_fails_fails_the_fetch_and_not_the_next(
    cache: RangeCache, info: BlobInfo, store: FailingStore
) -> None:
    fetch = fetch_in_parts(cache, info)
    store.fail_method("read_range", Unavailable("no service"))
    cache.perform(fetch)
    assert isinstance(fetch.failure, Unavailable)
    assert fetch.done.is_set()
    store.heal()
    assert whole(cache, info) == BODY


def test_reader_goes_on_if_another_one_that_fetched_a_part_was_killed(
    cache: RangeCache, info: BlobInfo, store: FailingStore, threads: ThreadPoolExecutor
) -> None:
    store.fail_method("read_range", Abandoned("killed"))
    fetch = fetch_in_parts(cache, info)
    killed = threads.submit(whole, cache, info)
    with pytest.raises(Abandoned):
        killed.result(10)
    store.heal()
    assert fetch.done.wait(10)
    assert whole(cache, info) == BODY


def test_nothing_is_prefetched_twice_or_beyond_the_end(cache: RangeCache, info: BlobInfo) -> None:
    fetch = prefetch(cache, info)
    assert fetch is not None
    assert fetch.run.span == range(len(BODY))
    assert prefetch(cache, info) is None


def test_nothing_is_prefetched_without_memory_to_spare(
    cache: RangeCache, info: BlobInfo, pool: BufferPool
) -> None:
    held = pool.take(pool.budget_bytes)
    assert prefetch(cache, info) is None
    assert held.size_bytes == pool.in_use_bytes


def test_failure_reaches_every_waiter_and_is_not_kept(
    cache: RangeCache, info: BlobInfo, store: FailingStore, threads: ThreadPoolExecutor
) -> None:
    gate = Gate(store)
    store.fail_method("read_range", Unavailable("no service"))
    readers = [threads.submit(fragment, cache, info, index % 6, 6) for index in range(12)]
    assert gate.reached.acquire(timeout=10)
    gate.opened.set()
    for reader in readers:
        with pytest.raises(Unavailable, match="no service"):
            reader.result(10)
    store.heal()
    assert [fragment(cache, info, index) for index in (0, 5)] == [BODY[:4], BODY[20:]]


def test_failure_of_a_prefetch_is_raised_by_the_reader_that_waited_for_it(
    cache: RangeCache, info: BlobInfo, store: FailingStore, threads: ThreadPoolExecutor
) -> None:
    gate = Gate(store)
    store.fail_call(0, Unavailable("no service"))
    fetch = prefetch(cache, info)
    assert fetch is not None
    background = threads.submit(cache.perform, fetch)
    assert gate.reached.acquire(timeout=10)
    gate.opened.set()
    assert background.result(10) is None
    assert fragment(cache, info, 0) == BODY[:4]


def test_replaced_blob_is_reported_and_its_old_bytes_stay_apart(
    cache: RangeCache, info: BlobInfo, memory: MemoryStore
) -> None:
    assert fragment(cache, info, 0) == BODY[:4]
    new = memory.put("x", b"other")
    with pytest.raises(Changed):
        fragment(cache, info, 1)
    assert fragment(cache, info, 0) == BODY[:4]
    assert fragment(cache, new, 0) == b"othe"


def test_blob_shorter_than_told_is_reported_as_changed(cache: RangeCache, info: BlobInfo) -> None:
    with pytest.raises(Changed, match="expected"):
        run_of(cache, info._replace(size_bytes=info.size_bytes + 10), 5, 9)
    assert not cache.holds(info.version, 20)


def test_bytes_added_are_not_fetched(cache: RangeCache, info: BlobInfo, memory: MemoryStore) -> None:
    buffer = cache.buffer_for(len(BODY))
    buffer.view[: len(BODY)] = BODY
    cache.add(info.version, buffer, len(BODY), is_verified=False)
    assert [fragment(cache, info, index) for index in (0, 5)] == [BODY[:4], BODY[20:]]
    assert memory.requests == {}


def test_unit_that_was_completed_stays_for_the_next_reader(
    cache: RangeCache, info: BlobInfo, memory: MemoryStore
) -> None:
    verified = Layout(len(BODY), (0,), (Check(0, len(BODY), md5_digest(BODY)),))
    fragment(cache, info, 0)
    runs = [cache.run(info.version, verified, offset, len(BODY), whole=True) for offset in (0, 9)]
    assert runs[0] is runs[1]
    assert memory.requests == {"GET blob": 2}


def test_bytes_follow_a_blob_to_its_new_name(cache: RangeCache, info: BlobInfo, memory: MemoryStore) -> None:
    fragment(cache, info, 1, run=5)
    renamed = memory.put("y", BODY)
    cache.rename(info.version, renamed.version)
    assert fragment(cache, renamed, 1) == BODY[4:8]
    assert not cache.holds(info.version, STEP)
    assert memory.requests == {"GET blob": 1}


def test_least_recently_read_fragments_go_first(
    store: FailingStore, pool: BufferPool, info: BlobInfo
) -> None:
    cache = cache_of(store, pool, capacity_bytes=2 * STEP)
    for index in (0, 1, 0, 2):
        fragment(cache, info, index)
    assert held(cache, info, range(3)) == [True, False, True]


def test_cache_gives_memory_up_to_who_needs_it(store: FailingStore, memory: MemoryStore) -> None:
    pool = BufferPool(256 * KiB)
    cache = cache_of(store, pool, 64 * KiB, 256 * KiB)
    info = memory.put("big", bytes(256 * KiB))
    for index in range(4):
        fragment(cache, info, index)
    assert pool.in_use_bytes == pool.budget_bytes
    assert pool.take(128 * KiB).size_bytes == 128 * KiB
    assert held(cache, info, range(4)) == [False, False, True, True]


def test_who_waits_for_memory_gets_that_of_a_fetch_as_soon_as_it_is_done(
    store: FailingStore, memory: MemoryStore, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobfs.content.memory.RECHECK_SECONDS", 60.0)
    pool = BufferPool(64 * KiB)
    cache = cache_of(store, pool, 64 * KiB, 64 * KiB)
    info = memory.put("big", bytes(64 * KiB))
    gate = Gate(store)
    reader = threads.submit(fragment, cache, info, 0)
    assert gate.reached.acquire(timeout=10)
    asked = threading.Event()
    pool.add_reclaimer(lambda _size_bytes: asked.set())
    waiting = threads.submit(pool.take, 64 * KiB)
    assert asked.wait(10)
    gate.opened.set()
    assert waiting.result(10).size_bytes == 64 * KiB
    reader.result(10)


def test_fragment_in_use_outlives_its_eviction(store: FailingStore, memory: MemoryStore) -> None:
    pool = BufferPool(128 * KiB)
    cache = cache_of(store, pool, 64 * KiB, 128 * KiB)
    info = memory.put("big", b"a" * (64 * KiB) + b"b" * (64 * KiB))
    used = run_of(cache, info, 0)
    fragment(cache, info, 1)
    pool.take(64 * KiB)
    assert not cache.holds(info.version)
    assert bytes(used.buffer.view) == b"a" * (64 * KiB)


def test_memory_of_a_long_run_is_given_up_at_once(store: FailingStore, memory: MemoryStore) -> None:
    pool = BufferPool(512 * KiB)
    cache = cache_of(store, pool, 64 * KiB, 512 * KiB)
    info = memory.put("big", bytes(512 * KiB))
    for index in (0, 4):
        fragment(cache, info, index, run=4)
    rounds = []
    pool.add_reclaimer(rounds.append)
    pool.take(64 * KiB)
    assert rounds == [64 * KiB]
    assert held(cache, info, (0, 3, 4, 7)) == [False, False, True, True]
