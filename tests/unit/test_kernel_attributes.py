from collections.abc import Callable

import pytest
from fakes import ManualClock

from blobfs.filesystem.volume import Stat
from blobfs.format.attributes import Attributes
from blobfs.kernel.kernel_attributes import MOST_PATHS, OUTLASTED_SECONDS, KernelAttributes

OLD, NEW = (Stat(Attributes(0o100644, 0, 0, 0, 0, 0), 7, 1, size_bytes) for size_bytes in (3, 4))


class Kernel:
    """What it was told, and how long an open then waits."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.attributes = KernelAttributes(now=self.clock, sleep=self.clock.advance)

    def wait_seconds(self, path: bytes, stat: Stat) -> float:
        began = self.clock()
        self.attributes.wait_unless(path, stat)
        return self.clock() - began


def test_open_waits_while_the_kernel_may_use_other_attributes() -> None:
    kernel = Kernel()
    kernel.attributes.note(b"/x", OLD)
    kernel.clock.advance(OUTLASTED_SECONDS / 4)
    assert kernel.wait_seconds(b"/x", NEW) == OUTLASTED_SECONDS * 3 / 4
    assert kernel.wait_seconds(b"/x", NEW) == 0


def test_open_does_not_wait_for_the_same_attributes_or_for_none() -> None:
    kernel = Kernel()
    kernel.attributes.note(b"/x", OLD)
    kernel.attributes.note(b"/x", NEW)
    assert kernel.wait_seconds(b"/x", NEW) == 0
    assert kernel.wait_seconds(b"/y", NEW) == 0


def test_open_does_not_wait_for_attributes_that_a_write_has_ended() -> None:
    kernel = Kernel()
    kernel.attributes.note(b"/x", OLD)
    kernel.attributes.drop(b"/x")
    assert kernel.wait_seconds(b"/x", NEW) == 0


def test_attributes_move_with_a_rename() -> None:
    kernel = Kernel()
    kernel.attributes.note(b"/x", OLD)
    kernel.attributes.note(b"/y", NEW)
    kernel.attributes.rename(b"/x", b"/y")
    assert kernel.wait_seconds(b"/x", NEW) == 0
    assert kernel.wait_seconds(b"/y", NEW) == OUTLASTED_SECONDS


class Beliefs(Kernel):
    """What surely is believed, after pauses that no answer survives on its way."""

    def pause(self) -> None:
        self.clock.advance(2 * OUTLASTED_SECONDS)

    def are(self, stat: Stat) -> bool:
        return self.attributes.is_believed(b"/d/x", stat)


def test_attributes_that_were_given_once_are_believed() -> None:
    beliefs = Beliefs()
    assert not beliefs.are(NEW)
    beliefs.attributes.note(b"/d/x", NEW)
    assert beliefs.are(NEW)
    assert not beliefs.are(OLD)


def test_nothing_is_sure_while_another_answer_may_still_be_on_its_way() -> None:
    beliefs = Beliefs()
    beliefs.attributes.note(b"/d/x", OLD)
    beliefs.attributes.note(b"/d/x", NEW)
    assert not beliefs.are(NEW)
    beliefs.pause()
    assert not beliefs.are(NEW)
    beliefs.attributes.note(b"/d/x", NEW)
    assert beliefs.are(NEW)


@pytest.mark.parametrize(
    "change",
    [lambda given: given.drop(b"/d/x"), lambda given: given.note_listing(b"/d", {}, goes_on=False)],
    ids=["write", "listing"],
)
def test_nothing_is_sure_after_a_change_until_the_kernel_has_asked_again(
    change: Callable[[KernelAttributes], None],
) -> None:
    beliefs = Beliefs()
    beliefs.attributes.note(b"/d/x", OLD)
    change(beliefs.attributes)
    assert not beliefs.are(OLD)
    beliefs.pause()
    beliefs.attributes.note(b"/d/x", NEW)
    assert beliefs.are(NEW)


def test_a_listing_of_another_directory_changes_nothing() -> None:
    beliefs = Beliefs()
    beliefs.attributes.note(b"/d/x", NEW)
    for directory in (b"/", b"/d/x"):
        beliefs.attributes.note_listing(directory, {b"x": OLD}, goes_on=False)
    assert beliefs.are(NEW)


def test_all_parts_of_a_listing_are_believed() -> None:
    beliefs = Beliefs()
    beliefs.attributes.note_listing(b"/d", {b"w": OLD}, goes_on=False)
    assert not beliefs.are(NEW)
    beliefs.attributes.note_listing(b"/d", {b"x": NEW}, goes_on=True)
    beliefs.attributes.note_listing(b"/d", {b"y": OLD}, goes_on=True)
    assert beliefs.are(NEW)
    assert not beliefs.are(OLD)
    beliefs.attributes.note(b"/d/x", OLD)
    beliefs.pause()
    assert not beliefs.are(NEW)


def test_a_listing_is_not_sure_while_the_one_before_it_may_still_be_on_its_way() -> None:
    beliefs = Beliefs()
    beliefs.attributes.note_listing(b"/d", {b"x": OLD}, goes_on=False)
    beliefs.attributes.note_listing(b"/d", {b"x": NEW}, goes_on=False)
    assert not beliefs.are(NEW)
    beliefs.pause()
    beliefs.attributes.note_listing(b"/d", {b"x": NEW}, goes_on=False)
    assert beliefs.are(NEW)


def test_nothing_is_sure_of_a_directory_with_too_many_entries() -> None:
    beliefs = Beliefs()
    beliefs.attributes.note_listing(b"/d", {b"x": NEW}, goes_on=False)
    beliefs.attributes.note_listing(
        b"/d", {b"%d" % number: NEW for number in range(MOST_PATHS)}, goes_on=True
    )
    assert not beliefs.are(NEW)
