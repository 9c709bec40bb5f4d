"""Recursive walks: recognised by what they ask for, and served by flat listings.

A program that lists a directory and then, without a pause, two of its subdirectories is walking the tree. So
is a copy that looks for new names in one directory after the other. Instead of one request per directory, all
names below the first one are then listed in order, up to 5,000 a request. A directory is offered to the walk
when all its names have been listed. While the walk uses one page, the next page is asked for.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import cachetools

from blobfs.blocks import MAX_LIST_RESULTS
from blobfs.format.attributes import is_directory_marker
from blobfs.store import BlobInfo, BlobStore, ListPage
from blobfs.transfers import Transfer, Transfers
from blobfs.tree.cache import ENTRY_BYTES, WALK_SECONDS, TreeCache, Walk
from blobfs.waits import Waits

REMEMBERED_TREES = 1000  # directories that were listed, with what was then listed below them
PAGE_SECONDS = WALK_SECONDS / 2  # for which a page is kept for a walk, which then has as long again to use it


class Way(NamedTuple):
    """A way of going through a tree, and so when a flat listing is worth its price."""

    children: int  # of a directory, to be visited before all below it is listed
    within_seconds: float  # between the first and the last of those visits
    page_names: int
    pages_in_vain: int  # without the directory that is wanted, until the listing is given up
    again_seconds: float  # until a listing is begun once more
    lists_first: bool  # a directory is listed before its children; each time, the walk begins anew


WALK = Way(2, math.inf, MAX_LIST_RESULTS, 4, WALK_SECONDS, lists_first=True)
# A search for new names may visit few directories of many, and what it was told is soon too old.
SEARCH = Way(8, 1.0, 1000, 1, 1.0, lists_first=False)


@dataclass(slots=True)
class Gathered:
    """What has been listed of one directory so far."""

    prefix: str
    asked_at: float  # the first of it, by the cache's clock
    blobs: list[BlobInfo] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)


class FlatListing:
    """All names below a prefix, page by page, gathered by directory.

    The names of a directory and of all below it come one after the other, whichever order the
    service has; so a directory is complete when a name of another one follows, or nothing.
    """

    def __init__(self, prefix: str, store: BlobStore, *, began_at: float, page_names: int) -> None:
        self.began_at = began_at  # by the cache's clock
        self.pages = 0
        self.is_at_end = False
        self.needed_at = began_at  # when a walk came to the end of what was taken
        self.is_slow = False  # that took the walk long
        self._prefix = prefix
        self._store = store
        self._page_names = page_names
        self._path = [Gathered(prefix, 0.0)]  # the directories of the last name, outermost first
        self._empty: dict[str, Gathered] = {}  # those of which only the marker was seen
        self._marker = ""
        self._last_name = prefix

    @property
    def held_names(self) -> int:
        """How many names are kept of directories that are not complete."""
        return len(self._empty) + sum(len(directory.blobs) for directory in self._path)

    def is_within(self, prefix: str) -> bool:
        """Tell whether a directory is being gathered."""
        return any(directory.prefix == prefix for directory in self._path[1:])

    def may_bring(self, prefix: str) -> bool:
        """Tell whether a directory is likely to be in a later page. It is a guess from the order of names."""
        return not self.is_at_end and (prefix > self._last_name or self.is_within(prefix))

    def ask(self) -> ListPage:
        """Return the page after those taken. One request."""
        return self._store.list_page(self._prefix, marker=self._marker, max_results=self._page_names)

    def take(self, page: ListPage, asked_at: float) -> list[Gathered]:
        """Add the next page; return the directories that it completes."""
        self.pages += 1
        complete: list[Gathered] = []
        for blob in page.blobs:
            directory = blob.name[: blob.name.rfind("/") + 1]
            if directory != self._path[-1].prefix:
                complete += self._leave_for(directory)
                self._enter(directory, asked_at)
            if len(self._path) > 1:  # what is in the first one has been asked for already
                self._path[-1].blobs.append(blob)
            if not blob.size_bytes and is_directory_marker(blob) and blob.name != directory:
                self._empty[f"{blob.name}/"] = Gathered(f"{blob.name}/", asked_at)
            self._last_name = blob.name
        self._marker = page.next_marker
        if not self._marker:
            self.is_at_end = True
            complete += [*self._path[1:], *self._empty.values()]
            del self._path[1:]
            self._empty.clear()
        return complete

    def _leave_for(self, directory: str) -> Iterator[Gathered]:
        while not directory.startswith(self._path[-1].prefix):
            yield self._path.pop()

    def _enter(self, directory: str, asked_at: float) -> None:
        while (outer := self._path[-1]).prefix != directory:
            prefix = directory[: directory.index("/", len(outer.prefix)) + 1]
            outer.prefixes.append(prefix)
            self._empty.pop(prefix, None)
            self._path.append(Gathered(prefix, asked_at))


@dataclass(slots=True, eq=False)
class _Tree:
    """A directory that was listed, and what was then asked for below it."""

    walk: Walk
    came_at: deque[float]  # to its children: the last times
    last_child: str = ""
    flat: FlatListing | None = None
    is_given_up: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)  # held by the thread that reads pages


class _Ahead(NamedTuple):
    """A page that was asked for before it is needed."""

    asked: Transfer
    asked_at: float


class Walks:
    """The walks under way, all of one `Way`. Its methods may be called from many threads."""

    def __init__(
        self,
        store: BlobStore,
        cache: TreeCache,
        offer: Callable[[Gathered, Walk], None],
        transfers: Transfers,
        waits: Waits,
        way: Way,
    ) -> None:
        self._store = store
        self._cache = cache
        self._offer = offer
        self._transfers = transfers
        self._waits = waits
        self._way = way
        self._most_names = cache.capacity_bytes // ENTRY_BYTES // 2  # of directories that no walk has reached
        self._lock = threading.Lock()  # guards the trees, and the pages
        self._trees: cachetools.LRUCache[str, _Tree] = cachetools.LRUCache(REMEMBERED_TREES)
        # Half as many names again, in pages that are not needed yet.
        most_pages = max(1, self._most_names // 2 // MAX_LIST_RESULTS)
        self._pages: cachetools.TTLCache[FlatListing, _Ahead] = cachetools.TTLCache(
            most_pages, PAGE_SECONDS, timer=cache.now
        )

    @contextmanager
    def visit(self, prefix: str) -> Iterator[None]:
        """Note that a directory is asked for. The time that the answer takes does not count as a pause."""
        trees = self._visited(prefix)
        try:
            yield
        finally:
            for tree in trees:
                tree.walk.visited_at = self._cache.now()

    def read_up_to(self, prefix: str) -> bool:
        """List until the directory is offered to the walk that comes to it; False if it will not be.

        Does not wait for another thread that is listing the same tree: returns False.
        """
        tree = self._walk_to(prefix)
        if tree is None or not tree.lock.acquire(blocking=False):
            return False
        try:
            return tree.flat is not None and self._read_up_to(prefix, tree, tree.flat)
        finally:
            tree.lock.release()

    def _visited(self, prefix: str) -> list[_Tree]:
        now = self._cache.now()
        with self._lock:
            if not self._way.lists_first:
                self._begun(_parent(prefix), now)
            trees = self._above(prefix)
            for tree in trees:
                tree.walk.visited_at = now
            parent = self._trees.get(_parent(prefix))
            if parent is not None and parent in trees and parent.last_child != prefix:
                parent.last_child = prefix
                parent.came_at.append(now)
            return [*trees, self._begun(prefix, now)]

    def _begun(self, prefix: str, now: float) -> _Tree:
        tree = self._trees.get(prefix)
        if tree is None or self._way.lists_first or not self._cache.is_under_way(tree.walk):
            tree = self._trees[prefix] = _Tree(Walk(now), deque(maxlen=self._way.children))
        return tree

    def _read_up_to(self, prefix: str, tree: _Tree, flat: FlatListing) -> bool:
        in_vain, oldest = 0, self._cache.now() - WALK_SECONDS
        while flat.may_bring(prefix):
            page, asked_at = self._next_page(flat)
            complete = flat.take(page, asked_at)
            for directory in complete:
                if directory.asked_at > oldest:
                    self._offer(directory, tree.walk)
            if any(directory.prefix == prefix for directory in complete):
                self._ask_ahead(flat)
                return True
            in_vain += not flat.is_within(prefix)
            if in_vain >= self._way.pages_in_vain or (in_vain and flat.held_names > self._most_names):
                tree.flat, tree.is_given_up = None, True
                return False
        return False

    def _next_page(self, flat: FlatListing) -> tuple[ListPage, float]:
        """Return the page after those taken, and when it was asked for."""
        now = self._cache.now()
        flat.is_slow, flat.needed_at = now - flat.needed_at > PAGE_SECONDS, now
        with self._lock:
            ahead = self._pages.pop(flat, None)
        # If the request has not begun, the caller's own is sooner.
        if ahead is not None and not ahead.asked.cancel():
            self._waits.wait_to_hear(ahead.asked.add_done_callback)
            if ahead.asked.exception() is None:  # otherwise the caller asks again, and is told
                return ahead.asked.result(), ahead.asked_at
        return flat.ask(), now

    def _ask_ahead(self, flat: FlatListing) -> None:
        """Ask for the page that the walk will come to, unless it is too slow or memory has no room for it."""
        if flat.is_at_end or flat.is_slow:
            return
        with self._lock:
            if len(self._pages) < self._pages.maxsize:
                asked_at = self._cache.now()
                self._pages[flat] = _Ahead(self._transfers.submit_read(flat.ask), asked_at)

    def _walk_to(self, prefix: str) -> _Tree | None:
        """Return the tree whose flat listing may bring a directory."""
        with self._lock:
            trees = self._above(prefix)
            for tree in trees:
                if tree.flat is not None and tree.flat.may_bring(prefix):
                    return tree
            parent = self._trees.get(_parent(prefix)) if prefix else None
            if parent is None or parent not in trees or not self._may_begin(parent):
                return None
            page_names = max(1, min(self._way.page_names, self._most_names))
            parent.flat = FlatListing(
                _parent(prefix), self._store, began_at=self._cache.now(), page_names=page_names
            )
            return parent

    def _may_begin(self, tree: _Tree) -> bool:
        """Tell whether to list all below a directory: for a walk; for a slow one again, if that is short."""
        now, flat, way = self._cache.now(), tree.flat, self._way
        if tree.is_given_up or len(tree.came_at) < way.children or now - tree.came_at[0] > way.within_seconds:
            return False
        is_old = flat is None or now - flat.began_at >= way.again_seconds
        return is_old and (flat is None or flat.pages <= way.pages_in_vain)

    def _above(self, prefix: str) -> list[_Tree]:
        """Return the trees that a directory is in and that were walked a moment ago, innermost first."""
        trees = []
        while prefix:
            prefix = _parent(prefix)
            tree = self._trees.get(prefix)
            if tree is not None and self._cache.is_under_way(tree.walk):
                trees.append(tree)
        return trees


def _parent(prefix: str) -> str:
    return prefix[: prefix.rfind("/", 0, -1) + 1]
