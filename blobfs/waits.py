"""Waiting that ends early, by Abandoned, when nobody wants any more what is waited for."""

import math
import threading
import time
from collections.abc import Callable

GLANCE_SECONDS = 0.25  # not while a connection is being made, or a lock waited for


class Waits:
    """Waits to the end, however long; a subclass says when to give up."""

    def check(self) -> None:
        """Raise Abandoned if what the thread works for is not wanted any more."""

    def wait(self, until: Callable[[float], bool], seconds: float = math.inf) -> bool:
        """Call ``until(seconds)``, which waits at most so long, until it returns True or the time is over.

        Returns what it returned last. Raises Abandoned.
        """
        ends_at = time.monotonic() + seconds
        while not until(max(0.0, min(GLANCE_SECONDS, ends_at - time.monotonic()))):
            self.check()
            if time.monotonic() >= ends_at:
                return False
        return True

    def wait_to_hear(self, tell: Callable[[Callable[[object], None]], object]) -> None:
        """Wait until what is given to ``tell`` is called, as a future's ``add_done_callback`` has it.

        Raises Abandoned.
        """
        is_told = threading.Event()
        tell(lambda _what: is_told.set())
        self.wait(is_told.wait)

    def sleep(self, seconds: float) -> None:
        """Sleep. Raises Abandoned."""
        self.wait(_nap, seconds)


def _nap(seconds: float) -> bool:
    time.sleep(seconds)
    return False


TO_THE_END = Waits()
