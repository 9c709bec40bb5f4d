"""How much has moved: told to whoever watches, kept to a rate, and ended on request."""

import threading
import time
from collections.abc import Callable

from blobfs.waits import Waits


class Meter:
    """Counts bytes as they move. Safe to use from many threads."""

    def __init__(self, waits: Waits, *, limit_bytes_per_second: float, watch: Callable[[int], None]) -> None:
        self._waits = waits
        self._limit_bytes_per_second = limit_bytes_per_second  # 0: none
        self._watch = watch
        self._lock = threading.Lock()  # guards the field below
        self._free_at = time.monotonic()  # when what has moved by now is paid for

    def note(self, size_bytes: int) -> None:
        """Take note that bytes have moved; wait until their time is over. Raises Abandoned."""
        self._waits.check()
        self._watch(size_bytes)
        if self._limit_bytes_per_second:
            with self._lock:
                now = time.monotonic()
                self._free_at = max(now, self._free_at) + size_bytes / self._limit_bytes_per_second
                wait_seconds = self._free_at - now
            self._waits.sleep(wait_seconds)
