import pytest
from fakes import ManualClock

from blobfs.tree.copy_detector import LOOKS, STREAK, CopyDetector

COPY, OTHER = 7, 8


@pytest.fixture
def programs() -> list[str]:
    """What asks, last."""
    return ["python"]


@pytest.fixture
def detector(clock: ManualClock, programs: list[str]) -> CopyDetector:
    return CopyDetector(within_seconds=1.0, program=lambda: programs[-1], now=clock)


def make_names(detector: CopyDetector, count: int, thread: int = COPY, looks: int = 2) -> None:
    for number in range(count):
        for _ in range(looks):
            detector.missed(thread, f"/{number}")
        detector.made(f"/{number}")


def test_process_that_makes_what_it_missed_again_and_again_is_copying(detector: CopyDetector) -> None:
    make_names(detector, STREAK - 1)
    assert not detector.is_copying(COPY)
    make_names(detector, 1)
    assert detector.is_copying(COPY)
    assert not detector.is_copying(OTHER)


def test_who_works_with_another_process_that_makes_the_names_is_copying(detector: CopyDetector) -> None:
    for number in range(STREAK):
        detector.missed(COPY, f"/{number}")
        detector.missed(OTHER, f"/.{number}.temporary")
        detector.made(f"/.{number}.temporary")
        detector.missed(OTHER, f"/{number}")
        detector.made(f"/{number}")
    assert detector.is_copying(COPY)
    assert detector.is_copying(OTHER)


@pytest.mark.parametrize(("interval", "pause"), [(0.001, 0.06), (0.1, 0.5), (0.9, 1.1)])
def test_process_that_falls_out_of_its_rhythm_is_copying_no_more(
    detector: CopyDetector, clock: ManualClock, interval: float, pause: float
) -> None:
    for _ in range(5 * STREAK):
        clock.advance(interval)
        make_names(detector, 1)
    clock.advance(interval)
    assert detector.is_copying(COPY)
    clock.advance(pause - interval)
    assert not detector.is_copying(COPY)


def test_process_that_looks_far_ahead_is_copying(detector: CopyDetector) -> None:
    for number in range(1000):
        detector.missed(COPY, f"/{number}")
    make_names(detector, STREAK, looks=1)
    assert detector.is_copying(COPY)


def test_process_that_looks_for_one_new_name_after_the_other_stays_in_its_rhythm_for_the_time_of_a_listing(
    detector: CopyDetector, clock: ManualClock
) -> None:
    make_names(detector, STREAK)
    for number in range(9):
        clock.advance(0.04)
        detector.missed(COPY, f"/ahead/{number}")
        assert detector.is_copying(COPY)
    for number in range(9, 26):
        clock.advance(0.04)
        detector.missed(COPY, f"/ahead/{number}")
    assert not detector.is_copying(COPY)


@pytest.mark.parametrize(("program", "is_believed"), [("rsync", True), ("cp", False), ("python", False)])
def test_only_rsync_may_look_on_without_making_names(
    detector: CopyDetector, clock: ManualClock, programs: list[str], program: str, *, is_believed: bool
) -> None:
    programs.append(program)
    make_names(detector, STREAK)
    for number in range(1000):
        clock.advance(0.04)
        detector.missed(COPY, f"/ahead/{number}")
    assert detector.is_copying(COPY) is is_believed
    clock.advance(0.06)
    assert not detector.is_copying(COPY)


def test_process_that_looks_for_the_same_name_falls_out_of_its_rhythm(
    detector: CopyDetector, clock: ManualClock
) -> None:
    make_names(detector, STREAK)
    for _ in range(3):
        detector.missed(COPY, "/from another node")
        clock.advance(0.03)
    assert not detector.is_copying(COPY)


def test_process_that_waits_for_a_name_is_not_copying(detector: CopyDetector) -> None:
    make_names(detector, STREAK)
    for _ in range(LOOKS + 1):
        detector.missed(COPY, "/from another node")
    assert not detector.is_copying(COPY)


def test_names_made_without_being_missed_do_not_count(detector: CopyDetector) -> None:
    for number in range(STREAK):
        detector.made(f"/{number}")
    assert not detector.is_copying(COPY)


def test_unknown_processes_are_never_copying(detector: CopyDetector) -> None:
    make_names(detector, STREAK, thread=0)
    assert not detector.is_copying(0)
