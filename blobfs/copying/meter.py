"""How much has moved: told to whoever watches, kept to a rate, and ended on request."""

import threading
import time
from collections.abc import Callable

from blobfs.callers import Callers
from blobfs.errors import Abandoned


class Interruption(Callers):
    """Ends everything that waits or moves bytes, once it is asked to."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)
        self._is_set = threading.Event()

    @property
    def is_set(self) -> bool:
        """Whether everything is to end."""
        return self._is_set.is_set()

    def set(self) -> None:
        """Have everything end."""
        self._is_set.set()

    def check(self) -> None:
        """Raise Abandoned if everything is to end."""
        if self.is_set:
            raise Abandoned("interrupted")


class Meter:
    """Counts bytes as they move. Safe to use from many threads."""

    def __init__(
        self, interruption: Interruption, *, limit_bytes_per_second: float, watch: Callable[[int], None]
    ) -> None:
        self._interruption = interruption
        self._limit_bytes_per_second = limit_bytes_per_second  # 0: none
        self._watch = watch
        self._lock = threading.Lock()  # guards the field below
        self._free_at = time.monotonic()  # when what has moved by now is paid for

    def note(self, size_bytes: int) -> None:
        """Take note that bytes have moved; wait until their time is over. Raises Abandoned."""
        self._interruption.check()
        self._watch(size_bytes)
        if self._limit_bytes_per_second:
            with self._lock:
                now = time.monotonic()
                self._free_at = max(now, self._free_at) + size_bytes / self._limit_bytes_per_second
                wait_seconds = self._free_at - now
            self._interruption.sleep(wait_seconds)
