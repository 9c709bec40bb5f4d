"""How many requests are in flight at once: fewer when the service is busy, more when it is not."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from blobfs.waits import Waits

logger = logging.getLogger(__name__)


class Throttle:
    """A limit shared by all threads: halved by a busy reply, raised by one after as many good ones.

    Additive increase, multiplicative decrease: how TCP shares a line (RFC 5681).
    """

    def __init__(self, most: int, waits: Waits) -> None:
        self._most = most
        self._waits = waits
        self._changed = threading.Condition()  # guards the fields below
        self._limit = float(most)
        self._in_flight = 0
        self._round = 0  # counts the times the limit was narrowed

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return int(self._limit)

    @property
    def in_flight(self) -> int:
        """How many are in flight now."""
        return self._in_flight

    @contextmanager
    def slot(self, seconds: float) -> Iterator[int]:
        """Wait for room, be counted while in flight; gives the round to `note_busy` with.

        Raises TimeoutError after so many seconds without room, Abandoned.
        """
        if not (self._enter() or self._waits.wait(self._wait_to_enter, seconds)):
            raise TimeoutError
        try:
            yield self._round
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify()

    def note_busy(self, sent_in_round: int) -> None:
        """Narrow, unless that was done since the request was sent: one burst of refusals counts once."""
        with self._changed:
            if sent_in_round != self._round:
                return
            if self._limit == self._most:
                logger.warning("the service is busy: sending fewer requests at once")
            self._round += 1
            self._limit = max(1.0, min(self._limit, self._in_flight + 1) / 2)

    def note_served(self) -> None:
        """Widen."""
        if self._limit == self._most:
            return
        with self._changed:
            self._limit = min(float(self._most), self._limit + 1 / self._limit)
            self._changed.notify()
            if self._limit == self._most:
                logger.info("the service is no longer busy")

    def _enter(self) -> bool:
        with self._changed:
            entered = self._in_flight < int(self._limit)
            self._in_flight += entered
            return entered

    def _wait_to_enter(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._enter, seconds)
