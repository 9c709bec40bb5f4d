import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import FailingStore, Machine, MemoryStore, machine
from hypothesis import given
from hypothesis import strategies as st

from blobfs.content.streams import Stream
from blobfs.errors import Changed, Unavailable
from blobfs.store import BlobInfo

BODY = bytes(index * 7 % 256 for index in range(150))


@pytest.fixture
def parts(store: FailingStore) -> Iterator[Machine]:
    """Fragments of 4 bytes, blocks of 16, and 32 bytes in order make a sequential reader."""
    with machine(store, block_bytes=16, fragment_bytes=4, sequential_bytes=32) as parts:
        yield parts


@pytest.fixture
def info(memory: MemoryStore) -> BlobInfo:
    return memory.put("x", BODY)


def read(parts: Machine, info: BlobInfo, offset: int, length: int, stream: Stream) -> bytes:
    target = memoryview(bytearray(length))
    count = parts.reader.read_into(info, offset, target, stream)
    assert not any(target[count:])
    return bytes(target[:count])


def test_read_ends_with_the_blob(parts: Machine, info: BlobInfo) -> None:
    stream = Stream()
    assert read(parts, info, 140, 99, stream) == BODY[140:]
    assert read(parts, info, 150, 4, stream) == b""
    assert read(parts, info, 999, 4, stream) == b""


def test_empty_blob_costs_no_request(parts: Machine, memory: MemoryStore) -> None:
    assert read(parts, memory.put("empty", b""), 0, 4, Stream()) == b""
    assert memory.requests == {}


def test_random_reader_fetches_only_the_fragments_it_asks_for(
    parts: Machine, info: BlobInfo, memory: MemoryStore
) -> None:
    stream = Stream()
    for offset in (100, 20, 61):
        assert read(parts, info, offset, 5, stream) == BODY[offset : offset + 5]
    assert memory.requests == {"GET blob": 3}
    held = [index for index in range(38) if parts.cache.holds(info.version, 4 * index)]
    assert held == [5, 6, 15, 16, 25, 26]


def test_sequential_reader_has_the_next_blocks_fetched_ahead(
    parts: Machine, info: BlobInfo, memory: MemoryStore
) -> None:
    stream = Stream()
    data = b"".join(read(parts, info, offset, 8, stream) for offset in range(0, 152, 8))
    assert data == BODY
    # Three small reads, and from the fourth on whole blocks.
    assert memory.requests["GET blob"] <= 3 + 10


def test_reader_that_hops_by_long_stretches_fetches_only_those(
    store: FailingStore, memory: MemoryStore
) -> None:
    info = memory.put("x", BODY)
    with machine(store, block_bytes=16, fragment_bytes=4, mid_file_sequential_bytes=64) as parts:
        stream = Stream()
        for start in (104, 8, 60):
            for offset in range(start, start + 36, 4):
                assert read(parts, info, offset, 4, stream) == BODY[offset : offset + 4]
        held = [index for index in range(38) if parts.cache.holds(info.version, 4 * index)]
    assert held == [*range(2, 11), *range(15, 24), *range(26, 35)]


@given(st.lists(st.tuples(st.integers(0, 160), st.integers(1, 70)), max_size=30))
def test_any_reads_by_any_streams_give_the_blobs_bytes(reads: list[tuple[int, int]]) -> None:
    memory = MemoryStore()
    info = memory.put("x", BODY)
    streams = [Stream(), Stream()]
    with machine(memory, block_bytes=16, fragment_bytes=4, sequential_bytes=32) as parts:
        for number, (offset, length) in enumerate(reads):
            assert read(parts, info, offset, length, streams[number % 2]) == BODY[offset : offset + length]


