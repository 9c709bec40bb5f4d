"""Reading a committed blob: which ranges to fetch, and how far ahead.

A stream is what one handle does. While it hops about, only the fragments it asks for are
fetched; once it has read in order for a while, whole blocks are, and the next ones ahead.
"""

from dataclasses import dataclass

from blobfs.content.range_cache import RangeCache
from blobfs.store import BlobVersion
from blobfs.transfers import Transfers


@dataclass(slots=True)
class Stream:
    """How one handle has been reading. Races on it cost at most a fetch too many."""

    next_offset: int = 0
    in_order_bytes: int = 0
    ahead_offset: int = 0  # everything before it has been asked for

    def note(self, offset: int, length: int, tolerance_bytes: int) -> None:
        """Record one read. The kernel sends its read-ahead slightly out of order."""
        if abs(offset - self.next_offset) <= tolerance_bytes:
            self.in_order_bytes += length
        else:
            self.in_order_bytes = length
            self.ahead_offset = 0
        self.next_offset = offset + length


class BlobReader:
    """Fills memory from blob versions, through the cache. Shared by all handles of a mount."""

    def __init__(
        self,
        cache: RangeCache,
        transfers: Transfers,
        *,
        block_bytes: int,
        sequential_bytes: int,
        tolerance_bytes: int,
        ahead_blocks: int,
    ) -> None:
        self._cache = cache
        self._transfers = transfers
        self._block_bytes = block_bytes
        self._sequential_bytes = sequential_bytes
        self._tolerance_bytes = tolerance_bytes
        self._ahead_blocks = ahead_blocks

    def read_into(
        self, version: BlobVersion, size_bytes: int, offset: int, target: memoryview, stream: Stream | None
    ) -> int:
        """Copy bytes of the blob to `target`; return how many there were before its end.

        Without a stream nothing else is fetched along with them. Blocks while they are
        fetched. Raises Changed if the blob was replaced.
        """
        end = min(offset + len(target), size_bytes)
        if offset >= end:
            return 0
        fetch_end = end
        if stream is not None:
            stream.note(offset, end - offset, self._tolerance_bytes)
            if stream.in_order_bytes >= self._sequential_bytes:
                self._read_ahead(version, size_bytes, end, stream)
                fetch_end = self._block_end(offset, end)
        self._copy(version, size_bytes, offset, end, fetch_end, target)
        return end - offset

    def _copy(
        self, version: BlobVersion, size_bytes: int, offset: int, end: int, fetch_end: int, target: memoryview
    ) -> None:
        step = self._cache.fragment_bytes
        position = offset
        while position < end:
            index = position // step
            run = -(-fetch_end // step) - index
            fragment = self._cache.fragment(version, size_bytes, index, max(1, run))
            start = position - index * step
            length = min(end - position, len(fragment.view) - start)
            target[position - offset : position - offset + length] = fragment.view[start : start + length]
            position += length

    def _block_end(self, offset: int, end: int) -> int:
        """Return the end of the block that holds `offset`, or `end` if that is further."""
        return max(end, (offset // self._block_bytes + 1) * self._block_bytes)

    def _read_ahead(self, version: BlobVersion, size_bytes: int, position: int, stream: Stream) -> None:
        """Have the next blocks fetched in the background, as many as the reader has earned."""
        earned = min(self._ahead_blocks, 1 + stream.in_order_bytes // self._block_bytes)
        block = -(-position // self._block_bytes)
        step = self._block_bytes // self._cache.fragment_bytes
        for index in range(max(block, stream.ahead_offset // self._block_bytes), block + earned):
            if index * self._block_bytes >= size_bytes:
                break
            fetch = self._cache.prefetch(version, size_bytes, index * step, step)
            if fetch is not None:
                self._transfers.submit_read(self._cache.perform, fetch)
            stream.ahead_offset = (index + 1) * self._block_bytes
