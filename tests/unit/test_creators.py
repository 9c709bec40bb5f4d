import pytest
from fakes import ManualClock

from blobfs.tree.creators import LOOKS, STREAK, Creators

COPY, OTHER = 7, 8


@pytest.fixture
def programs() -> list[str]:
    """What asks, last."""
    return ["python"]


@pytest.fixture
def creators(clock: ManualClock, programs: list[str]) -> Creators:
    return Creators(within_seconds=1.0, program=lambda: programs[-1], now=clock)


def make_names(creators: Creators, count: int, thread: int = COPY, looks: int = 2) -> None:
    for number in range(count):
        for _ in range(looks):
            creators.missed(thread, f"/{number}")
        creators.made(f"/{number}")


def test_process_that_makes_what_it_missed_again_and_again_is_filling(creators: Creators) -> None:
    make_names(creators, STREAK - 1)
    assert not creators.is_filling(COPY)
    make_names(creators, 1)
    assert creators.is_filling(COPY)
    assert not creators.is_filling(OTHER)


def test_who_works_with_another_process_that_makes_the_names_is_filling(creators: Creators) -> None:
    for number in range(STREAK):
        creators.missed(COPY, f"/{number}")
        creators.missed(OTHER, f"/.{number}.temporary")
        creators.made(f"/.{number}.temporary")
        creators.missed(OTHER, f"/{number}")
        creators.made(f"/{number}")
    assert creators.is_filling(COPY)
    assert creators.is_filling(OTHER)


@pytest.mark.parametrize(("interval", "pause"), [(0.001, 0.06), (0.1, 0.5), (0.9, 1.1)])
def test_process_that_falls_out_of_its_rhythm_is_filling_no_more(
    creators: Creators, clock: ManualClock, interval: float, pause: float
) -> None:
    for _ in range(5 * STREAK):
        clock.advance(interval)
        make_names(creators, 1)
    clock.advance(interval)
    assert creators.is_filling(COPY)
    clock.advance(pause - interval)
    assert not creators.is_filling(COPY)


def test_process_that_looks_far_ahead_is_filling(creators: Creators) -> None:
    for number in range(1000):
        creators.missed(COPY, f"/{number}")
    make_names(creators, STREAK, looks=1)
    assert creators.is_filling(COPY)


def test_process_that_looks_for_one_new_name_after_the_other_stays_in_its_rhythm_for_the_time_of_a_listing(
    creators: Creators, clock: ManualClock
) -> None:
    make_names(creators, STREAK)
    for number in range(9):
        clock.advance(0.04)
        creators.missed(COPY, f"/ahead/{number}")
        assert creators.is_filling(COPY)
    for number in range(9, 26):
        clock.advance(0.04)
        creators.missed(COPY, f"/ahead/{number}")
    assert not creators.is_filling(COPY)


@pytest.mark.parametrize(("program", "is_believed"), [("rsync", True), ("cp", False), ("python", False)])
def test_only_rsync_may_look_on_without_making_names(
    creators: Creators, clock: ManualClock, programs: list[str], program: str, *, is_believed: bool
) -> None:
    programs.append(program)
    make_names(creators, STREAK)
    for number in range(1000):
        clock.advance(0.04)
        creators.missed(COPY, f"/ahead/{number}")
    assert creators.is_filling(COPY) is is_believed
    clock.advance(0.06)
    assert not creators.is_filling(COPY)


def test_process_that_looks_for_the_same_name_falls_out_of_its_rhythm(
    creators: Creators, clock: ManualClock
) -> None:
    make_names(creators, STREAK)
    for _ in range(3):
        creators.missed(COPY, "/from another node")
        clock.advance(0.03)
    assert not creators.is_filling(COPY)


def test_process_that_waits_for_a_name_is_not_filling(creators: Creators) -> None:
    make_names(creators, STREAK)
    for _ in range(LOOKS + 1):
        creators.missed(COPY, "/from another node")
    assert not creators.is_filling(COPY)


def test_names_made_without_being_missed_do_not_count(creators: Creators) -> None:
    for number in range(STREAK):
        creators.made(f"/{number}")
    assert not creators.is_filling(COPY)


def test_unknown_processes_are_never_filling(creators: Creators) -> None:
    make_names(creators, STREAK, thread=0)
    assert not creators.is_filling(0)
