from collections.abc import Callable

import pytest
from fakes import ManualClock

from blobfs.kernel.told import OUTLASTED_SECONDS, Told

OLD, NEW = b"an old stat", b"a new stat"


class Kernel:
    """What it was told, and how long an open then waits."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told = Told(now=self.clock, sleep=self.clock.advance)

    def wait_seconds(self, path: bytes, stat: bytes) -> float:
        began = self.clock()
        self.told.wait_unless(path, stat)
        return self.clock() - began


def test_who_was_told_something_else_is_waited_for() -> None:
    kernel = Kernel()
    kernel.told.note(b"/x", OLD)
    kernel.clock.advance(OUTLASTED_SECONDS / 4)
    assert kernel.wait_seconds(b"/x", NEW) == OUTLASTED_SECONDS * 3 / 4
    assert kernel.wait_seconds(b"/x", NEW) == 0


def test_who_was_told_the_same_or_nothing_is_not_waited_for() -> None:
    kernel = Kernel()
    kernel.told.note(b"/x", OLD)
    kernel.told.note(b"/x", NEW)
    assert kernel.wait_seconds(b"/x", NEW) == 0
    assert kernel.wait_seconds(b"/y", NEW) == 0


def test_what_was_written_here_is_known_to_the_kernel() -> None:
    kernel = Kernel()
    kernel.told.note(b"/x", OLD)
    kernel.told.drop(b"/x")
    assert kernel.wait_seconds(b"/x", NEW) == 0


def test_what_was_told_moves_with_a_rename() -> None:
    kernel = Kernel()
    kernel.told.note(b"/x", OLD)
    kernel.told.note(b"/y", NEW)
    kernel.told.rename(b"/x", b"/y")
    assert kernel.wait_seconds(b"/x", NEW) == 0
    assert kernel.wait_seconds(b"/y", NEW) == OUTLASTED_SECONDS


class Beliefs(Kernel):
    """What surely is believed, after pauses that no answer survives on its way."""

    def pause(self) -> None:
        self.clock.advance(2 * OUTLASTED_SECONDS)

    def are(self, stat: bytes) -> bool:
        return self.told.is_believed(b"/d/x", stat)


def test_what_was_told_once_is_believed() -> None:
    beliefs = Beliefs()
    assert not beliefs.are(NEW)
    beliefs.told.note(b"/d/x", NEW)
    assert beliefs.are(NEW)
    assert not beliefs.are(OLD)


def test_nothing_is_sure_while_another_answer_may_still_be_on_its_way() -> None:
    beliefs = Beliefs()
    beliefs.told.note(b"/d/x", OLD)
    beliefs.told.note(b"/d/x", NEW)
    assert not beliefs.are(NEW)
    beliefs.pause()
    assert not beliefs.are(NEW)
    beliefs.told.note(b"/d/x", NEW)
    assert beliefs.are(NEW)


@pytest.mark.parametrize(
    "change",
    [lambda told: told.drop(b"/d/x"), lambda told: told.note_listing(b"/d")],
    ids=["write", "listing"],
)
def test_nothing_is_sure_after_what_is_not_seen_here_until_the_kernel_has_asked(
    change: Callable[[Told], None],
) -> None:
    beliefs = Beliefs()
    beliefs.told.note(b"/d/x", OLD)
    change(beliefs.told)
    assert not beliefs.are(OLD)
    beliefs.pause()
    beliefs.told.note(b"/d/x", NEW)
    assert beliefs.are(NEW)


def test_a_listing_of_another_directory_changes_nothing() -> None:
    beliefs = Beliefs()
    beliefs.told.note(b"/d/x", NEW)
    beliefs.told.note_listing(b"/")
    beliefs.told.note_listing(b"/d/x")
    assert beliefs.are(NEW)
