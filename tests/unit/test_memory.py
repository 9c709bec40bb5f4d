import errno
import gc
import mmap
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from blobfs.blocks import KiB
from blobfs.content.memory import SMALLEST_BYTES, UNLOCKED_BYTES, Buffer, BufferPool, copy_bytes, disk_buffer
from blobfs.errors import NoSpace


def test_sizes_are_powers_of_two_from_16_kib() -> None:
    pool = BufferPool(1024 * KiB)
    assert [pool.take(size).size_bytes for size in (0, 1, 16 * KiB, 16 * KiB + 1, 64 * KiB + 1)] == [
        16 * KiB,
        16 * KiB,
        16 * KiB,
        32 * KiB,
        128 * KiB,
    ]


def test_buffer_goes_back_when_its_last_reference_is_dropped() -> None:
    pool = BufferPool(SMALLEST_BYTES)
    buffer = pool.take(1)
    assert pool.in_use_bytes == SMALLEST_BYTES
    assert pool.take_if_free(1) is None
    del buffer
    assert pool.in_use_bytes == 0
    assert pool.take_if_free(1) is not None


def test_memory_is_reused_and_not_made_anew() -> None:
    pool = BufferPool(4 * SMALLEST_BYTES)
    buffer = pool.take(1)
    buffer.view[:4] = b"mark"
    del buffer
    again = pool.take(1)
    assert bytes(again.view[:4]) == b"mark"


def test_free_memory_of_one_size_makes_room_for_another() -> None:
    pool = BufferPool(4 * SMALLEST_BYTES)
    small = [pool.take(1) for _ in range(4)]
    small.clear()
    large = pool.take(4 * SMALLEST_BYTES)
    assert pool.in_use_bytes == large.size_bytes == pool.budget_bytes


def test_buffer_larger_than_the_pool_is_refused_and_named() -> None:
    pool = BufferPool(SMALLEST_BYTES)
    with pytest.raises(NoSpace, match="--memory"):
        pool.take(SMALLEST_BYTES + 1)


def test_memory_in_objects_that_only_refer_to_each_other_is_found() -> None:
    pool = BufferPool(SMALLEST_BYTES)
    gc.disable()
    try:
        cycle: list[object] = [pool.take(1)]
        cycle.append(cycle)
        del cycle
        assert pool.take(1).size_bytes == SMALLEST_BYTES
    finally:
        gc.enable()


