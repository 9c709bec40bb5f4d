"""What is known of the checksums of each version: its block list, asked for once, or its MD5."""

import threading
from collections.abc import Sequence

import cachetools

from blobfs.blocks import MAX_BLOCKS_PER_BLOB, xxh3_in_id
from blobfs.content.layout import Check, Layout, layout_of_blocks, uniform_layout
from blobfs.store import BlobInfo, BlobKind, BlobStore, BlobVersion


class Checksums:
    """The layouts of all versions that are read; nothing is known when not `enabled`."""

    def __init__(self, store: BlobStore, *, enabled: bool, unit_bytes: int, largest_bytes: int) -> None:
        self.enabled = enabled
        self._store = store
        self._unit_bytes = unit_bytes
        self._largest_bytes = largest_bytes
        self._lock = threading.Lock()  # guards the two maps; never held across a request
        self._asking: dict[BlobVersion, threading.Lock] = {}
        # As many checksums as the largest blob has; some 10 MB.
        self._layouts: cachetools.LRUCache[BlobVersion, Layout] = cachetools.LRUCache(
            2 * MAX_BLOCKS_PER_BLOB, getsizeof=lambda layout: 1 + len(layout)
        )

    def layout(self, blob: BlobInfo) -> Layout:
        """Return what is known now: the block list if it was asked for before, or what the MD5 gives."""
        known = self._known(blob.version)
        return self._presumed(blob) if known is None else known

    def full_layout(self, blob: BlobInfo) -> Layout:
        """Return all that can be known. Blocks for a request, unless that was made before. Raises Changed."""
        known = self._known(blob.version)
        if known is not None:
            return known
        presumed = self._presumed(blob)
        if not self.enabled or len(presumed) or blob.kind is not BlobKind.BLOCK:
            return presumed
        with self._lock:
            asking = self._asking.setdefault(blob.version, threading.Lock())
        try:
            with asking:
                known = self._known(blob.version)
                return self._ask(blob) if known is None else known
        finally:
            with self._lock:
                self._asking.pop(blob.version, None)

    def checks_of_block(self, span: range, block_id: str) -> Sequence[Check]:
        """Return the checksum in a committed block's id, of the bytes in `span`; empty if it has none."""
        digest = xxh3_in_id(block_id) if self.enabled and block_id else None
        return () if digest is None else (Check(span.start, span.stop, digest),)

    def rename(self, old: BlobVersion, new: BlobVersion) -> None:
        """Keep what is known when only the name or the metadata of a blob changed."""
        with self._lock:
            layout = self._layouts.pop(old, None)
            if layout is not None:
                self._layouts[new] = layout

    def _known(self, version: BlobVersion) -> Layout | None:
        with self._lock:
            return self._layouts.get(version)

    def _presumed(self, blob: BlobInfo) -> Layout:
        """Return the layout by the MD5, which the service checks when a blob of one block is put."""
        if self.enabled and blob.content_md5 and 0 < blob.size_bytes <= self._unit_bytes:
            return Layout(blob.size_bytes, (0,), (Check(0, blob.size_bytes, blob.content_md5),))
        return uniform_layout(blob.size_bytes, self._unit_bytes)

    def _ask(self, blob: BlobInfo) -> Layout:
        layout = layout_of_blocks(
            self._store.committed_blocks(blob.version),
            blob.size_bytes,
            unit_bytes=self._unit_bytes,
            largest_bytes=self._largest_bytes,
        )
        with self._lock:
            self._layouts[blob.version] = layout
        return layout
