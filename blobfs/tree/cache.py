"""What names are known to be, for a while: files, directories, and names known to be absent.

Only memory: nothing here asks the service. A complete listing answers for every name of its
directory, absent ones included.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import cachetools

from blobfs.store import BlobInfo

SMALL_NAMES = 256  # a listing of this many costs about as much as asking for one
WALK_SECONDS = 5.0  # how old a listing offered to a walk may be: a page of 5,000 names takes about one second
ENTRY_BYTES = 1024  # what one known name costs in memory: some 500 without metadata, 900 with ours


class Node(NamedTuple):
    """What is under a name: a file with its blob, or a directory with its marker, if it has one."""

    blob: BlobInfo | None
    is_directory: bool = False


class Belief(NamedTuple):
    """What the cache says of a name. If it is known and has no node, the name was absent a moment ago."""

    node: Node | None
    is_known: bool


NO_THREAD = 0  # the number of an unknown thread
UNKNOWN = Belief(None, is_known=False)
ABSENT = Belief(None, is_known=True)


@dataclass(slots=True)
class Walk:
    """A program on its way through a tree; listings of directories ahead of it are offered to it."""

    visited_at: float  # when it last asked for a directory


@dataclass(slots=True)
class Directory:
    """The known names of one directory, and until when each is trusted."""

    nodes: dict[str, Node | None] = field(default_factory=dict)
    listed_until: float = 0.0  # for names without a time of their own
    complete_until: float = 0.0
    absent_until: float = 0.0  # for names that are not in the listing
    own_until: dict[str, float] = field(default_factory=dict)  # of names learnt one by one
    walk: Walk | None = None  # to which the listing is offered
    offered_until: float = 0.0
    shown_to: int = NO_THREAD  # the thread of the walk that was shown the offered listing
    shown_until: float = 0.0
    is_large: bool = False
    was_listed: bool = False
    asked_at: float = float("-inf")  # when its listing was asked for
    missed_at: float = float("-inf")  # when a name was last missed
    _subdirectories: int | None = None  # counted when that is asked for

    @property
    def weight_bytes(self) -> int:
        """The directory's share of the bound."""
        return ENTRY_BYTES * (1 + len(self.nodes))

    def until(self, entry: str, thread: int = NO_THREAD) -> float:
        """Return until when a known name is trusted, by this thread or by all."""
        is_shown = thread != NO_THREAD and thread == self.shown_to
        return self.own_until.get(entry, self.shown_until if is_shown else self.listed_until)

    def newer(self, older_until: float) -> dict[str, Node | None]:
        """Return the names that are trusted for longer than this."""
        names = self.own_until if self.listed_until <= older_until else self.nodes
        return {entry: self.nodes[entry] for entry in names if self.until(entry) > older_until}

    def set(self, entry: str, node: Node | None, until: float) -> None:
        """Set one name, whatever the listing says of it."""
        self._recount(entry, node)
        self.nodes[entry] = node
        self.own_until[entry] = until

    def drop(self, entry: str) -> None:
        """Forget one name; the listing is then not complete any more."""
        self._recount(entry, None)
        self.nodes.pop(entry, None)
        self.own_until.pop(entry, None)
        self.complete_until = self.absent_until = 0.0
        self.walk = None

    @property
    def subdirectories(self) -> int:
        """How many of the names are directories."""
        if self._subdirectories is None:
            self._subdirectories = sum(map(_is_directory, self.nodes.values()))
        return self._subdirectories

    def shown(self) -> dict[str, Node]:
        """Return the names under which there is something."""
        return {entry: node for entry, node in self.nodes.items() if node is not None}

    def _recount(self, entry: str, node: Node | None) -> None:
        """Keep the count while one name changes: the kernel asks for it after each change."""
        if self._subdirectories is not None:
            self._subdirectories += _is_directory(node) - _is_directory(self.nodes.get(entry))


def _is_directory(node: Node | None) -> bool:
    return node is not None and node.is_directory


