"""Which processes are filling directories: for them alone a name that is not listed is absent unasked.

Every other process gets an answer of the service for a name that is not there, because another
node may just have closed a file of that name. A copy (cp, rsync, tar, git) asks for each name
before it makes it; once several of its names have all been made after they were missed, the
listing is believed. A process that waits for a name asks for it again and again, and is no copy.
"""

import threading
import time
from collections.abc import Callable

import cachetools

STREAK = 8  # names made in a row, each after it was missed
LOOKS = 4  # cp looks for a name twice before it makes it, rsync a few times
REMEMBERED_MISSES = 10_000  # rsync looks thousands of names ahead of those it makes
REMEMBERED_GROUPS = 64


class _Group:
    """One process group's misses, and how many of them it has made."""

    def __init__(self) -> None:
        self.misses: cachetools.LRUCache[str, int] = cachetools.LRUCache(REMEMBERED_MISSES)
        self.streak = 0
        self.made_at = 0.0


class Creators:
    """Process groups that make many names one after the other. Group 0 stands for unknown ones."""

    def __init__(self, *, within_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._within_seconds = within_seconds
        self._now = now
        self._lock = threading.Lock()  # guards the groups and what is in them
        self._groups: cachetools.LRUCache[int, _Group] = cachetools.LRUCache(REMEMBERED_GROUPS)

    def missed(self, group: int, path: str) -> None:
        """Note that a process was told that there is nothing under a path."""
        if group:
            with self._lock:
                state = self._groups.setdefault(group, _Group())
                looks = state.misses[path] = state.misses.get(path, 0) + 1
                if looks > LOOKS:
                    state.streak = 0

    def made(self, group: int, path: str) -> None:
        """Note that a process made what it had missed."""
        with self._lock:
            state = self._groups.get(group)
            if state is not None and state.misses.pop(path, 0):
                state.streak += 1
                state.made_at = self._now()

    def is_filling(self, group: int) -> bool:
        """Tell whether a process has just made several names in a row."""
        with self._lock:
            state = self._groups.get(group)
            if state is None or state.streak < STREAK:
                return False
            return self._now() - state.made_at < self._within_seconds
