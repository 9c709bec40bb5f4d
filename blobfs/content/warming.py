"""Bringing bytes into the cache before anybody reads them, and telling how many are there."""

from blobfs.content.checksums import Checksums
from blobfs.content.fetcher import Fetcher, Wanted
from blobfs.content.layout import Layout
from blobfs.content.range_cache import RangeCache
from blobfs.store import BlobInfo


class Warming:
    """Fetches for the cache alone: into memory, and to the disk where there is a cache on it."""

    def __init__(self, cache: RangeCache, checksums: Checksums, fetcher: Fetcher) -> None:
        self._cache = cache
        self._checksums = checksums
        self._fetcher = fetcher

    def warm(self, blob: BlobInfo, start: int, end: int) -> None:
        """Have the units that begin in [start, end) in the cache, on disk where there is one.

        They may push out others, or each other if there is not room for all. Blocks while they are
        fetched and written. Raises Changed if the blob was replaced, Damaged if its bytes do not match
        their checksums.
        """
        layout = self._checksums.full_layout(blob)
        end = min(end, blob.size_bytes)
        while start < end:
            unit = layout.unit(start)
            if unit.start == start:
                self._warm_unit(blob, layout, unit)
            start = unit.stop

    def cached_bytes(self, blob: BlobInfo) -> int:
        """Return how many bytes need not be fetched: of each unit, those in a row from its start."""
        layout, count, position = self._checksums.layout(blob), 0, 0
        while position < blob.size_bytes:
            length = self._bytes_at(blob, position)
            count += length
            position = position + length if length else layout.unit(position).stop
        return count

    def _warm_unit(self, blob: BlobInfo, layout: Layout, unit: range) -> None:
        position = unit.start
        while position < unit.stop:
            length = self._fetcher.bytes_on_disk(blob.version, position)
            if not length:
                run = self._cache.run(blob.version, layout, position, unit.stop, whole=True)
                position, length = run.span.start, len(run.span)
                view = run.buffer.view[:length]
                wanted = Wanted(blob.version, run.span, view, unit.start, (), run.buffer)
                self._fetcher.keep_surely(wanted)
            position += length

    def _bytes_at(self, blob: BlobInfo, position: int) -> int:
        on_disk = self._fetcher.bytes_on_disk(blob.version, position)
        return on_disk or self._cache.bytes_held(blob.version, position)
