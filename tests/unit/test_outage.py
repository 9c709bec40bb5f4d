"""Services that are away or busy: what is let through, and what is not."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from blobfs.azure import outage as outage_module
from blobfs.azure.outage import Outage
from blobfs.azure.throttle import Throttle
from blobfs.errors import TimedOut, Unavailable
from blobfs.waits import TO_THE_END


@pytest.fixture
def outage() -> Outage:
    return Outage()


def begin(outage: Outage) -> None:
    outage.begin(TimedOut("HEAD x: nothing"), since=time.monotonic())


def test_attempts_pass_while_the_service_answers(outage: Outage) -> None:
    with outage.attempt(), outage.attempt():
        outage.note_answer()
    assert not outage.is_on


def test_one_call_that_fails_among_others_that_do_not_begins_nothing(outage: Outage) -> None:
    began_at = time.monotonic()
    outage.note_answer()
    outage.begin(TimedOut("HEAD x: nothing"), since=began_at)
    assert not outage.is_on


def test_outage_fails_attempts_with_the_failure_it_began_with(outage: Outage) -> None:
    begin(outage)
    with pytest.raises(TimedOut, match="does not answer: HEAD x") as raised, outage.attempt():
        pytest.fail("an attempt was let through")
    assert raised.value.is_reported


def test_one_attempt_at_a_time_finds_out(outage: Outage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_module, "PROBE_PAUSE_SECONDS", 0.0)
    begin(outage)
    with outage.attempt(), pytest.raises(TimedOut), outage.attempt():
        pytest.fail("a second one was let through")
    with pytest.raises(Unavailable), outage.attempt():
        raise Unavailable("this one fails too, and the next may try")
    with outage.attempt():
        outage.note_answer()
    assert not outage.is_on
    with outage.attempt(), outage.attempt():
        pass


def test_outage_is_logged_when_it_begins_and_when_it_ends(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        outage.suspect("GET y: reset", since=time.monotonic())
        begin(outage)
    for _ in range(3):
        outage.note_answer()
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR", "WARNING"]
    caplog.clear()


# Throttling


def fly(throttle: Throttle, count: int) -> ExitStack:
    stack = ExitStack()
    for _ in range(count):
        stack.enter_context(throttle.slot(1.0))
    return stack


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Callable[[], None]:
    return caplog.clear


def test_busy_reply_halves_what_is_in_flight(quiet: Callable[[], None]) -> None:
    throttle = Throttle(64, TO_THE_END)
    with fly(throttle, 16):
        with throttle.slot(1.0) as sent_in_round:
            pass
        throttle.note_busy(sent_in_round)
    assert throttle.limit == 8
    quiet()


def test_burst_of_busy_replies_counts_once(quiet: Callable[[], None]) -> None:
    throttle = Throttle(64, TO_THE_END)
    with fly(throttle, 15), throttle.slot(1.0) as sent_in_round:
        for _ in range(10):
            throttle.note_busy(sent_in_round)
    assert throttle.limit == 8
    quiet()


def test_limit_falls_to_one_and_rises_to_all(quiet: Callable[[], None]) -> None:
    throttle = Throttle(4, TO_THE_END)
    for _ in range(10):
        with throttle.slot(1.0) as sent_in_round:
            pass
        throttle.note_busy(sent_in_round)
    assert throttle.limit == 1
    rises = []
    for _ in range(100):
        throttle.note_served()
        rises.append(throttle.limit)
    assert rises == sorted(rises)
    assert set(rises) >= {2, 3, 4}
    quiet()


def test_request_beyond_the_limit_waits_for_room() -> None:
    throttle = Throttle(1, TO_THE_END)
    entered = threading.Event()

    def enter() -> None:
        with throttle.slot(30.0):
            entered.set()

    thread = threading.Thread(target=enter)
    with throttle.slot(1.0):
        thread.start()
        with pytest.raises(TimeoutError), throttle.slot(0.05):
            pytest.fail("there was no room")
        assert not entered.is_set()
    thread.join()
    assert entered.is_set()