class TreeCache:
    """Names by directory prefix (empty, or ending in ``/``), bounded, each trusted for `ttl_seconds`."""

    def __init__(
        self, *, ttl_seconds: float, capacity_bytes: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self.capacity_bytes = capacity_bytes
        self._now = now
        self._lock = threading.Lock()  # guards the directories and what is in them
        self._forgotten_at = float("-inf")
        self._directories: cachetools.LRUCache[str, Directory] = cachetools.LRUCache(
            capacity_bytes, getsizeof=lambda directory: directory.weight_bytes
        )

    def lookup(self, prefix: str, entry: str, thread: int = NO_THREAD) -> Belief:
        """Return what is known of a name now, also by its absence from a complete listing.

        The thread of a walk goes on being told what it was shown.
        """
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is None:
                return UNKNOWN
            now = self._now()
            if entry not in directory.nodes:
                return ABSENT if now < directory.absent_until else UNKNOWN
            is_believed = now < directory.until(entry, thread)
            return Belief(directory.nodes[entry], is_known=True) if is_believed else UNKNOWN

    def last_known(self, prefix: str, entry: str) -> Node | None:
        """Return what a name last was, however long ago."""
        with self._lock:
            directory = self._directories.get(prefix)
            return directory.nodes.get(entry) if directory is not None else None

    def listed_at(self, prefix: str) -> float:
        """Return when the last listing of a directory was asked for, by this cache's clock."""
        with self._lock:
            directory = self._directories.get(prefix)
            return directory.asked_at if directory is not None else float("-inf")

    def last_listed(self, prefix: str, entry: str) -> Node | None:
        """Return what the last listing of a directory said of a name; None if something newer is known."""
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is None or entry in directory.own_until:
                return None
            return directory.nodes.get(entry)

    def last_known_files(self, prefix: str, most: int) -> list[str]:
        """Return the files that a directory had when it was last asked for; none if they are more."""
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is None or len(directory.nodes) > most:
                return []
            return [entry for entry, node in directory.shown().items() if not node.is_directory]

    def listing(self, prefix: str, thread: int = NO_THREAD) -> dict[str, Node] | None:
        """Return a complete listing that is still trusted, or None.

        One that is offered to a walk is shown when the walk gets there, without a pause and in time. From
        then on it is trusted for `ttl_seconds` more, by that thread only.
        """
        with self._lock:
            directory = self._directories.get(prefix)
            now = self._now()
            if directory is None:
                return None
            if now >= directory.complete_until:
                if not self._is_offered(directory, now):
                    return None
                directory.shown_to, directory.shown_until = thread, now + self._ttl_seconds
            directory.walk = None
            return directory.shown()

    def is_worth_listing(self, prefix: str) -> bool:
        """Tell whether a listing is due and costs about as much as one name: not fresh, not large."""
        with self._lock:
            directory = self._directories.get(prefix)
            return directory is None or not (directory.is_large or self._now() < directory.complete_until)

    def note_miss(self, prefix: str) -> bool:
        """Note that a file's name has expired; tell whether to list its directory instead of asking for it.

        True if the directory is small, or if another of its names was missed within `ttl_seconds`.
        """
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is None:
                return True
            missed_at, directory.missed_at = directory.missed_at, self._now()
            return len(directory.nodes) <= SMALL_NAMES or directory.missed_at - missed_at < self._ttl_seconds

    def is_known_empty(self, prefix: str) -> bool:
        """Tell whether a directory, listed however long ago, has nothing left after this mount's changes."""
        with self._lock:
            directory = self._directories.get(prefix)
            return directory is not None and not any(directory.nodes.values())

    def count_subdirectories(self, prefix: str) -> int | None:
        """Return how many entries are directories, None if the directory was never listed."""
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is None or not directory.was_listed:
                return None
            return directory.subdirectories

    def record_listing(self, prefix: str, nodes: dict[str, Node], asked_at: float) -> dict[str, Node]:
        """Record a complete listing, asked for at `asked_at` by this cache's clock; return what holds.

        It is trusted for `ttl_seconds` from when it is complete: counted from `asked_at`, one that takes
        longer than that would never be of use. Changes that were made here meanwhile stand.
        """
        with self._lock:
            return self._record_listing(prefix, nodes, asked_at).shown()

    def offer_listing(self, prefix: str, nodes: dict[str, Node], asked_at: float, walk: Walk | None) -> None:
        """Like `record_listing`, and keep the listing for a walk, WALK_SECONDS from `asked_at` at most.

        Without a walk it is trusted for `ttl_seconds` from `asked_at`. It is dropped if any name was
        forgotten meanwhile, which could be one of this directory.
        """
        with self._lock:
            if asked_at > self._forgotten_at:
                directory = self._record_listing(prefix, nodes, asked_at)
                directory.walk, directory.offered_until = walk, asked_at + WALK_SECONDS
                directory.absent_until = asked_at + self._ttl_seconds  # it may have waited for the walk
                if walk is None:
                    directory.listed_until = directory.complete_until = directory.absent_until

    def mark_large(self, prefix: str) -> None:
        """Remember that listing this directory takes more than one page."""
        with self._lock:
            directory = self._directories.pop(prefix, None) or Directory()
            directory.is_large = True
            self._store(prefix, directory)

    def record_answer(self, prefix: str, entry: str, node: Node | None, asked_at: float) -> Node | None:
        """Record what the service said, unless something newer is known by now; return what holds."""
        with self._lock:
            directory = self._directories.get(prefix)
            is_known = directory is not None and entry in directory.nodes
            if directory and is_known and directory.until(entry) > asked_at + self._ttl_seconds:
                return directory.nodes[entry]
        self.record(prefix, entry, node)
        return node

    def record(self, prefix: str, entry: str, node: Node | None) -> None:
        """Record one name, trusted from now on; None if there is nothing under it."""
        with self._lock:
            directory = self._directories.pop(prefix, None) or Directory()
            directory.set(entry, node, self._now() + self._ttl_seconds)
            self._store(prefix, directory)

    def record_empty(self, prefix: str) -> None:
        """Record an empty directory, which this mount has just made."""
        with self._lock:
            expires_at = self._now() + self._ttl_seconds
            self._directories.pop(prefix, None)
            self._store(prefix, Directory({}, expires_at, expires_at, expires_at, was_listed=True))

    def forget(self, prefix: str, entry: str) -> None:
        """Forget one name."""
        with self._lock:
            self._forgotten_at = self._now()
            directory = self._directories.get(prefix)
            if directory is not None:
                directory.drop(entry)

    def forget_tree(self, prefix: str) -> None:
        """Forget a directory and all below it."""
        with self._lock:
            self._forgotten_at = self._now()
            for known in [known for known in self._directories if known.startswith(prefix)]:
                del self._directories[known]

    def now(self) -> float:
        """Return the cache's clock, to be read before a listing is asked for."""
        return self._now()

    def is_under_way(self, walk: Walk) -> bool:
        """Tell whether a walk has asked for a directory within `ttl_seconds`: a longer pause ends it."""
        return self._now() - walk.visited_at < self._ttl_seconds

    def _is_offered(self, directory: Directory, now: float) -> bool:
        """Tell whether a walk that comes to a directory may be shown what was listed for it."""
        walk = directory.walk
        return walk is not None and now < directory.offered_until and self.is_under_way(walk)

    def _record_listing(self, prefix: str, nodes: dict[str, Node], asked_at: float) -> Directory:
        expires_at = self._now() + self._ttl_seconds
        directory = Directory(
            {**nodes}, expires_at, expires_at, expires_at, was_listed=True, asked_at=asked_at
        )
        old = self._directories.pop(prefix, None)
        if old is not None:
            for entry, node in old.newer(asked_at + self._ttl_seconds).items():
                directory.set(entry, node, old.until(entry))
        self._store(prefix, directory)
        return directory

    def _store(self, prefix: str, directory: Directory) -> None:
        """Keep a directory; of one that does not fit, keep only that it is large."""
        fits = directory.weight_bytes <= self.capacity_bytes
        self._directories[prefix] = directory if fits else Directory(is_large=True)
