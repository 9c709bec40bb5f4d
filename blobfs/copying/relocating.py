"""One blob, copied by the service itself."""

from collections.abc import Mapping
from typing import Protocol

from blobfs.copying.entries import Work
from blobfs.copying.entry_copier import EntryCopier
from blobfs.copying.meter import Meter
from blobfs.store import BlobInfo, Condition


class CopyBlob(Protocol):
    """How the service is asked for a copy: see `BlobStore.copy`."""

    def __call__(
        self, source: BlobInfo, name: str, metadata: Mapping[str, str], condition: Condition
    ) -> BlobInfo:
        """Return the copy when it is complete."""
        ...


class Relocator(EntryCopier):
    """Has blobs copied, metadata and headers with them. Safe to use from many threads."""

    def __init__(self, copy: CopyBlob, meter: Meter) -> None:
        self._copy = copy
        self._meter = meter

    def copy(self, work: Work) -> None:
        """Have the blob at its target. Blocks. Raises Failure, Changed if either is not what was seen."""
        blob = work.source.blob
        if blob is None:  # a mere prefix comes with the blobs below it
            return
        self._copy(blob, work.target, blob.metadata, work.condition)
        self._meter.note(blob.size_bytes)
