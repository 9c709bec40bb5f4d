"""What open(2) asks of a file, asked while the kernel still looks its name up.

The kernel first asks what a name is, and when it is a file, to open it: two round trips. What the
second one brings is asked for beside the first, if the thread that waits is seen to be inside
open(2). Then it is asked after that open(2) began, and is as new as close-to-open wants it: an
open(2) does nothing between the two. A lookup for stat(2) is never taken for one by open(2).
"""

import threading
from dataclasses import dataclass

import cachetools

from blobfs.callers import Callers
from blobfs.filesystem.asked_ahead import AskedAhead
from blobfs.filesystem.volume import Answer, Volume
from blobfs.transfers import Transfer

MOST_IN_VAIN = 8  # asked in a row for what was not opened: directories on the way, files that are not there
RETRIED = 16  # of so many lookups, one is tried again
LATEST_SECONDS = 1.0  # from the lookup on; older ones may be of an open(2) that did not come
REMEMBERED_THREADS = 64


@dataclass(frozen=True, slots=True)
class _Early:
    """What a thread is about to open."""

    path: str
    asked: Transfer


class EarlyOpens:
    """Asks for blobs beside lookups. Its methods may be called from many threads."""

    def __init__(self, volume: Volume, callers: Callers, asked_ahead: AskedAhead, *, open_bytes: int) -> None:
        self._volume = volume
        self._callers = callers
        self._asked_ahead = asked_ahead
        self._open_bytes = open_bytes
        self._lock = threading.Lock()  # guards the fields below
        self._early: cachetools.LRUCache[int, _Early] = cachetools.LRUCache(REMEMBERED_THREADS)
        self._in_vain = 0

    def forget(self) -> None:
        """Note that the caller looks something up: what was asked before was for another open(2)."""
        if self._early:
            self._take(self._callers.thread_id())

    def look_up(self, path: str) -> None:
        """Ask for a file of which nothing is known, if the caller looks the path up to open it."""
        thread = self._callers.thread_id()
        if not thread or not self._callers.is_opening_to_read():
            return
        node = self._volume.namespace.last_known(path)
        if (node is None or not node.is_directory) and self._is_worthwhile():
            known, name = node.blob if node else None, self._volume.names.blob_name(path)
            early = _Early(path, self._asked_ahead.ask(name, known, self._open_bytes))
            with self._lock:
                self._early[thread] = early

    def come_to(self, path: str) -> Answer | None:
        """Return what was asked for this open(2) of the caller's, None if nothing was, or it is of no use.

        Waits for a request that is under way. Raises Abandoned.
        """
        early = self._take(self._callers.thread_id())
        if early is None or early.path != path:
            return None
        with self._lock:
            self._in_vain = 0
        return self._asked_ahead.answer(early.asked, within_seconds=LATEST_SECONDS)

    def _take(self, thread: int) -> _Early | None:
        with self._lock:
            return self._early.pop(thread, None)

    def _is_worthwhile(self) -> bool:
        """Tell whether asking has been of use lately; from time to time that is tried again."""
        with self._lock:
            self._in_vain += 1
            return self._in_vain <= MOST_IN_VAIN or self._in_vain % RETRIED == 0
