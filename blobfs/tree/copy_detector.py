"""Tells threads that copy: for them alone, a name that was not listed is absent without asking again.

For every other thread the service is asked, because another node may just have closed a file of that
name. A copy (cp, rsync, tar, git) looks for each name before the name is created, by the copy itself or by
a process that works with it and may be far behind. A thread that looked for several names which were then
created, and keeps creating or looking at that pace, is taken for a copy. One that looks for the same name
again and again is waiting for it, and is not. A thread that creates nothing any more is soon not taken for a
copy either, except in a program that is known to look through a whole tree first.
"""

import threading
import time
from collections.abc import Callable

import cachetools

STREAK = 8  # names missed and then made, one after the other
LOOKS = 4  # cp looks for a name twice before it makes it, rsync a few times
PARTNERS = 2  # rsync looks for a name in one process and makes it in another, which looks again
REMEMBERED_MISSES = 10_000  # rsync looks thousands of names ahead of those it makes
REMEMBERED_THREADS = 64
LOOKS_FIRST = "rsync"  # it makes all directories, and looks for all files before another process makes one
RHYTHM = 4  # a copy has ended after a pause of this many usual intervals
SHORTEST_PAUSE_SECONDS = 0.05  # anything shorter is no pause
SMOOTHING = 0.25  # the share of the newest interval in the usual one


def nobody() -> int:
    """Return the number of a thread that is not known."""
    return 0


class _Thread:
    """One thread's record."""

    def __init__(self) -> None:
        self.streak = 0
        self.made_at = 0.0
        self.active_at = 0.0  # made a name, or looked for a new one
        self.interval_seconds = 0.0

    def credit(self, now: float) -> None:
        if self.streak:
            newest = now - self.made_at
            self.interval_seconds += SMOOTHING * (newest - self.interval_seconds)
        self.streak += 1
        self.made_at = self.active_at = now


class CopyDetector:
    """Watches threads of programs, by the numbers the kernel gives; 0 stands for unknown ones."""

    def __init__(
        self,
        *,
        within_seconds: float,
        program: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``program()`` names the program of the thread that is being asked about."""
        self._within_seconds = within_seconds
        self._program = program
        self._now = now
        self._lock = threading.Lock()  # guards the two maps and what is in them
        self._misses: cachetools.LRUCache[str, dict[int, int]] = cachetools.LRUCache(REMEMBERED_MISSES)
        self._threads: cachetools.LRUCache[int, _Thread] = cachetools.LRUCache(REMEMBERED_THREADS)

    def missed(self, thread: int, path: str) -> None:
        """Note that a thread was told that there is nothing under a path."""
        if not thread:
            return
        with self._lock:
            lookers = self._misses.get(path, {})
            looks = lookers.pop(thread, 0) + 1
            self._misses[path] = {**dict(list(lookers.items())[1 - PARTNERS :]), thread: looks}
            state = self._threads.get(thread)
            if state is not None and looks == 1:
                state.active_at = self._now()
            elif state is not None and looks > LOOKS:
                state.streak = 0

    def made(self, path: str) -> None:
        """Note that a path was made, to the credit of the threads that looked for it last."""
        with self._lock:
            for thread in self._misses.pop(path, {}):
                self._threads.setdefault(thread, _Thread()).credit(self._now())

    def is_copying(self, thread: int) -> bool:
        """Tell whether a thread, the caller's, is looking for names that a copy is about to make."""
        with self._lock:
            state = self._threads.get(thread)
            if state is None or state.streak < STREAK:
                return False
            pause_seconds = max(SHORTEST_PAUSE_SECONDS, RHYTHM * state.interval_seconds)
            now = self._now()
            if now - state.active_at >= pause_seconds:
                return False
            makes_names = now - state.made_at < self._within_seconds
        return makes_names or self._program() == LOOKS_FIRST
