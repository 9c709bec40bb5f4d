"""Whether the service answers at all. While it does not, nobody waits for it again and again."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from blobfs.errors import Failure

logger = logging.getLogger(__name__)

PROBE_PAUSE_SECONDS = 1.0  # shorter than any patience, and costs the service nothing


class Outage:
    """Begins when a call used up its time while no call got an answer; ends with the first answer.

    While it lasts, one attempt at a time is let through, to find out; all others fail at once.
    The log tells its beginning and its end, not what each request met.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the fields below
        self._answered_at = time.monotonic()
        self._is_suspected = False
        self._failure: Failure | None = None  # with which it began
        self._probe_at = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the service is given up for now."""
        return self._failure is not None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Let an attempt through, or raise the failure that the outage began with."""
        failure = self._failure
        if failure is None:
            yield
            return
        self._admit_probe(failure)
        try:
            yield
        finally:
            with self._lock:
                self._probe_at = time.monotonic() + PROBE_PAUSE_SECONDS

    def note_answer(self) -> None:
        """The service did, or refused, what it was asked."""
        self._answered_at = time.monotonic()
        if not self._is_suspected:
            return
        with self._lock:
            was_suspected, self._is_suspected, self._failure = self._is_suspected, False, None
        if was_suspected:
            logger.warning("the service answers again")

    def suspect(self, reason: str, since: float) -> None:
        """Have the log say, once, that calls are being repeated and none is answered."""
        with self._lock:
            is_first = not self._is_suspected and self._answered_at < since
            self._is_suspected |= is_first
        if is_first:
            logger.warning("the service does not answer, trying on: %s", reason)

    def begin(self, failure: Failure, since: float) -> None:
        """Give up the service, unless something was answered since then (time.monotonic)."""
        with self._lock:
            if self._failure is not None or self._answered_at >= since:
                return
            self._failure, self._is_suspected = failure, True
            self._probe_at = time.monotonic() + PROBE_PAUSE_SECONDS
        logger.error("until the service answers again, what needs it fails at once: %s", failure)

    def _admit_probe(self, failure: Failure) -> None:
        with self._lock:
            if time.monotonic() < self._probe_at:
                raise type(failure)(f"the service does not answer: {failure}", is_reported=True)
            self._probe_at = float("inf")
