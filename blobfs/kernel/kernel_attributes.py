"""Attributes that the kernel was given recently, and so may still use.

With libfuse 2 they cannot be taken back: all there is to do is to wait. With libfuse 3 they can, at the
price of the file's pages.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import cachetools

from blobfs.filesystem.volume import Stat

OUTLASTED_SECONDS = 0.25  # much longer than an answer is valid: the kernel may get to it late
MOST_PATHS = 10_000  # more than are asked for in that time
LONG_AGO = -math.inf


class _Answer(NamedTuple):
    """What the kernel was told last of a path."""

    stat: Stat | None  # None: something that is not known here
    at: float
    differed_at: float  # when something else was told before it


@dataclass(frozen=True, slots=True)
class _Listing:
    """When the kernel was told last of all entries of a directory."""

    began_at: float
    ended_at: float
    before_at: float  # when the listing before it ended


NOTHING = _Answer(None, LONG_AGO, LONG_AGO)
NEVER = _Listing(LONG_AGO, LONG_AGO, LONG_AGO)


class KernelAttributes:
    """The last answer for each path, and the last listing of each directory. For any thread."""

    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()  # guards the maps
        self._answers: cachetools.LRUCache[bytes, _Answer] = cachetools.LRUCache(MOST_PATHS)
        self._listings: cachetools.LRUCache[bytes, _Listing] = cachetools.LRUCache(MOST_PATHS)
        self._entries: cachetools.LRUCache[bytes, dict[bytes, Stat]] = cachetools.LRUCache(
            MOST_PATHS, getsizeof=len
        )

    def note(self, path: bytes, stat: Stat | None) -> None:
        """Record what the kernel is being told; None for something that is not known here."""
        with self._lock:
            now, before = self._now(), self._answers.get(path, NOTHING)
            differs = before is not NOTHING and before.stat != stat
            self._answers[path] = _Answer(stat, now, before.at if differs else before.differed_at)

    def note_listing(self, directory: bytes, entries: Mapping[bytes, Stat], *, goes_on: bool) -> None:
        """Record entries of a directory that the kernel is being told of, or more of them if it `goes_on`."""
        with self._lock:
            now, before = self._now(), self._listings.get(directory, NEVER)
            listed = self._entries.pop(directory, {}) if goes_on else {}
            listed.update(entries)
            if len(listed) <= MOST_PATHS:
                self._entries[directory] = listed
            began = before if goes_on and before is not NEVER else _Listing(now, now, before.ended_at)
            self._listings[directory] = replace(began, ended_at=now)

    def drop(self, path: bytes) -> None:
        """Record that the kernel does not rely on what it was told of a path any more."""
        self.note(path, None)

    def rename(self, old: bytes, new: bytes) -> None:
        """Record that what the kernel was told is now about another path."""
        with self._lock:
            self._answers[new] = self._answers.pop(old, NOTHING)

    def is_believed(self, path: bytes, stat: Stat) -> bool:
        """Tell whether the kernel was surely told this last: answers may overtake each other."""
        parent, _, entry = path.rpartition(b"/")
        directory = parent or b"/"
        with self._lock:
            answer = self._answers.get(path, NOTHING)
            listing = self._listings.get(directory, NEVER)
            listed = self._entries.get(directory, {}).get(entry)
        answers = ((answer.stat, answer.at, answer.at), (listed, listing.began_at, listing.ended_at))
        same_at = max((began_at for what, began_at, _ in answers if what == stat), default=LONG_AGO)
        others_at = (ended_at for what, _, ended_at in answers if what != stat)
        other_at = max(answer.differed_at, listing.before_at, *others_at)
        return same_at > other_at + OUTLASTED_SECONDS

    def wait_unless(self, path: bytes, stat: Stat) -> None:
        """Block until the kernel has forgotten what it was told last, unless that was this."""
        with self._lock:
            answer = self._answers.get(path, NOTHING)
        left_seconds = answer.at + OUTLASTED_SECONDS - self._now()
        if answer.stat is not None and answer.stat != stat and left_seconds > 0:
            self._sleep(left_seconds)
