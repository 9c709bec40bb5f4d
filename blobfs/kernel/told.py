"""What the kernel was told of paths a moment ago, so what it believes.

libfuse 2 cannot take that back, only outlast it. libfuse 3 can, at the price of the file's pages.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cachetools

OUTLASTED_SECONDS = 0.25  # much longer than the answer holds: the kernel may get to it late
TOLD_PATHS = 10_000  # more than are asked for in that time
LONG_AGO = -math.inf


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was told last of a path."""

    stat: bytes  # empty: something that is not known here
    at: float
    differed_at: float  # when something else was told before it


NOTHING = _Answer(b"", LONG_AGO, LONG_AGO)


class Told:
    """The last answer for each path. Its methods may be called from many threads."""

    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()  # guards the map
        self._told: cachetools.LRUCache[bytes, _Answer] = cachetools.LRUCache(TOLD_PATHS)
        self._listed_at: cachetools.LRUCache[bytes, float] = cachetools.LRUCache(TOLD_PATHS)

    def note(self, path: bytes, c_stat: Any) -> None:
        """Take note of what the kernel is being told."""
        self._note(path, bytes(c_stat))

    def note_listing(self, directory: bytes) -> None:
        """Take note that the kernel is being told of all entries of a directory."""
        with self._lock:
            self._listed_at[directory] = self._now()

    def drop(self, path: bytes) -> None:
        """Take note that the kernel does not believe it any more."""
        self._note(path, b"")

    def rename(self, old: bytes, new: bytes) -> None:
        """Take note that the kernel believes it of another path now."""
        with self._lock:
            self._told[new] = self._told.pop(old, NOTHING)

    def is_believed(self, path: bytes, c_stat: Any) -> bool:
        """Tell whether this is surely what the kernel was told last: answers may overtake each other."""
        with self._lock:
            told = self._told.get(path, NOTHING)
            listed_at = self._listed_at.get(path.rpartition(b"/")[0] or b"/", LONG_AGO)
        other_at = max(told.differed_at, listed_at)
        return told.stat == bytes(c_stat) and told.at > other_at + OUTLASTED_SECONDS

    def wait_unless(self, path: bytes, c_stat: Any) -> None:
        """Block until the kernel has forgotten what it was told last, unless that was this."""
        with self._lock:
            told = self._told.get(path, NOTHING)
        left_seconds = told.at + OUTLASTED_SECONDS - self._now()
        if told.stat and told.stat != bytes(c_stat) and left_seconds > 0:
            self._sleep(left_seconds)

    def _note(self, path: bytes, stat: bytes) -> None:
        with self._lock:
            now, before = self._now(), self._told.get(path, NOTHING)
            differs = before is not NOTHING and before.stat != stat
            self._told[path] = _Answer(stat, now, before.at if differs else before.differed_at)
