"""What the cache of ranges holds.

A fragment is a small aligned piece; a run is a row of fragments that one request brought, or several
side by side. What is here of one version stands on one shelf, so that a replaced blob's bytes cannot be met.
"""

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from blobfs.content.fetcher import Wanted
from blobfs.content.layout import Layout, piece_start
from blobfs.content.memory import Buffer, copy_bytes
from blobfs.store import BlobVersion


@dataclass(eq=False, slots=True)
class Shelf:
    """What is here, or on its way, of one version, by the offsets of fragments."""

    version: BlobVersion
    runs: "dict[int, Run]" = field(default_factory=dict)
    fetches: "dict[int, Fetch]" = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Run:
    """Bytes in a row. Whoever holds it keeps its buffer."""

    shelf: Shelf
    span: range  # offsets in the blob
    buffer: Buffer
    is_verified: bool = False  # a whole unit that matched its checksums

    def copy(self, offset: int, target: memoryview) -> int:
        """Copy bytes from `offset` on; return how many there were."""
        start = offset - self.span.start
        count = min(len(self.span) - start, len(target))
        copy_bytes(target, self.buffer.view[start : start + count])
        return count


@dataclass(eq=False, slots=True)
class Fetch:
    """What brings a run: one request, or one for each of its parts."""

    run: Run
    wanted: Wanted
    waiting: deque[range]  # parts that nobody has begun
    unfinished: int  # parts
    failure: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def is_verifying(self) -> bool:
        """Whether the run will be a whole unit that matched its checksums."""
        return self.run.is_verified


class Row(NamedTuple):
    """Fragments of one version that may share a request, and which runs of them will do."""

    version: BlobVersion
    span: range  # a unit, or where fragments fit into units, all of the rest
    verified: bool  # only runs that were verified, or will be, will do


class Shelves:
    """All runs that are here, within a capacity, and all fetches that bring more. Not safe by itself."""

    def __init__(self, *, fragment_bytes: int, capacity_bytes: int, smallest_bytes: int) -> None:
        self._fragment_bytes = fragment_bytes
        self._capacity_bytes = capacity_bytes
        self._smallest_bytes = smallest_bytes  # the memory of a run is never less
        self._runs: OrderedDict[Run, None] = OrderedDict()  # least recently read first
        self.held_bytes = 0
        self.by_version: dict[BlobVersion, Shelf] = {}  # to look at

    def row(self, version: BlobVersion, layout: Layout, offset: int, *, whole: bool) -> Row:
        """Return the row that has the byte at `offset`. A `whole` unit is verified if it has checksums."""
        unit = layout.unit(offset)
        if whole:
            return Row(version, unit, bool(layout.checks(unit)))
        fits = len(unit) % self._fragment_bytes == 0
        return Row(version, range(unit.start, layout.size_bytes) if fits else unit, verified=False)

    def shelf(self, version: BlobVersion) -> Shelf:
        """Return the shelf of a version, a new one if need be."""
        shelf = self.by_version.get(version)
        if shelf is None:
            shelf = self.by_version[version] = Shelf(version)
        return shelf

    def read(self, row: Row, offset: int) -> Run | Fetch | None:
        """Return the run that has the byte at `offset`, or the fetch that brings it; None without.

        A run is noted as just read.
        """
        shelf = self.by_version.get(row.version)
        found = self._find(shelf, row, offset) if shelf is not None else None
        if isinstance(found, Run):
            self._runs.move_to_end(found)
        return found

    def missing(self, row: Row, offset: int, end: int) -> range:
        """Return what a fetch for the byte at `offset` is to bring; nothing if it is known already."""
        shelf = self.shelf(row.version)
        if row.verified:
            return range(0) if self._find(shelf, row, offset) else row.span
        start = stop = piece_start(row.span, offset, self._fragment_bytes)
        while stop < end and not self._find(shelf, row, max(stop, offset)):
            stop += self._fragment_bytes
        return range(start, min(stop, row.span.stop))

    def first_missing(self, row: Row, span: range) -> int | None:
        """Return the first fragment of a span that is neither here nor on its way; None without."""
        shelf = self.shelf(row.version)
        missing = (key for key in self._keys(span) if not self._find(shelf, row, key))
        return next(missing, None)

    def begin(self, fetch: Fetch) -> None:
        """Have a fetch found by who wants what it brings."""
        fetch.run.shelf.fetches.update(dict.fromkeys(self._keys(fetch.run.span), fetch))

    def end(self, fetch: Fetch) -> None:
        """Have what a fetch has brought found instead of it, unless it failed."""
        run, shelf = fetch.run, fetch.run.shelf
        for key in self._keys(run.span):
            if shelf.fetches.get(key) is fetch:
                del shelf.fetches[key]
        if fetch.failure is None:
            self.insert(run)
        self._tidy(shelf)

    def insert(self, run: Run) -> None:
        """Add a run in place of those that lie within it; those read least recently make room."""
        runs = run.shelf.runs
        for key in self._keys(run.span):
            earlier, runs[key] = runs.get(key), run  # in this order: an empty shelf would be thrown away
            if earlier is not None and earlier.span.start in run.span and earlier.span.stop <= run.span.stop:
                self._drop(earlier)
        self._runs[run] = None
        self.held_bytes += self._weight_bytes(run)
        while self.held_bytes > self._capacity_bytes:
            self._drop(next(iter(self._runs)))

    def let_go(self, version: BlobVersion, span: range) -> None:
        """Make the run at the end of a span the next to be dropped."""
        shelf = self.by_version.get(version)
        run = shelf.runs.get(self._keys(span)[-1]) if shelf is not None else None
        if run is not None and run.span.stop <= span.stop:
            self._runs.move_to_end(run, last=False)

    def rename(self, old: BlobVersion, new: BlobVersion) -> None:
        """Have all of a version found under another one."""
        shelf = self.by_version.pop(old, None)
        if shelf is not None:
            shelf.version = new
            self.by_version[new] = shelf

    def drop(self, version: BlobVersion) -> None:
        """Drop the runs of a version."""
        for run in set(self.shelf(version).runs.values()):
            self._drop(run)

    def drop_oldest(self, size_bytes: int) -> None:
        """Drop the runs read least recently, whose buffers have so many bytes or more, or all."""
        while self._runs and size_bytes > 0:
            run = next(iter(self._runs))
            self._drop(run)
            size_bytes -= run.buffer.size_bytes

    def _find(self, shelf: Shelf, row: Row, offset: int) -> Run | Fetch | None:
        key = piece_start(row.span, offset, self._fragment_bytes)
        run = shelf.runs.get(key)
        if run is not None and offset in run.span and (run.is_verified or not row.verified):
            return run
        fetch = shelf.fetches.get(key)
        if fetch is not None and offset in fetch.run.span and (fetch.is_verifying or not row.verified):
            return fetch
        return None

    def _keys(self, span: range) -> range:
        return range(span.start, span.stop, self._fragment_bytes)

    def _weight_bytes(self, run: Run) -> int:
        return max(self._smallest_bytes, len(run.span))

    def _drop(self, run: Run) -> None:
        del self._runs[run]
        self.held_bytes -= self._weight_bytes(run)
        for key in self._keys(run.span):
            if run.shelf.runs.get(key) is run:
                del run.shelf.runs[key]
        self._tidy(run.shelf)

    def _tidy(self, shelf: Shelf) -> None:
        if not shelf.runs and not shelf.fetches and self.by_version.get(shelf.version) is shelf:
            del self.by_version[shelf.version]
