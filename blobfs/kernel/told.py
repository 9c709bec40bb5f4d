"""What the kernel was told of paths a moment ago: libfuse 2 cannot take it back, only outlast it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import cachetools

OUTLASTED_SECONDS = 0.25  # much longer than the answer holds: the kernel may get to it late
TOLD_PATHS = 10_000  # more than are asked for in that time
NOTHING = (b"", 0.0)


class Told:
    """The last answer for each path. Its methods may be called from many threads."""

    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()  # guards the map
        self._told: cachetools.LRUCache[bytes, tuple[bytes, float]] = cachetools.LRUCache(TOLD_PATHS)

    def note(self, path: bytes, c_stat: Any) -> None:
        """Take note of what the kernel is being told."""
        with self._lock:
            self._told[path] = bytes(c_stat), self._now()

    def drop(self, path: bytes) -> None:
        """Take note that the kernel does not believe it any more."""
        with self._lock:
            self._told.pop(path, None)

    def rename(self, old: bytes, new: bytes) -> None:
        """Take note that the kernel believes it of another path now."""
        with self._lock:
            self._told[new] = self._told.pop(old, NOTHING)

    def wait_unless(self, path: bytes, c_stat: Any) -> None:
        """Block until the kernel has forgotten what it was told last, unless that was this."""
        with self._lock:
            told, told_at = self._told.get(path, NOTHING)
        left_seconds = told_at + OUTLASTED_SECONDS - self._now()
        if told != bytes(c_stat) and left_seconds > 0:
            self._sleep(left_seconds)