def test_caller_waits_until_another_one_gives_back() -> None:
    pool = BufferPool(SMALLEST_BYTES)
    held = [pool.take(1)]
    asked = threading.Event()
    pool.add_reclaimer(lambda _size_bytes: asked.set())
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.take, 1)
        assert asked.wait(10)
        assert not waiting.done()
        held.clear()
        assert waiting.result(10).size_bytes == SMALLEST_BYTES


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that the system has left, in a list; it begins with three of the smallest buffers."""
    room, make = [3 * SMALLEST_BYTES], mmap.mmap

    class Mapping(mmap.mmap):
        def __new__(cls, fileno: int, length: int, **options: int) -> "Mapping":
            if length > room[0]:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            room[0] -= length
            return make.__new__(cls, fileno, length, **options)

        def __del__(self) -> None:
            room[0] += len(self)

    monkeypatch.setattr("blobfs.content.memory.mmap.mmap", Mapping)
    return room


def test_caller_waits_for_others_where_the_system_has_less_memory_than_the_pool(system: list[int]) -> None:
    pool = BufferPool(100 * SMALLEST_BYTES)
    held = [pool.take(1) for _ in range(3)]
    assert pool.take_if_free(1) is None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.take, 2 * SMALLEST_BYTES)
        with pytest.raises(TimeoutError):
            waiting.result(0.05)
        held.clear()
        assert waiting.result(10).size_bytes == 2 * SMALLEST_BYTES
    del waiting
    gc.collect()
    assert pool.in_use_bytes == 0
    system[0] += 100 * SMALLEST_BYTES
    assert len([pool.take(1) for _ in range(100)]) == 100


@pytest.mark.usefixtures("system")
def test_caller_is_told_where_the_system_has_no_memory_at_all() -> None:
    pool = BufferPool(100 * SMALLEST_BYTES)
    for _ in range(2):
        with pytest.raises(NoSpace, match="ulimit -v"):
            pool.take(4 * SMALLEST_BYTES)
        assert pool.take_if_free(4 * SMALLEST_BYTES) is None
    assert pool.in_use_bytes == 0
    assert pool.take(1).size_bytes == SMALLEST_BYTES


def test_reclaimers_are_asked_for_what_is_missing() -> None:
    pool = BufferPool(2 * SMALLEST_BYTES)
    held: list[Buffer] = [pool.take(1), pool.take(1)]
    wanted: list[int] = []

    def reclaim(size_bytes: int) -> None:
        wanted.append(size_bytes)
        held.clear()

    pool.add_reclaimer(reclaim)
    assert pool.take(SMALLEST_BYTES + 1).size_bytes == 2 * SMALLEST_BYTES
    assert wanted == [2 * SMALLEST_BYTES]


def test_many_threads_never_hold_more_than_the_budget() -> None:
    pool = BufferPool(8 * SMALLEST_BYTES)
    seen: list[int] = []

    def work(number: int) -> None:
        for step in range(50):
            buffer = pool.take(SMALLEST_BYTES << (number + step) % 4)
            buffer.view[0] = number
            seen.append(pool.in_use_bytes)
            assert buffer.view[0] == number
            del buffer

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert max(seen) <= pool.budget_bytes
    assert pool.in_use_bytes == 0


def test_disk_buffer_holds_bytes_outside_every_pool() -> None:
    buffer = disk_buffer(100)
    assert (buffer.size_bytes, bytes(buffer.view)) == (100, bytes(100))
    buffer.view[99:] = b"x"
    assert buffer.view[99] == ord("x")


def test_disk_buffer_that_does_not_fit_is_refused_at_once() -> None:
    with pytest.raises(NoSpace, match="no room for"):
        disk_buffer(1 << 60)


def test_waiting_caller_asks_again_as_soon_as_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blobfs.content.memory.RECHECK_SECONDS", 60.0)
    pool = BufferPool(2 * SMALLEST_BYTES)
    held = [pool.take(2 * SMALLEST_BYTES)]
    asked = threading.Event()
    may_let_go = threading.Event()

    def reclaim(_size_bytes: int) -> None:
        if may_let_go.is_set():
            held.clear()
        asked.set()

    pool.add_reclaimer(reclaim)
    taken: list[Buffer] = []
    waiting = threading.Thread(target=lambda: taken.append(pool.take(SMALLEST_BYTES)))
    waiting.start()
    assert asked.wait(10)
    may_let_go.set()
    pool.recheck()
    waiting.join(10)
    assert len(taken) == 1


@pytest.mark.parametrize("make", [bytes, bytearray])
@pytest.mark.parametrize("size_bytes", [0, 1, UNLOCKED_BYTES - 1, UNLOCKED_BYTES, 1_000_001])
def test_bytes_are_copied_to_the_front(make: type[bytes] | type[bytearray], size_bytes: int) -> None:
    source = os.urandom(size_bytes)
    target = bytearray(b"." * (size_bytes + 3))
    copy_bytes(memoryview(target), memoryview(make(source)))
    assert target == source + b"..."


@pytest.mark.parametrize("size_bytes", [1, UNLOCKED_BYTES])
def test_more_bytes_than_fit_are_not_copied(size_bytes: int) -> None:
    target = bytearray(size_bytes - 1)
    with pytest.raises(ValueError, match="do not fit"):
        copy_bytes(memoryview(target), memoryview(bytearray(b"x" * size_bytes)))
    assert target == bytes(size_bytes - 1)


def test_others_run_while_much_is_copied() -> None:
    rounds, is_over, source = [0], threading.Event(), memoryview(bytearray(16 << 20))
    target = bytearray(16 << 20)

    def count() -> None:
        while not is_over.is_set():
            rounds[0] += 1
            os.sched_yield()

    other = threading.Thread(target=count)
    interval_seconds = sys.getswitchinterval()
    other.start()
    sys.setswitchinterval(600.0)  # nobody has to give up the lock: it is given up
    try:
        begun = rounds[0]
        while rounds[0] < begun + 2:  # so that it waits by the new rule
            os.sched_yield()
        before = rounds[0]
        for _ in range(500):  # the other may have to wait for a processor
            copy_bytes(memoryview(target), source)
            if rounds[0] > before:
                break
        assert rounds[0] > before
    finally:
        sys.setswitchinterval(interval_seconds)
        is_over.set()
        other.join()
