"""What names are known to be, for a while: files, directories, and names known to be absent.

Only memory: nothing here asks the service. A complete listing answers for every name of its
directory, absent ones included.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cachetools

from blobfs.store import BlobInfo

SMALL_NAMES = 256  # a listing of this many costs about as much as asking for one
ENTRY_BYTES = 1024  # what one known name costs in memory, roughly, for the bound


@dataclass(frozen=True, slots=True)
class Node:
    """What stands under a name: a file with its blob, or a directory with its marker, if it has one."""

    blob: BlobInfo | None
    is_directory: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the cache says of a name. Without a node the name was absent a moment ago, if that is known."""

    node: Node | None
    is_known: bool


UNKNOWN = Answer(None, is_known=False)


@dataclass(slots=True)
class Directory:
    """The known names of one directory, each with the time it stops being believed."""

    nodes: dict[str, tuple[Node | None, float]] = field(default_factory=dict)
    complete_until: float = 0.0
    is_large: bool = False
    was_listed: bool = False
    missed_at: float = float("-inf")  # when a name was last missed

    @property
    def weight_bytes(self) -> int:
        """The directory's share of the bound."""
        return ENTRY_BYTES * (1 + len(self.nodes))


class TreeCache:
    """Names by directory prefix (empty, or ending in ``/``), bounded, each believed for `ttl_seconds`."""

    def __init__(
        self, *, ttl_seconds: float, capacity_bytes: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._capacity_bytes = capacity_bytes
        self._now = now
        self._lock = threading.Lock()  # guards the directories and what is in them
        self._directories: cachetools.LRUCache[str, Directory] = cachetools.LRUCache(
            capacity_bytes, getsizeof=lambda directory: directory.weight_bytes
        )

    def lookup(self, prefix: str, entry: str) -> Answer:
        """Say what is known of a name now, also by its absence from a complete listing."""
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is None:
                return UNKNOWN
            now = self._now()
            node, expires_at = directory.nodes.get(entry, (None, 0.0))
            if now < expires_at:
                return Answer(node, is_known=True)
            is_known = entry not in directory.nodes and now < directory.complete_until
            return Answer(None, is_known=is_known)

    def last_known(self, prefix: str, entry: str) -> Node | None:
        """Return what a name last was, however long ago."""
        with self._lock:
            directory = self._directories.get(prefix)
            return directory.nodes.get(entry, (None, 0.0))[0] if directory is not None else None

    def listing(self, prefix: str) -> Mapping[str, Node] | None:
        """Return a complete listing that is still believed, or None."""
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is None or self._now() >= directory.complete_until:
                return None
            return {entry: node for entry, (node, _) in directory.nodes.items() if node is not None}

    def is_worth_listing(self, prefix: str) -> bool:
        """A listing would answer for all names at about the price of one: not fresh, not large."""
        with self._lock:
            directory = self._directories.get(prefix)
            return directory is None or not (directory.is_large or self._now() < directory.complete_until)

    def is_browsed(self, prefix: str) -> bool:
        """Tell whether to list a directory rather than ask for one file of it, whose name was missed now.

        So if it is small, or if another name was missed there within `ttl_seconds`.
        """
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is None:
                return True
            missed_at, directory.missed_at = directory.missed_at, self._now()
            return len(directory.nodes) <= SMALL_NAMES or directory.missed_at - missed_at < self._ttl_seconds

    def is_known_empty(self, prefix: str) -> bool:
        """A directory that was listed, however long ago, has nothing left after this mount's changes."""
        with self._lock:
            directory = self._directories.get(prefix)
            return directory is not None and not any(node for node, _ in directory.nodes.values())

    def count_subdirectories(self, prefix: str) -> int | None:
        """Return how many entries are directories, None if the directory was never listed."""
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is None or not directory.was_listed:
                return None
            return sum(1 for node, _ in directory.nodes.values() if node is not None and node.is_directory)

    def record_listing(self, prefix: str, nodes: dict[str, Node], asked_at: float) -> dict[str, Node]:
        """Believe a complete listing that was asked for at `asked_at` (by this cache's clock).

        It is believed from its end on: one that takes longer than that would never be of use.
        Changes made here meanwhile stand; returned is what is believed.
        """
        with self._lock:
            expires_at = self._now() + self._ttl_seconds
            old = self._directories.pop(prefix, None)
            directory = Directory({entry: (node, expires_at) for entry, node in nodes.items()}, expires_at)
            directory.was_listed = True
            newer = self._newer(old, asked_at + self._ttl_seconds) if old is not None else {}
            directory.nodes.update(newer)
            self._store(prefix, directory)
        changed = {**nodes, **{entry: node for entry, (node, _) in newer.items()}} if newer else nodes
        return {entry: node for entry, node in changed.items() if node is not None}

    def mark_large(self, prefix: str) -> None:
        """Remember that listing this directory takes more than one page."""
        with self._lock:
            directory = self._directories.pop(prefix, None) or Directory()
            directory.is_large = True
            self._store(prefix, directory)

    def record_answer(self, prefix: str, entry: str, node: Node | None, asked_at: float) -> Node | None:
        """Believe what the service said, if nothing newer is known by now; return what is believed."""
        with self._lock:
            directory = self._directories.get(prefix)
            newest, expires_at = directory.nodes.get(entry, (None, 0.0)) if directory else (None, 0.0)
            if expires_at > asked_at + self._ttl_seconds:
                return newest
        self.record(prefix, entry, node)
        return node

    def record(self, prefix: str, entry: str, node: Node | None) -> None:
        """Believe one name from now on; None if there is nothing under it."""
        with self._lock:
            directory = self._directories.pop(prefix, None) or Directory()
            expires_at = self._now() + self._ttl_seconds
            directory.nodes[entry] = (node, expires_at)
            self._store(prefix, directory)

    def record_empty(self, prefix: str) -> None:
        """Believe that a directory this mount has just made is empty."""
        with self._lock:
            expires_at = self._now() + self._ttl_seconds
            self._directories.pop(prefix, None)
            self._store(prefix, Directory({}, expires_at, was_listed=True))

    def forget(self, prefix: str, entry: str) -> None:
        """Believe nothing of one name any more."""
        with self._lock:
            directory = self._directories.get(prefix)
            if directory is not None:
                directory.nodes.pop(entry, None)
                directory.complete_until = 0.0

    def forget_tree(self, prefix: str) -> None:
        """Believe nothing of a directory and all below it."""
        with self._lock:
            for known in [known for known in self._directories if known.startswith(prefix)]:
                del self._directories[known]

    def now(self) -> float:
        """Return the cache's clock, to be read before a listing is asked for."""
        return self._now()

    @staticmethod
    def _newer(directory: Directory, older_until: float) -> dict[str, tuple[Node | None, float]]:
        return {entry: known for entry, known in directory.nodes.items() if known[1] > older_until}

    def _store(self, prefix: str, directory: Directory) -> None:
        if directory.weight_bytes <= self._capacity_bytes:
            self._directories[prefix] = directory
