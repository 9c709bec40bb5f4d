"""Which names this mount itself has just written: the store, with a memory of its own writes."""

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import cachetools

from blobfs.store import BlobInfo, BlobStore, BlobVersion, Condition, Properties

REMEMBERED_NAMES = 10_000  # far more than can be written while one reply is on its way


class _Write(NamedTuple):
    """The last write of ours to a name."""

    number: int
    ended_at: float


NEVER = _Write(0, -math.inf)


class OwnWrites:
    """A `BlobStore` that tells whether what it said of a blob may be older than a write of ours.

    A reply to `head` says what the blob was at some moment between question and answer. None
    of our own writes fell in between if `is_overtaken` is false for the `last_write` from before.
    """

    def __init__(self, store: BlobStore, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._now = now
        self._lock = threading.Lock()  # guards the three fields below
        self._under_way: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._last: cachetools.LRUCache[str, _Write] = cachetools.LRUCache(REMEMBERED_NAMES)
        self.list_page = store.list_page
        self.head = store.head
        self.read_range = store.read_range
        self.stage_block = store.stage_block
        self.stage_range = store.stage_range
        self.committed_blocks = store.committed_blocks
        self.uncommitted_ids = store.uncommitted_ids
        self.check_may_delete = store.check_may_delete

    def last_write(self, name: str) -> int:
        """Return the number of our last write to a name. Each write changes it before it returns."""
        with self._lock:
            return self._last.get(name, NEVER).number

    def is_overtaken(self, name: str, last_write: int) -> bool:
        """Tell whether a write of ours to a name is under way, or has ended since."""
        with self._lock:
            return name in self._under_way or self._last.get(name, NEVER).number != last_write

    def is_overtaken_since(self, name: str, asked_at: float) -> bool:
        """Tell the same by the clock: for what was asked of many names at once."""
        with self._lock:
            return name in self._under_way or self._last.get(name, NEVER).ended_at >= asked_at

    def put_blob(
        self, name: str, body: memoryview | bytes, properties: Properties, condition: Condition
    ) -> BlobInfo:
        """Write a whole blob."""
        with self._noted(name):
            return self._store.put_blob(name, body, properties, condition)

    def commit_blocks(
        self,
        name: str,
        block_ids: Sequence[str],
        properties: Properties,
        condition: Condition,
        size_bytes: int,
    ) -> BlobInfo:
        """Make the blob exactly these blocks."""
        with self._noted(name):
            return self._store.commit_blocks(name, block_ids, properties, condition, size_bytes)

    def set_metadata(self, version: BlobVersion, metadata: Mapping[str, str]) -> str:
        """Replace the metadata."""
        with self._noted(version.name):
            return self._store.set_metadata(version, metadata)

    def copy(
        self, source: BlobInfo, name: str, metadata: Mapping[str, str], condition: Condition
    ) -> BlobInfo:
        """Copy a version on the service."""
        with self._noted(name):
            return self._store.copy(source, name, metadata, condition)

    def delete(self, name: str, condition: Condition) -> None:
        """Delete a blob."""
        with self._noted(name):
            self._store.delete(name, condition)

    def delete_batch(self, versions: Sequence[BlobVersion]) -> Sequence[BlobVersion]:
        """Delete many blobs by one request."""
        with self._noted(*(version.name for version in versions)):
            return self._store.delete_batch(versions)

    @contextmanager
    def _noted(self, *names: str) -> Iterator[None]:
        with self._lock:
            self._under_way.update(names)
        try:
            yield
        finally:
            with self._lock:
                for name in names:
                    self._last[name] = _Write(next(self._numbers), self._now())
                    self._under_way[name] -= 1
                    if not self._under_way[name]:
                        del self._under_way[name]
