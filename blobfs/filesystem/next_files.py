"""Files that a copy will open next: asked for before it does, so that not every open() waits in turn.

An open() tells what the service has at that moment, because whoever opens a file may have heard
that another node has closed it. Programs that only copy or compare hear of nothing while they run:
for them alone the answer may be from a moment before. They are known by their names, and as soon
as they open the files of a directory in its order: by name, or as cp and tar do by inode number.
Who passes none over, reads them all: small files come whole, and not only their first bytes.
Of files whose bytes are here already, one listing tells as much as a request for each; it is believed
if it was made while the program was already opening files.
"""

import threading
from dataclasses import dataclass, field

import cachetools

from blobfs.callers import Callers
from blobfs.errors import Abandoned, Failure
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
    began_at: float  # when the thread opened the first of its files, in whichever directory
    orders: tuple[list[str], ...] = ()  # the directory's files, in each order that programs have
    places: tuple[dict[str, int], ...] = ()
    last: list[int] = field(default_factory=list)  # the place of the file opened last, in each order
    in_order: int = 0
    passes_over: bool = False  # files between those that it opens
    order: int = 0  # the one that the thread follows
    asked: dict[str, Transfer | None] = field(default_factory=dict)  # None: a listing will tell
    by_listing: bool = False  # a listing tells of files whose bytes are here
    listing: Transfer | None = None  # the last one asked for before it was needed
    may_list: bool = True  # one request is enough for that
    last_at: float = 0.0  # when it last opened a file

    @property
    def is_in_order(self) -> bool:
        """The thread keeps to an order."""
        return self.in_order >= IN_ORDER

    @property
    def is_being_listed(self) -> bool:
        """A listing is under way."""
        return self.listing is not None and not self.listing.done()

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
        if not self.is_in_order:
            return []
        place = self.last[self.order] + 1
        return self.orders[self.order][place : place + count]


