"""Which closed files are due to be sent, and how many may wait."""

import stat
from collections.abc import Iterator

import pytest
from fakes import CALLER, Machine, ManualClock, MemoryStore, machine

from blobfs.filesystem.files import File
from blobfs.filesystem.upload_queue import DELAY_SECONDS, UploadQueue
from blobfs.format.attributes import Attributes

ATTRIBUTES = Attributes(stat.S_IFREG | 0o640, CALLER.uid, CALLER.gid, 1, 2, 3)


@pytest.fixture
def parts() -> Iterator[Machine]:
    with machine(MemoryStore(), block_bytes=8) as parts:
        yield parts


@pytest.fixture
def queue(clock: ManualClock) -> UploadQueue:
    return UploadQueue(files=4, buffered_bytes=100, now=clock)


def some(parts: Machine, count: int) -> list[File]:
    return [parts.file(str(number), number, None, ATTRIBUTES) for number in range(count)]


def test_a_file_is_due_once_and_so_long_after_its_first_close(
    parts: Machine, clock: ManualClock, queue: UploadQueue
) -> None:
    file, other = some(parts, 2)
    queue.add(file, 1)
    clock.advance(DELAY_SECONDS - 1)
    queue.add(file, 2)
    assert queue.take_due() == []
    clock.advance(1)
    assert queue.take_due() == [file]
    assert queue.take_due() == []
    assert (queue.has_room(other, 98), queue.has_room(other, 99)) == (True, False)


def test_when_to_call_again_is_told_once_for_all_until_then(
    parts: Machine, clock: ManualClock, queue: UploadQueue
) -> None:
    assert queue.seconds_to_next() is None
    first, second = some(parts, 2)
    queue.add(first, 1)
    assert queue.seconds_to_next() == DELAY_SECONDS
    clock.advance(1)
    queue.add(second, 1)
    assert (queue.take_due(), queue.seconds_to_next()) == ([], None)
    clock.advance(DELAY_SECONDS - 1)
    assert (queue.take_due(), queue.seconds_to_next()) == ([first], 1)
    clock.advance(1)
    assert (queue.take_due(), queue.seconds_to_next()) == ([second], None)


def test_beyond_half_of_the_number_the_oldest_are_due(parts: Machine, queue: UploadQueue) -> None:
    files = some(parts, 4)
    for file in files:
        queue.add(file, 0)
    assert queue.take_due() == files[:2]
    assert queue.take_due() == []


def test_beyond_half_of_the_memory_all_are_due(parts: Machine, queue: UploadQueue) -> None:
    first, second = some(parts, 2)
    queue.add(first, 50)
    assert queue.take_due() == []
    queue.add(second, 1)
    assert queue.take_due() == [first, second]


def test_there_is_room_for_so_many_and_so_much_and_for_those_that_wait_already(
    parts: Machine, queue: UploadQueue
) -> None:
    *files, large, other = some(parts, 5)
    for file in files:
        queue.add(file, 10)
    assert not queue.has_room(large, 71)
    assert queue.has_room(large, 70)
    queue.add(large, 70)
    assert not queue.has_room(other, 0)
    assert queue.has_room(large, 70)
    assert not queue.has_room(large, 71)
    queue.discard(large)
    assert queue.has_room(other, 70)


def test_what_nobody_needs_any_more_takes_no_room(parts: Machine, queue: UploadQueue) -> None:
    for _ in range(20):
        (file,) = some(parts, 1)
        assert queue.has_room(file, 100)
        queue.add(file, 100)
        del file
    assert queue.take_due() == []
