import pytest
from fakes import ManualClock

from blobfs.tree.creators import LOOKS, STREAK, Creators

COPY, OTHER = 7, 8


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def creators(clock: ManualClock) -> Creators:
    return Creators(within_seconds=1.0, now=clock)


def make_names(creators: Creators, count: int, group: int = COPY, looks: int = 2) -> None:
    for number in range(count):
        for _ in range(looks):
            creators.missed(group, f"/{number}")
        creators.made(group, f"/{number}")


def test_process_that_makes_what_it_missed_again_and_again_is_filling(creators: Creators) -> None:
    make_names(creators, STREAK - 1)
    assert not creators.is_filling(COPY)
    make_names(creators, 1)
    assert creators.is_filling(COPY)
    assert not creators.is_filling(OTHER)


def test_process_that_pauses_is_filling_no_more(creators: Creators, clock: ManualClock) -> None:
    make_names(creators, STREAK)
    clock.advance(1)
    assert not creators.is_filling(COPY)


def test_process_that_looks_far_ahead_is_filling(creators: Creators) -> None:
    for number in range(1000):
        creators.missed(COPY, f"/{number}")
    make_names(creators, STREAK, looks=1)
    assert creators.is_filling(COPY)


def test_process_that_waits_for_a_name_is_not_filling(creators: Creators) -> None:
    make_names(creators, STREAK)
    for _ in range(LOOKS + 1):
        creators.missed(COPY, "/from another node")
    assert not creators.is_filling(COPY)


def test_names_made_without_being_missed_do_not_count(creators: Creators) -> None:
    for number in range(STREAK):
        creators.made(COPY, f"/{number}")
    assert not creators.is_filling(COPY)


def test_unknown_processes_are_never_filling(creators: Creators) -> None:
    make_names(creators, STREAK, group=0)
    assert not creators.is_filling(0)
