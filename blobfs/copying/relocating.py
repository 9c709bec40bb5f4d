"""One blob, copied by the service itself."""

from collections.abc import Mapping
from typing import Protocol

from blobfs.copying.entries import Work
from blobfs.copying.entry_copier import EntryCopier
from blobfs.copying.meter import Meter
from blobfs.errors import AlreadyExists
from blobfs.format.attributes import metadata_of
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
        source, blob = work.source, work.source.blob
        if blob is None:  # a mere prefix comes with the blobs below it
            return
        # What only the slash at the end of its name calls a directory would be a file without it.
        metadata = metadata_of(source.attributes, blob.metadata) if source.is_directory else blob.metadata
        try:
            self._copy(blob, work.target, metadata, work.condition)
        except AlreadyExists:
            # A directory may have two blobs, `d` and `d/`: the first, which has its attributes, is there.
            if not (source.is_directory and blob.name.endswith("/")):
                raise
        self._meter.note(blob.size_bytes)
