"""Which closed files are due to be sent, and how many may wait."""

import stat
from collections.abc import Iterator

import pytest
from fakes import CALLER, Machine, ManualClock, MemoryStore, machine

from blobfs.filesystem.files import File
from blobfs.filesystem.waiting import DELAY_SECONDS, WaitingFiles
from blobfs.format.attributes import Attributes

ATTRIBUTES = Attributes(stat.S_IFREG | 0o640, CALLER.uid, CALLER.gid, 1, 2, 3)


@pytest.fixture
def parts() -> Iterator[Machine]:
    with machine(MemoryStore(), block_bytes=8) as parts:
        yield parts


@pytest.fixture
def waiting(clock: ManualClock) -> WaitingFiles:
    return WaitingFiles(files=4, buffered_bytes=100, now=clock)


def some(parts: Machine, count: int) -> list[File]:
    return [parts.file(str(number), number, None, ATTRIBUTES) for number in range(count)]


def test_a_file_is_due_once_and_so_long_after_its_first_close(
    parts: Machine, clock: ManualClock, waiting: WaitingFiles
) -> None:
    file, other = some(parts, 2)
    waiting.add(file, 1)
    clock.advance(DELAY_SECONDS - 1)
    waiting.add(file, 2)
    assert waiting.take_due() == []
    clock.advance(1)
    assert waiting.take_due() == [file]
    assert waiting.take_due() == []
    assert (waiting.has_room(other, 98), waiting.has_room(other, 99)) == (True, False)


def test_when_to_call_again_is_told_once_for_all_until_then(
    parts: Machine, clock: ManualClock, waiting: WaitingFiles
) -> None:
    assert waiting.seconds_to_next() is None
    first, second = some(parts, 2)
    waiting.add(first, 1)
    assert waiting.seconds_to_next() == DELAY_SECONDS
    clock.advance(1)
    waiting.add(second, 1)
    assert (waiting.take_due(), waiting.seconds_to_next()) == ([], None)
    clock.advance(DELAY_SECONDS - 1)
    assert (waiting.take_due(), waiting.seconds_to_next()) == ([first], 1)
    clock.advance(1)
    assert (waiting.take_due(), waiting.seconds_to_next()) == ([second], None)


def test_beyond_half_of_the_number_the_oldest_are_due(parts: Machine, waiting: WaitingFiles) -> None:
    files = some(parts, 4)
    for file in files:
        waiting.add(file, 0)
    assert waiting.take_due() == files[:2]
    assert waiting.take_due() == []


def test_beyond_half_of_the_memory_all_are_due(parts: Machine, waiting: WaitingFiles) -> None:
    first, second = some(parts, 2)
    waiting.add(first, 50)
    assert waiting.take_due() == []
    waiting.add(second, 1)
    assert waiting.take_due() == [first, second]


def test_there_is_room_for_so_many_and_so_much_and_for_those_that_wait_already(
    parts: Machine, waiting: WaitingFiles
) -> None:
    *files, large, other = some(parts, 5)
    for file in files:
        waiting.add(file, 10)
    assert not waiting.has_room(large, 71)
    assert waiting.has_room(large, 70)
    waiting.add(large, 70)
    assert not waiting.has_room(other, 0)
    assert waiting.has_room(large, 70)
    assert not waiting.has_room(large, 71)
    waiting.discard(large)
    assert waiting.has_room(other, 70)


def test_what_nobody_needs_any_more_takes_no_room(parts: Machine, waiting: WaitingFiles) -> None:
    for _ in range(20):
        (file,) = some(parts, 1)
        assert waiting.has_room(file, 100)
        waiting.add(file, 100)
        del file
    assert waiting.take_due() == []
