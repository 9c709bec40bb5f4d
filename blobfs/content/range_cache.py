"""Bytes of blobs by version, bounded, fetched once however many ask."""

import threading
from collections import deque
from collections.abc import Callable
from typing import ParamSpec

from blobfs.content.fetcher import Fetcher, Wanted
from blobfs.content.layout import Layout
from blobfs.content.memory import Buffer, BufferPool
from blobfs.content.runs import Fetch, Row, Run, Shelves
from blobfs.counters import Counters
from blobfs.errors import Abandoned, Changed
from blobfs.store import BlobVersion
from blobfs.waits import TO_THE_END, Waits

Parameters = ParamSpec("Parameters")


class RangeCache:
    """The cache that all handles of a mount read through."""

    def __init__(
        self,
        fetcher: Fetcher,
        pool: BufferPool,
        *,
        fragment_bytes: int,
        capacity_bytes: int,
        smallest_bytes: int,
        waits: Waits = TO_THE_END,
    ) -> None:
        self.fragment_bytes = fragment_bytes
        self._fetcher = fetcher
        self._pool = pool
        self._waits = waits
        self.capacity_bytes = capacity_bytes
        self.counts = Counters()  # hits: found here at once; misses: a fetch had to be waited for
        self._lock = threading.Lock()  # guards the field below; never held across a request
        self._shelves = Shelves(
            fragment_bytes=fragment_bytes, capacity_bytes=capacity_bytes, smallest_bytes=smallest_bytes
        )
        pool.add_reclaimer(self._evict)

    @property
    def held_bytes(self) -> int:
        """How much is here now."""
        return self._shelves.held_bytes

    def run(
        self,
        version: BlobVersion,
        layout: Layout,
        offset: int,
        end: int,
        *,
        whole: bool,
        by_range_md5: bool = False,
    ) -> Run:
        """Return a run that holds the byte at `offset`, fetching what is missing of it up to `end`.

        With `whole`, the fetch goes to the end of the unit, and if it has checksums all of it is
        fetched and verified. What is fetched without checksums comes with an MD5 of the service's
        if `by_range_md5`. Blocks for at most one fetch. Raises Changed if the blob was replaced,
        Damaged if its bytes do not match their checksums, Abandoned.
        """
        row = self._shelves.row(version, layout, offset, whole=whole)
        end = row.span.stop if whole else min(end, row.span.stop)
        while True:
            with self._lock:
                found = self._shelves.read(row, offset)
                if isinstance(found, Run):
                    self.counts.add("hits")
                    return found
            fetch = found or self._plan(row, layout, offset, end, self._pool.take, by_range_md5=by_range_md5)
            if fetch is not None and self._complete(fetch, version):
                self.counts.add("misses")
                return fetch.run

    def let_go(self, version: BlobVersion, span: range) -> None:
        """Note that a reader has passed the run at the end of a span: the next to be dropped."""
        with self._lock:
            self._shelves.let_go(version, span)

    def prefetch(
        self,
        version: BlobVersion,
        layout: Layout,
        span: range,
        *,
        whole: bool,
        by_range_md5: bool = False,
        part_bytes: int = 0,
    ) -> Fetch | None:
        """Plan a fetch of what is missing of a unit or, unless `whole`, of a span within one.

        The caller has `perform` run in the background, once for each of its parts, which have
        `part_bytes` if the whole can be verified when all are there. Returns None if nothing is
        missing or there is no memory to spare.
        """
        row = self._shelves.row(version, layout, span.start, whole=whole)
        with self._lock:
            start = self._shelves.first_missing(row, span)
        if start is None:
            return None
        return self._plan(
            row,
            layout,
            start,
            span.stop,
            self._pool.take_if_free,
            by_range_md5=by_range_md5,
            part_bytes=part_bytes,
        )

    def perform(self, fetch: Fetch) -> None:
        """Carry out what nobody has begun of a planned fetch. A failure is kept for readers."""
        self._work(fetch)

    def buffer_for(self, size_bytes: int) -> Buffer:
        """Return memory for bytes that are to be added. Waits until there is room."""
        return self._pool.take(size_bytes)

    def spare_buffer(self, size_bytes: int) -> Buffer | None:
        """Like `buffer_for`, but None if there is no room now: for work that is only helpful."""
        return self._pool.take_if_free(size_bytes)

    def add(self, version: BlobVersion, buffer: Buffer, size_bytes: int, *, is_verified: bool) -> None:
        """Take over the first bytes of a blob, which somebody already fetched."""
        with self._lock:
            self._shelves.insert(Run(self._shelves.shelf(version), range(size_bytes), buffer, is_verified))

    def holds(self, version: BlobVersion, offset: int = 0) -> bool:
        """Tell whether the fragment that starts at `offset` is here now."""
        with self._lock:
            shelf = self._shelves.by_version.get(version)
            return shelf is not None and offset in shelf.runs

    def bytes_held(self, version: BlobVersion, start: int) -> int:
        """Return how many bytes from the fragment at `start` on are here in one run."""
        with self._lock:
            shelf = self._shelves.by_version.get(version)
            run = shelf.runs.get(start) if shelf is not None else None
            return run.span.stop - start if run is not None else 0

    def copy_held(self, version: BlobVersion, start: int, target: memoryview) -> int:
        """Copy the bytes that are here, in a row from the fragment at `start`; return how many there are."""
        count = 0
        while count < len(target):
            with self._lock:
                shelf = self._shelves.by_version.get(version)
                held = shelf.runs.get(start + count) if shelf is not None else None
            if held is None or start + count not in held.span:
                break
            count += held.copy(start + count, target[count:])
        return count

    def rename(self, old: BlobVersion, new: BlobVersion) -> None:
        """Keep the bytes when only the name or the metadata of a blob changed."""
        with self._lock:
            self._shelves.rename(old, new)

    def drop(self, version: BlobVersion) -> None:
        """Forget what is here of a version."""
        with self._lock:
            self._shelves.drop(version)

    # Fetching…

    def _plan(
        self,
        row: Row,
        layout: Layout,
        offset: int,
        end: int,
        take: Callable[[int], Buffer | None],
        *,
        by_range_md5: bool = False,
        part_bytes: int = 0,
    ) -> Fetch | None:
        """Plan a fetch of what is missing from `offset` on; None if it is not, or without memory."""
        with self._lock:
            span = self._shelves.missing(row, offset, end)
        buffer = take(len(span)) if span else None
        if buffer is None:
            return None
        with self._lock:
            # Another caller may have planned the same while this one waited for memory.
            if self._shelves.missing(row, offset, end) != span:
                return None
            run = Run(self._shelves.shelf(row.version), span, buffer, is_verified=row.verified)
            unit_start, view = layout.unit(offset).start, buffer.view[: len(span)]
            wanted = Wanted(row.version, span, view, unit_start, layout.checks(span), buffer, by_range_md5)
            parts = deque(wanted.parts(part_bytes))
            fetch = Fetch(run, wanted, parts, len(parts))
            self._shelves.begin(fetch)
        return fetch

    def _begin_part(self, fetch: Fetch) -> range | None:
        with self._lock:
            return fetch.waiting.popleft() if fetch.waiting else None

    def _complete(self, fetch: Fetch, version: BlobVersion) -> bool:
        """Have the fetch done: by this thread what nobody began, so that no reader waits in a queue.

        Returns False if it is to be planned anew: another thread did that for a process that was killed
        meanwhile, or the blob was renamed to `version` since, and is no longer found by the old one.
        """
        failure = self._work(fetch)
        if failure is None:
            self._waits.wait(fetch.done.wait)
            failure = fetch.failure
            if isinstance(failure, Abandoned):
                return False
        if isinstance(failure, Changed) and fetch.wanted.version != version:
            return False
        if failure is not None:
            raise failure
        return True

    def _work(self, fetch: Fetch) -> BaseException | None:
        """Carry out what nobody has begun of a fetch; return what this thread met with."""
        failure = None
        while failure is None and (part := self._begin_part(fetch)) is not None:
            failure = self._run_part(fetch, part)
        return failure

    def _run_part(self, fetch: Fetch, part: range) -> BaseException | None:
        failure = _failure_of(self._fill_part, fetch.wanted, part)
        if not self._end_part(fetch, failure):
            return failure
        if fetch.failure is None and part != fetch.run.span:
            failure = fetch.failure = _failure_of(self._fetcher.complete, fetch.wanted)
        self._conclude(fetch)
        return failure

    def _fill_part(self, wanted: Wanted, part: range) -> None:
        first = wanted.span.start
        view = wanted.view[part.start - first : part.stop - first]
        held_bytes = self.copy_held(wanted.version, part.start, view)
        if part == wanted.span:
            self._fetcher.fill(wanted, held_bytes)
        else:
            self._fetcher.fill_part(wanted, part, held_bytes)

    def _end_part(self, fetch: Fetch, failure: BaseException | None) -> bool:
        """Note that a part is done; tell whether it was the last. After a failure none is begun any more."""
        with self._lock:
            fetch.unfinished -= 1
            if failure is not None:
                fetch.failure = failure
                fetch.unfinished -= len(fetch.waiting)
                fetch.waiting.clear()
            return not fetch.unfinished

    def _conclude(self, fetch: Fetch) -> None:
        with self._lock:
            self._shelves.end(fetch)
        self._pool.recheck()  # what was on its way could not be dropped
        fetch.done.set()

    def _evict(self, size_bytes: int) -> None:
        """Drop the runs read least recently, whose buffers may thus become free."""
        with self._lock:
            self._shelves.drop_oldest(size_bytes)


def _failure_of(
    task: Callable[Parameters, None], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> BaseException | None:
    """Run a task; return what it raised."""
    try:
        task(*args, **kwargs)
    except BaseException as failure:  # not swallowed: every reader that waits for it raises it
        return failure
    return None
