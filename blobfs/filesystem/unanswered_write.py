"""A write whose reply never came: it may have been carried out all the same."""

from collections.abc import Mapping

from blobfs.store import BlobInfo, BlobStore, head_or_none, same_metadata


class UnansweredWrite:
    """The one of a file, if there is any. Not thread-safe: the file has the lock."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._metadata: Mapping[str, str] | None = None  # that the write gives the blob

    def note(self, metadata: Mapping[str, str]) -> None:
        """Take note of one. Its metadata tells it from others: the time of the change is in it, to the ns."""
        self._metadata = metadata

    def resolve(self, name: str) -> BlobInfo | None:
        """Return what the write made of the blob; None if it was not carried out, or if there is no doubt.

        Blocks for a request where there is doubt. Raises Failure, and the doubt stays.
        """
        if self._metadata is None:
            return None
        found = head_or_none(self._store, name)
        metadata, self._metadata = self._metadata, None
        return found if found is not None and same_metadata(found.metadata, metadata) else None
