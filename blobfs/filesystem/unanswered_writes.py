"""Writes whose reply never came: each may have been carried out all the same, or may be yet."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from blobfs.errors import Failure
from blobfs.store import BlobInfo, BlobStore, head_or_none, same_metadata


class UnansweredWrites:
    """Those of one file since its last write that was answered. Not thread-safe: the file has the lock."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._metadata: list[Mapping[str, str]] = []  # that each gives the blob
        self.are_in_doubt = False  # nobody has looked since the last of them what there is

    @contextmanager
    def noted(self, metadata: Mapping[str, str]) -> Iterator[None]:
        """Take note of the write that is made inside if it goes unanswered; if not, forget those before it.

        Its metadata tells it from others: the time of the change is in it, to the ns. An answered
        write has changed the ETag, which all earlier ones are conditional on.
        """
        try:
            yield
        except Failure as failure:
            if failure.may_be_done:
                self._metadata.append(metadata)
                self.are_in_doubt = True
            raise
        self._metadata.clear()
        self.are_in_doubt = False

    def find(self, name: str) -> BlobInfo | None:
        """Return the blob if one of them has made it what it is now.

        Blocks for a request if there are any. Raises Failure.
        """
        if not self._metadata:
            return None
        found = head_or_none(self._store, name)
        self.are_in_doubt = False
        if found is None or not any(same_metadata(found.metadata, metadata) for metadata in self._metadata):
            return None
        return found
