"""Bytes of blobs by (version, fragment), bounded, fetched once however many ask.

A fragment is a small aligned piece; one request fetches a run of neighbouring fragments.
The key holds the ETag, so a replaced blob is another key and stale bytes cannot be met.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import cachetools

from blobfs.callers import NOBODY, Callers
from blobfs.content.memory import Buffer, BufferPool
from blobfs.errors import Abandoned, Changed
from blobfs.store import BlobStore, BlobVersion

Key = tuple[BlobVersion, int]


@dataclass(frozen=True, slots=True)
class Fragment:
    """A view into the buffer of the run it was fetched with, which it keeps alive."""

    view: memoryview
    buffer: Buffer
    run: range  # the fragments in the same buffer


@dataclass(slots=True)
class Fetch:
    """One request for a run of fragments, not yet answered."""

    version: BlobVersion
    first: int
    count: int
    size_bytes: int
    buffer: Buffer
    claimed: bool = False
    failure: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class RangeCache:
    """The cache that all handles of a mount read through."""

    def __init__(
        self,
        store: BlobStore,
        pool: BufferPool,
        *,
        fragment_bytes: int,
        capacity_bytes: int,
        callers: Callers = NOBODY,
    ) -> None:
        self.fragment_bytes = fragment_bytes
        self._store = store
        self._pool = pool
        self._callers = callers
        self._lock = threading.Lock()  # guards the two maps; never held across a request
        self._capacity = capacity_bytes // fragment_bytes
        self._fragments: cachetools.LRUCache[Key, Fragment] = cachetools.LRUCache(self._capacity)
        self._fetches: dict[Key, Fetch] = {}
        pool.add_reclaimer(self._evict)

    def fragment(self, version: BlobVersion, size_bytes: int, index: int, run: int) -> Fragment:
        """Return one fragment of a blob of `size_bytes`, fetching up to `run` fragments if it is missing.

        Blocks for at most one request. Raises Changed if the blob was replaced, Abandoned.
        """
        while True:
            with self._lock:
                found = self._fragments.get((version, index))
                if found is not None:
                    return found
                fetch = self._fetches.get((version, index))
            if fetch is None:
                fetch = self._plan(version, size_bytes, index, run, self._pool.take)
            if fetch is not None and self._complete(fetch):
                return self._fragment_of(fetch, index)

    def prefetch(self, version: BlobVersion, size_bytes: int, index: int, run: int) -> Fetch | None:
        """Plan a fetch of what is missing in a run; the caller has `perform` run in the background.

        Returns None if nothing is missing or there is no memory to spare.
        """
        with self._lock:
            while run and self._is_known((version, index)):
                index, run = index + 1, run - 1
        return self._plan(version, size_bytes, index, run, self._pool.take_if_free)

    def perform(self, fetch: Fetch) -> None:
        """Carry out a planned fetch unless a reader already took it over. Its failure is kept for readers."""
        if self._claim(fetch):
            self._run(fetch)

    def buffer_for(self, size_bytes: int) -> Buffer:
        """Return memory for bytes that are to be added. Waits until there is room."""
        return self._pool.take(size_bytes)

    def add(self, version: BlobVersion, index: int, buffer: Buffer, size_bytes: int) -> None:
        """Take over bytes that somebody already fetched: one run starting at fragment `index`."""
        with self._lock:
            self._insert(version, index, buffer, size_bytes)

    def holds(self, version: BlobVersion, index: int) -> bool:
        """Tell whether a fragment is here now."""
        with self._lock:
            return (version, index) in self._fragments

    def rename(self, old: BlobVersion, new: BlobVersion, size_bytes: int) -> None:
        """Keep the bytes when only the name or the metadata of a blob changed."""
        count = -(-size_bytes // self.fragment_bytes)
        with self._lock:
            for index in range(min(count, self._capacity)):
                fragment = self._fragments.pop((old, index), None)
                if fragment is not None:
                    self._fragments[new, index] = fragment

    def _plan(
        self,
        version: BlobVersion,
        size_bytes: int,
        first: int,
        run: int,
        take: Callable[[int], Buffer | None],
    ) -> Fetch | None:
        """Plan a fetch of what is missing from `first` on; None if `first` is not, or without memory."""
        with self._lock:
            count = self._count_missing(version, size_bytes, first, run)
        if count == 0:
            return None
        start = first * self.fragment_bytes
        length = min(count * self.fragment_bytes, size_bytes - start)
        buffer = take(length)
        if buffer is None:
            return None
        fetch = Fetch(version, first, count, length, buffer)
        with self._lock:
            # Another caller may have planned the same while this one waited for memory.
            if self._count_missing(version, size_bytes, first, count) != count:
                return None
            for fragment in range(first, first + count):
                self._fetches[version, fragment] = fetch
        return fetch

    def _count_missing(self, version: BlobVersion, size_bytes: int, first: int, run: int) -> int:
        index, end = first, min(first + run, -(-size_bytes // self.fragment_bytes))
        while index < end and not self._is_known((version, index)):
            index += 1
        return index - first

    def _is_known(self, key: Key) -> bool:
        return key in self._fragments or key in self._fetches

    def _claim(self, fetch: Fetch) -> bool:
        with self._lock:
            mine = not fetch.claimed
            fetch.claimed = True
            return mine

    def _complete(self, fetch: Fetch) -> bool:
        """Have the fetch done: by this thread if nobody began it, so that no reader waits in a queue.

        Returns False if another thread did that for a process that was killed meanwhile.
        """
        mine = self._claim(fetch)
        if mine:
            self._run(fetch)
        else:
            self._callers.wait(fetch.done.wait)
        if isinstance(fetch.failure, Abandoned) and not mine:
            return False
        if fetch.failure is not None:
            raise fetch.failure
        return True

    def _run(self, fetch: Fetch) -> None:
        try:
            self._receive(fetch)
        except BaseException as failure:  # not swallowed: every reader that waits for it raises it
            fetch.failure = failure
        with self._lock:
            for index in range(fetch.first, fetch.first + fetch.count):
                del self._fetches[fetch.version, index]
            if fetch.failure is None:
                self._insert(fetch.version, fetch.first, fetch.buffer, fetch.size_bytes)
        fetch.done.set()

    def _receive(self, fetch: Fetch) -> None:
        view = fetch.buffer.view[: fetch.size_bytes]
        start = fetch.first * self.fragment_bytes
        received, _ = self._store.read_range(fetch.version.name, start, view, if_match=fetch.version.etag)
        if received != fetch.size_bytes:
            raise Changed(f"{fetch.version.name}: {received} bytes at {start}, expected {fetch.size_bytes}")

    def _insert(self, version: BlobVersion, first: int, buffer: Buffer, size_bytes: int) -> None:
        run = range(first, first + -(-size_bytes // self.fragment_bytes))
        for index in run:
            self._fragments[version, index] = self._piece(buffer, size_bytes, run, index)

    def _fragment_of(self, fetch: Fetch, index: int) -> Fragment:
        run = range(fetch.first, fetch.first + fetch.count)
        return self._piece(fetch.buffer, fetch.size_bytes, run, index)

    def _piece(self, buffer: Buffer, size_bytes: int, run: range, index: int) -> Fragment:
        start = (index - run.start) * self.fragment_bytes
        return Fragment(buffer.view[start : min(start + self.fragment_bytes, size_bytes)], buffer, run)

    def _evict(self, size_bytes: int) -> None:
        """Drop the runs read least recently: a buffer is free only when all its fragments are gone."""
        with self._lock:
            while self._fragments and size_bytes > 0:
                (version, _), fragment = self._fragments.popitem()
                for index in fragment.run:
                    self._fragments.pop((version, index), None)
                size_bytes -= fragment.buffer.size_bytes