class NextFiles:
    """Asks for files ahead. Its methods may be called from many threads."""

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
        self._cache = volume.namespace.cache
        self._callers = callers
        self._asked_ahead = asked_ahead
        self._open_bytes = open_bytes
        self._whole_bytes = whole_bytes
        self._ahead_files = ahead_files
        self._within_seconds = within_seconds
        self._lock = threading.Lock()  # guards the walks
        self._walks: cachetools.LRUCache[int, _Walk] = cachetools.LRUCache(REMEMBERED_THREADS)

    def come_to(self, path: str) -> Answer | None:
        """Note that the caller opens a file to read it; return the answer if it was asked for ahead.

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
        if asked is None and not walk.is_in_order:
            return None
        if self._callers.program() not in PROGRAMS:
            return None
        self._ask_for(walk, ahead)
        if asked is not None:
            return self._asked_ahead.answer(asked, within_seconds=self._within_seconds)
        return self._told_by_listing(walk, entry)

    def wait_for(self, path: str) -> None:
        """Wait for the request that asks ahead for what the caller reads now, if one is under way.

        A link is not opened, but its bytes come like a file's. Raises Abandoned.
        """
        parent, entry = split_path(path)
        prefix = self._volume.names.directory_prefix(parent)
        with self._lock:
            walk = self._walks.get(self._callers.thread_id())
            asked = walk.asked.pop(entry, None) if walk is not None and walk.prefix == prefix else None
        if asked is not None:
            self._asked_ahead.has_come(asked)

    def _walk_in(self, thread: int, prefix: str) -> _Walk:
        """Return the thread's walk, begun anew in each directory but for the order that it keeps to."""
        now = self._cache.now()
        walk = self._walks.get(thread)
        if walk is None or walk.prefix != prefix:
            earlier = walk
            walk = self._walks[thread] = self._begin(prefix, now)
            if earlier is not None:
                walk.in_order, walk.order = earlier.in_order, earlier.order
                walk.began_at, walk.last_at = earlier.began_at, earlier.last_at
        if now - walk.last_at >= self._within_seconds:  # it may be another thread by now, of the same number
            walk.began_at = now
        walk.last_at = now
        return walk

    def _begin(self, prefix: str, now: float) -> _Walk:
        files = self._cache.last_known_files(prefix, MOST_FILES)
        number_of = self._volume.inodes.of
        orders = (sorted(files, key=lambda entry: number_of(prefix + entry)), sorted(files))
        places = tuple({entry: place for place, entry in enumerate(order)} for order in orders)
        return _Walk(prefix, now, orders, places, [-1, -1])

    def _ask_for(self, walk: _Walk, entries: list[str]) -> None:
        with self._lock:
            walk.asked = {entry: walk.asked[entry] for entry in entries if entry in walk.asked}
            self._plan_listing(walk, entries)
            for entry in entries:
                if entry not in walk.asked and (blob := self._last_blob(walk, entry)) is not None:
                    is_told = self._will_be_told(walk, entry) and self._is_at_hand(blob)
                    walk.asked[entry] = None if is_told else self._ask(walk, blob)

    def _ask(self, walk: _Walk, blob: BlobInfo) -> Transfer:
        is_whole = blob.size_bytes <= self._whole_bytes and not walk.passes_over
        return self._asked_ahead.ask(blob.name, blob, blob.size_bytes if is_whole else self._open_bytes)

    def _plan_listing(self, walk: _Walk, entries: list[str]) -> None:
        """Decide whether a listing is to tell of the next files whose bytes are here.

        A recent one does, whoever asked for it; while it is of use, it is asked for anew before it is too
        old. Without one, it takes as many such files as are asked for at once to be worth a request.
        """
        is_many = len(entries) == self._ahead_files
        if self._is_recent(walk):
            walk.by_listing = True
            is_used = is_many and None in walk.asked.values()
            is_old = is_used and not self._is_recent(walk, self._within_seconds / 2)
            if is_old and walk.may_list and not walk.is_being_listed:
                walk.listing = self._asked_ahead.list(walk.prefix)
        elif is_many or not walk.by_listing:
            are_here = is_many and all(self._is_here(walk, entry) for entry in reversed(entries))
            walk.by_listing = walk.may_list and are_here

    def _will_be_told(self, walk: _Walk, entry: str) -> bool:
        """Tell whether a file whose bytes are here need not be asked for: a listing will tell of it."""
        if not self._volume.namespace.close_to_open:
            return True
        is_newer_known = self._is_recent(walk) and self._cache.last_listed(walk.prefix, entry) is None
        return walk.by_listing and not is_newer_known

    def _told_by_listing(self, walk: _Walk, entry: str) -> Answer | None:
        """Return what a listing says of a file whose bytes are here. May wait for one."""
        blob = self._last_blob(walk, entry)
        if not walk.by_listing or blob is None or not self._is_at_hand(blob):
            return None
        if not self._is_recent(walk):
            self._list(walk)
        name, store = walk.prefix + entry, self._volume.store
        # In this order: what is listed or written meanwhile makes the answer newer, or one that is not used.
        last_write, asked_at = store.last_write(name), self._cache.listed_at(walk.prefix)
        node = self._cache.last_listed(walk.prefix, entry)
        if node is None or node.blob is None or node.is_directory or store.is_overtaken_since(name, asked_at):
            return None
        return Answer(node.blob, last_write, asked_at) if self._is_new(walk, asked_at) else None

    def _list(self, walk: _Walk) -> None:
        """Have the directory listed, by the request that is under way or by one more."""
        listing = walk.listing
        try:
            if listing is None or listing.done() or not self._asked_ahead.has_come(listing):
                walk.may_list = self._volume.namespace.list_again(walk.prefix)
        except Failure as failure:
            if isinstance(failure, Abandoned):
                raise
            walk.may_list = False  # the caller asks for its file, and is told

    def _is_recent(self, walk: _Walk, within_seconds: float | None = None) -> bool:
        return self._is_new(walk, self._cache.listed_at(walk.prefix), within_seconds)

    def _is_new(self, walk: _Walk, asked_at: float, within_seconds: float | None = None) -> bool:
        """Tell whether something was asked for since the thread began to open files, and not long ago."""
        within_seconds = self._within_seconds if within_seconds is None else within_seconds
        return asked_at >= walk.began_at and self._cache.now() - asked_at < within_seconds

    def _is_here(self, walk: _Walk, entry: str) -> bool:
        blob = self._last_blob(walk, entry)
        return blob is not None and self._is_at_hand(blob)

    def _last_blob(self, walk: _Walk, entry: str) -> BlobInfo | None:
        node = self._cache.last_known(walk.prefix, entry)
        return node.blob if node is not None else None

    def _is_at_hand(self, blob: BlobInfo) -> bool:
        """Tell whether a file can be opened and read without the service, but for what it is now."""
        volume = self._volume
        return not blob.size_bytes or volume.pages.may_be_of(blob) or volume.first_bytes.are_here(blob)
