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