def test_many_sequential_readers_of_one_blob_fetch_it_about_once(
    parts: Machine, info: BlobInfo, memory: MemoryStore
) -> None:
    def read_all(_: int) -> bytes:
        stream = Stream()
        return b"".join(read(parts, info, offset, 8, stream) for offset in range(0, 152, 8))

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(read_all, range(16))) == {BODY}
    fragments = -(-len(BODY) // 4)
    assert memory.requests["GET blob"] <= fragments


@pytest.mark.parametrize("readers", [2, 4, 8])
def test_readers_that_share_little_memory_fetch_nothing_twice(
    store: FailingStore, memory: MemoryStore, readers: int
) -> None:
    block_bytes, step, blocks = 65_536, 16_384, 20
    blobs = [memory.put(f"x{index}", bytes([index]) * block_bytes * blocks) for index in range(readers)]
    options = {"block_bytes": block_bytes, "fragment_bytes": step, "sequential_bytes": step}
    # Half of the budget is for the cache: two blocks for each reader.
    with machine(store, budget_bytes=4 * readers * block_bytes, inline=True, **options) as parts:
        streams = [Stream() for _ in blobs]
        for offset in range(0, block_bytes * blocks, step):
            for index, (blob, stream) in enumerate(zip(blobs, streams, strict=True)):
                assert read(parts, blob, offset, step, stream) == bytes([index]) * step
    assert memory.read_bytes == readers * blocks * block_bytes
    assert memory.requests["GET blob"] <= 2 * readers * blocks


def held_blocks(parts: Machine, info: BlobInfo) -> list[int]:
    """Return the numbers of the blocks of 16 bytes that begin in the cache."""
    return [number for number in range(info.size_bytes // 16) if parts.cache.holds(info.version, 16 * number)]


def test_reader_that_never_waits_has_one_block_fetched_ahead(memory: MemoryStore) -> None:
    info = memory.put("long", bytes(16 * 40))
    options = {"block_bytes": 16, "fragment_bytes": 4, "sequential_bytes": 4, "ahead_blocks": 8}
    with machine(memory, inline=True, **options) as parts:
        stream = Stream()
        for offset in range(0, 16 * 10, 4):
            read(parts, info, offset, 4, stream)
        assert held_blocks(parts, info) == list(range(11))


def test_two_that_read_where_the_other_has_stopped_have_the_next_block_fetched_ahead(
    memory: MemoryStore,
) -> None:
    # As the kernel asks for what two programs read of one file: only for pages that neither has had.
    info = memory.put("long", bytes(16 * 40))
    options = {"block_bytes": 16, "fragment_bytes": 4, "sequential_bytes": 4, "ahead_blocks": 8}
    with machine(memory, inline=True, **options) as parts:
        streams = [Stream(), Stream()]
        for start in range(0, 16 * 40, 80):
            assert start == 0 or parts.cache.holds(info.version, start)
            for offset in range(start, start + 80, 4):
                read(parts, info, offset, 4, streams[start // 80 % 2])
    assert memory.requests["GET blob"] <= 40 + 3


def test_reader_elsewhere_in_a_file_does_not_disturb_one_in_order(memory: MemoryStore) -> None:
    info = memory.put("long", bytes(16 * 40))
    options = {"block_bytes": 16, "fragment_bytes": 4, "sequential_bytes": 4, "ahead_blocks": 8}
    with machine(memory, inline=True, **options) as parts:
        streams = [Stream(), Stream()]
        for offset in range(0, 160, 4):
            read(parts, info, offset, 4, streams[0])
            read(parts, info, 632 - offset, 4, streams[1])
        assert streams[0].in_order_bytes == 160
        assert held_blocks(parts, info)[:11] == list(range(11))


def test_reader_that_waits_all_the_same_has_many_blocks_fetched_ahead(
    memory: MemoryStore, store: FailingStore
) -> None:
    info = memory.put("long", bytes(16 * 40))
    asked, answered = threading.Semaphore(0), threading.Event()

    def hold(_method: str) -> None:
        asked.release()
        assert answered.wait(30)

    options = {"block_bytes": 16, "fragment_bytes": 4, "sequential_bytes": 4, "ahead_blocks": 8}
    with machine(store, reads=16, **options) as parts, ThreadPoolExecutor(1) as threads:
        stream = Stream()
        for offset in range(0, 16, 4):
            read(parts, info, offset, 4, stream)
        store.on_call = hold
        waiting = threads.submit(lambda: [read(parts, info, at, 4, stream) for at in range(16, 64, 4)])
        try:
            assert all(asked.acquire(timeout=10) for _ in range(5))
        finally:
            answered.set()
        assert waiting.result(10) == [bytes(4)] * 12


def read_in_turns(parts: Machine, blobs: list[BlobInfo], streams: list[Stream], end: int) -> None:
    for offset in range(0, end, 4):
        for blob, stream in zip(blobs, streams, strict=True):
            assert read(parts, blob, offset, 4, stream) == BODY[offset : offset + 4]


@pytest.fixture
def crowd(memory: MemoryStore) -> list[BlobInfo]:
    """Twice as many blobs as there is memory for blocks, in the cache of `crowded`."""
    return [memory.put(f"x{number}", BODY) for number in range(8)]


@pytest.fixture
def crowded(store: FailingStore) -> Iterator[Machine]:
    options = {"block_bytes": 16, "fragment_bytes": 4, "sequential_bytes": 4}
    with machine(store, budget_bytes=16 * 65_536, capacity_bytes=4 * 16, inline=True, **options) as parts:
        yield parts


def test_readers_that_memory_has_no_block_for_fetch_little_that_they_do_not_read(
    crowded: Machine, crowd: list[BlobInfo], memory: MemoryStore
) -> None:
    read_in_turns(crowded, crowd, [Stream() for _ in crowd], end=144)
    wanted_bytes = len(crowd) * 144
    assert memory.read_bytes <= wanted_bytes * 1.3


def test_readers_in_turns_that_memory_has_no_block_for_have_the_next_portion_fetched_ahead(
    store: FailingStore, crowd: list[BlobInfo], memory: MemoryStore
) -> None:
    options = {"block_bytes": 64, "fragment_bytes": 4, "portion_bytes": 4, "sequential_bytes": 4}
    share_bytes = 12  # what is left, what is read and what is next
    capacity_bytes = len(crowd) * share_bytes
    with machine(store, capacity_bytes=capacity_bytes, inline=True, **options) as parts:
        streams = [Stream() for _ in crowd]
        read_in_turns(parts, crowd, streams, end=32)
        for blob, stream in zip(crowd, streams, strict=True):
            before = parts.cache.counts.totals()["misses"]
            assert read(parts, blob, 32, 4, stream) == BODY[32:36]
            assert parts.cache.counts.totals()["misses"] == before
    assert memory.read_bytes <= len(crowd) * (36 + 2 * share_bytes)


def test_reader_of_a_blob_without_checksums_begins_with_a_portion_and_the_next(
    store: FailingStore, memory: MemoryStore
) -> None:
    info = memory.put("x", BODY)
    options = {"block_bytes": 128, "fragment_bytes": 4, "portion_bytes": 8, "sequential_bytes": 4}
    with machine(store, inline=True, **options) as parts:
        read(parts, info, 0, 8, Stream())
        assert memory.read_bytes == 16
        assert memory.requests["GET blob"] == 2


def test_reader_is_given_whole_blocks_again_once_the_others_have_closed(
    crowded: Machine, crowd: list[BlobInfo], memory: MemoryStore
) -> None:
    streams = [Stream() for _ in crowd]
    read_in_turns(crowded, crowd, streams, end=32)
    del streams[1:]
    before = memory.requests["GET blob"]
    read_in_turns(crowded, crowd[:1], streams, end=144)
    pieces = (144 - 32) // 4
    assert memory.requests["GET blob"] - before < pieces // 2


def test_reader_is_given_whole_blocks_again_once_the_others_have_long_been_idle(
    crowded: Machine, crowd: list[BlobInfo], memory: MemoryStore
) -> None:
    streams = [Stream() for _ in crowd]
    read_in_turns(crowded, crowd, streams, end=32)
    long = memory.put("long", bytes(16 * 40))
    stream = Stream()
    for offset in range(0, long.size_bytes, 4):
        read(crowded, long, offset, 4, stream)
    before = memory.requests["GET blob"]
    assert read(crowded, long, 0, 4, Stream()) == bytes(4)
    assert memory.requests["GET blob"] - before == 2  # its block, and the one after it
    assert len(streams) == len(crowd)


def test_reader_under_way_is_allowed_to_be_further_out_of_order_than_one_that_begins() -> None:
    stream = Stream()
    for offset in [*range(0, 100, 10), 140, 100, 110, 130, 120, 150]:
        stream.note(offset, 10, in_order=stream.is_next(offset, 10, least_bytes=10, most_bytes=40))
    assert stream.in_order_bytes == 160
    assert not stream.is_next(250, 10, least_bytes=10, most_bytes=40)
    stream.note(250, 10, in_order=False)
    assert stream.in_order_bytes == 10
    assert not stream.is_next(280, 10, least_bytes=10, most_bytes=40)


def test_stretches_at_equal_distances_are_fetched_ahead_as_often_as_that_came_true(
    store: FailingStore, memory: MemoryStore
) -> None:
    info = memory.put("long", bytes(16 * 64))
    options = {"block_bytes": 16, "fragment_bytes": 4, "sequential_bytes": 32, "ahead_blocks": 4}
    with machine(store, inline=True, **options) as parts:
        stream = Stream()
        for offset in range(0, 32 * 4, 32):
            assert memory.requests["GET blob"] == offset // 32
            read(parts, info, offset, 4, stream)
        assert [parts.cache.holds(info.version, 32 * hop) for hop in range(8)] == [True] * 6 + [False] * 2
        for offset in range(32 * 4, 32 * 9, 32):
            misses = parts.cache.counts.totals()["misses"]
            read(parts, info, offset, 4, stream)
            assert parts.cache.counts.totals()["misses"] == misses
        assert memory.read_bytes == 4 * (9 + 4)


def test_stretches_at_equal_distances_are_no_longer_fetched_ahead_after_a_miss(
    store: FailingStore, memory: MemoryStore
) -> None:
    info = memory.put("long", bytes(16 * 64))
    with machine(store, block_bytes=16, fragment_bytes=4, inline=True) as parts:
        stream = Stream()
        for offset in [0, 32, 64, 96, 500]:
            read(parts, info, offset, 4, stream)
    assert memory.read_bytes == 4 * (5 + 2)


def test_failed_read_ahead_does_not_fail_the_reader_for_good(info: BlobInfo, store: FailingStore) -> None:
    options = {"block_bytes": 16, "fragment_bytes": 4, "sequential_bytes": 32}
    # Without threads: one that began before the store healed would fail its reader after it.
    with machine(store, inline=True, **options) as parts:
        stream = Stream()
        for offset in range(0, 32, 8):
            read(parts, info, offset, 8, stream)
        store.fail_method("read_range", Unavailable("no service"))
        with pytest.raises(Unavailable):
            read(parts, info, 32, 150, stream)
        assert len(store.calls) > 1  # those of the read-ahead too
        store.heal()
        rest = b"".join(read(parts, info, offset, 8, stream) for offset in range(32, 152, 8))
    assert rest == BODY[32:]


def test_replaced_blob_is_never_mixed_with_the_old_one(
    parts: Machine, info: BlobInfo, memory: MemoryStore
) -> None:
    stream = Stream()
    assert read(parts, info, 0, 4, stream) == BODY[:4]
    memory.put("x", bytes(150))
    with pytest.raises(Changed):
        read(parts, info, 0, 150, stream)
