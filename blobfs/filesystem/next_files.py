"""Files that a copy will open next: asked for before it does, so that not every open() waits in turn.

An open() tells what the service has at that moment, because whoever opens a file may have heard
that another node has closed it. Programs that only copy or compare hear of nothing while they run:
for them alone the answer may be from a moment before. They are known by their names, and as soon
as they open the files of a directory in its order: by name, or as cp and tar do by inode number.
Who passes none over, reads them all: small files come whole, and not only their first bytes.
"""

import threading
from dataclasses import dataclass, field

import cachetools

from blobfs.callers import Callers
from blobfs.filesystem.asked_ahead import AskedAhead
from blobfs.filesystem.volume import Answer, Volume
from blobfs.format.names import split_path
from blobfs.store import BlobInfo
from blobfs.transfers import Transfer

# mv is none of them: it removes what it has copied, and that must not be newer than the copy.
PROGRAMS = frozenset(
    ("cmp", "cp", "diff", "grep", "md5sum", "rsync", "scp", "sha1sum", "sha256sum", "sha512sum", "tar")
)
IN_ORDER = 2  # files opened after the one before them, until those ahead are asked for
SKIPPED = 4  # files that may be passed over: rsync opens only those that it sends
MOST_FILES = 10_000  # in one directory; sorting more would hold up an open() for longer than a request
REMEMBERED_THREADS = 64


@dataclass(slots=True)
class _Walk:
    """One thread's way through the files of a directory."""

    prefix: str
    orders: tuple[list[str], ...] = ()  # the directory's files, in each order that programs have
    places: tuple[dict[str, int], ...] = ()
    last: list[int] = field(default_factory=list)  # the place of the file opened last, in each order
    in_order: int = 0
    passes_over: bool = False  # files between those that it opens
    order: int = 0  # the one that the thread follows
    asked: dict[str, Transfer] = field(default_factory=dict)

    def step_to(self, entry: str) -> None:
        """Note that a file is opened."""
        here = [places.get(entry, -1) for places in self.places]
        steps = [place - last for place, last in zip(here, self.last, strict=True)]
        follows = [0 < step <= SKIPPED for step in steps]
        self.last = here
        if any(follows):
            self.order = self.order if follows[self.order] else follows.index(True)
            self.passes_over = steps[self.order] > 1
        self.in_order = self.in_order + 1 if any(follows) else 0

    def next_files(self, count: int) -> list[str]:
        """Return the files that come after the one opened last, if the thread keeps to an order."""
        if self.in_order < IN_ORDER:
            return []
        place = self.last[self.order] + 1
        return self.orders[self.order][place : place + count]


class NextFiles:
    """What is asked for ahead. Its methods may be called from many threads."""

    def __init__(
        self,
        volume: Volume,
        callers: Callers,
        asked_ahead: AskedAhead,
        *,
        open_bytes: int,
        whole_bytes: int,
        ahead_files: int,
        within_seconds: float,
    ) -> None:
        self._volume = volume
        self._callers = callers
        self._asked_ahead = asked_ahead
        self._open_bytes = open_bytes
        self._whole_bytes = whole_bytes
        self._ahead_files = ahead_files
        self._within_seconds = within_seconds
        self._lock = threading.Lock()  # guards the walks
        self._walks: cachetools.LRUCache[int, _Walk] = cachetools.LRUCache(REMEMBERED_THREADS)

    def come_to(self, path: str) -> Answer | None:
        """Note that the caller opens a file to read it, and return what was asked of that ahead for it.

        None if nothing was, or not in time. Waits for a request that is under way.
        """
        thread = self._callers.thread_id()
        if not thread:
            return None
        parent, entry = split_path(path)
        prefix = self._volume.names.directory_prefix(parent)
        with self._lock:
            walk = self._walk_in(thread, prefix)
            walk.step_to(entry)
            asked = walk.asked.pop(entry, None)
            ahead = walk.next_files(self._ahead_files)
        if not ahead and asked is None:
            return None
        if self._callers.program() not in PROGRAMS:
            return None
        self._ask_for(walk, prefix, ahead)
        if asked is None:
            return None
        return self._asked_ahead.answer(asked, within_seconds=self._within_seconds)

    def _walk_in(self, thread: int, prefix: str) -> _Walk:
        """Return the thread's walk, begun anew in each directory but for the order that it keeps to."""
        walk = self._walks.get(thread)
        if walk is None or walk.prefix != prefix:
            earlier = walk
            walk = self._walks[thread] = self._begin(prefix)
            if earlier is not None:
                walk.in_order, walk.order = earlier.in_order, earlier.order
        return walk

    def _begin(self, prefix: str) -> _Walk:
        files = self._volume.namespace.cache.last_known_files(prefix, MOST_FILES)
        number_of = self._volume.inodes.of
        orders = (sorted(files, key=lambda entry: number_of(prefix + entry)), sorted(files))
        places = tuple({entry: place for place, entry in enumerate(order)} for order in orders)
        return _Walk(prefix, orders, places, [-1, -1])

    def _ask_for(self, walk: _Walk, prefix: str, entries: list[str]) -> None:
        cache, ask = self._volume.namespace.cache, self._asked_ahead.ask
        with self._lock:
            walk.asked = {entry: walk.asked[entry] for entry in entries if entry in walk.asked}
            for entry in entries:
                node = cache.last_known(prefix, entry)
                blob = node.blob if node is not None else None
                if blob is not None and entry not in walk.asked and not self._is_at_hand(blob):
                    walk.asked[entry] = ask(blob.name, blob, self._first_bytes(blob, walk))

    def _is_at_hand(self, blob: BlobInfo) -> bool:
        """Tell whether a file can be opened and read without the service, if opens need not ask it."""
        volume = self._volume
        if volume.namespace.close_to_open:
            return False
        return not blob.size_bytes or volume.may_have_pages(blob) or volume.reader.has_first_bytes(blob)

    def _first_bytes(self, blob: BlobInfo, walk: _Walk) -> int:
        is_whole = blob.size_bytes <= self._whole_bytes and not walk.passes_over
        return blob.size_bytes if is_whole else self._open_bytes
