"""Closed files that wait for their upload: how many may, and which are due.

A file is not sent at once, because most of what a program does to it comes soon after its first close:
it sets its mode and times, renames it, reads it, writes it again or removes it. Until it is sent, all that
costs no request.
"""

import math
import threading
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

from blobfs.filesystem.files import File

DELAY_SECONDS = 5.0  # as often as Linux looks for pages to write back (vm.dirty_writeback_centisecs)
EARLY_SHARE = 2  # of half of the room, files have their time; when more is taken, the oldest are due


class UploadQueue:
    """Holds at most so many files with so much memory. Those that nobody needs any more just vanish.

    Any thread may call; nothing here waits.
    """

    def __init__(self, *, files: int, buffered_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._buffered_bytes = buffered_bytes
        self._now = now
        self._lock = threading.Lock()  # guards the fields below
        self._waiting: WeakKeyDictionary[File, int] = WeakKeyDictionary()  # and their memory
        self._due: WeakKeyDictionary[File, float] = WeakKeyDictionary()  # of those not on their way yet
        self._most_bytes = 0  # no more than this is in memory
        self._call_at: float | None = None  # when somebody will call `take_due`

    def has_room(self, file: File, buffered_bytes: int) -> bool:
        """Tell whether a file may wait that takes so much memory."""
        with self._lock:
            if file in self._waiting:
                buffered_bytes -= self._waiting[file]
            elif len(self._waiting) >= self._files:
                return False
            return self._leaves(self._buffered_bytes, buffered_bytes)

    def add(self, file: File, buffered_bytes: int) -> None:
        """Have a file wait. Closed again before it is due, it does not wait anew."""
        with self._lock:
            self._waiting[file] = buffered_bytes
            self._most_bytes += buffered_bytes
            self._due.setdefault(file, self._now() + DELAY_SECONDS)

    def seconds_to_next(self) -> float | None:
        """Return when to call `take_due` again; None if that was said before, or none will be due."""
        with self._lock:
            earliest = next(iter(self._due.values()), None)  # no later one can be due before it
            if earliest is None or self._call_at is not None:
                return None
            self._call_at = earliest
            return earliest - self._now()

    def discard(self, file: File) -> None:
        """Count a file no longer: it is committed, or never will be."""
        with self._lock:
            self._waiting.pop(file, None)

    def take_due(self) -> list[File]:
        """Return the files to be sent now, each once."""
        with self._lock:
            now = self._now()
            if self._call_at is not None and now >= self._call_at:
                self._call_at = None
            is_crowded = not self._leaves(self._buffered_bytes // EARLY_SHARE, 0)
            until = math.inf if is_crowded else now
            early = len(self._due) - self._files // EARLY_SHARE
            due: list[File] = []
            for place, (file, due_at) in enumerate(self._due.items()):
                if place >= early and due_at > until:
                    break
                due.append(file)
            for file in due:
                del self._due[file]
            return due

    def _leaves(self, limit_bytes: int, more_bytes: int) -> bool:
        """Tell whether so much more memory stays within a limit. Counts only when that is in doubt."""
        if self._most_bytes + more_bytes > limit_bytes:
            self._most_bytes = sum(self._waiting.values())
        return self._most_bytes + more_bytes <= limit_bytes
