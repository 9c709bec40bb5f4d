"""The bytes of a blob in order, verified before anybody gets them, several requests ahead."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence

from blobfs.content.layout import ChecksInOrder, Layout, require_whole
from blobfs.content.memory import Buffer, BufferPool
from blobfs.content.reader import BlobReader
from blobfs.copying.meter import Meter
from blobfs.store import BlobInfo
from blobfs.transfers import Transfer, Transfers


class Units:
    """Reads blobs unit by unit. Safe to use from many threads."""

    def __init__(
        self,
        reader: BlobReader,
        pool: BufferPool,
        transfers: Transfers,
        meter: Meter,
        *,
        ahead: int,
        verifies: bool,
    ) -> None:
        self._reader = reader
        self._pool = pool
        self._transfers = transfers
        self._meter = meter
        self._ahead = ahead
        self.verifies = verifies

    def layout(self, blob: BlobInfo) -> Layout:
        """Return how the blob is cut, and its checksums. Blocks for a request, not for small blobs."""
        return self._reader.layout(blob) if blob.size_bytes else Layout(0, ())

    def take(self, size_bytes: int) -> Buffer:
        """Return memory, waiting for it. Not to be called by who holds some."""
        return self._pool.take(size_bytes)

    def stream(
        self, blob: BlobInfo, layout: Layout, spans: Sequence[range] | None = None
    ) -> Iterator[tuple[range, memoryview]]:
        """Yield these spans of the blob, or all of it, each with its bytes, which are gone with the next one.

        Raises Damaged before it yields a span that does not match its checksum; where a checksum is of
        more than one span, only at the end of those. Raises Changed if the blob was replaced, Abandoned.
        """
        wanted = spans_of(layout) if spans is None else spans
        whole = (
            hashlib.md5(usedforsecurity=False) if spans is None and self._needs_whole(blob, layout) else None
        )
        large = ChecksInOrder(blob.name, layout.large if spans is None and self.verifies else ())
        for span, view in self._fetched(blob, wanted):
            self._meter.note(len(span))
            large.see(span.start, view)
            if whole is not None:
                whole.update(view)
            yield span, view
        if whole is not None:
            require_whole(blob, whole.digest())

    def can_verify(self, blob: BlobInfo, layout: Layout) -> bool:
        """Tell whether checksums were stored that vouch for every byte."""
        return layout.is_vouched or blob.content_md5 is not None

    def _needs_whole(self, blob: BlobInfo, layout: Layout) -> bool:
        """Only where nothing better vouches for all of it."""
        return self.verifies and blob.content_md5 is not None and not layout.is_vouched

    def _fetched(self, blob: BlobInfo, spans: Sequence[range]) -> Iterator[tuple[range, memoryview]]:
        waiting, under_way = deque(spans), deque[tuple[range, Buffer, Transfer]]()
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self._ahead:
                    # Waiting for memory while holding some, two of us would wait for each other.
                    buffer = (self._pool.take_if_free if under_way else self._pool.take)(len(waiting[0]))
                    if buffer is None:
                        break
                    span = waiting.popleft()
                    fetch = self._transfers.submit_read(self._fill, blob, span, buffer)
                    under_way.append((span, buffer, fetch))
                    del buffer  # or it would be held while the next one is waited for
                span, buffer, fetch = under_way.popleft()
                fetch.result()
                yield span, buffer.view[: len(span)]
                del buffer, fetch
        finally:
            for _, _, fetch in under_way:
                fetch.cancel()

    def _fill(self, blob: BlobInfo, span: range, buffer: Buffer) -> None:
        self._reader.read_exactly(blob, span.start, buffer.view[: len(span)])


def spans_of(layout: Layout) -> list[range]:
    """Return the units of a blob in order."""
    spans: list[range] = []
    position = 0
    while position < layout.size_bytes:
        spans.append(layout.unit(position))
        position = spans[-1].stop
    return spans
