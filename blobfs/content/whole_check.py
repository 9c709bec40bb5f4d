"""The MD5 of a whole file, kept up while one handle reads it from start to end."""

import hashlib
import threading

from blobfs.content.layout import Layout
from blobfs.content.range_cache import RangeCache
from blobfs.errors import Damaged
from blobfs.store import BlobInfo


class WholeCheck:
    """Hashes what a stream reads, in the file's order: the kernel's own is not quite."""

    def __init__(self, cache: RangeCache, blob: BlobInfo, md5: bytes) -> None:
        self._cache = cache
        self._blob = blob
        self._expected = md5
        self._lock = threading.Lock()  # held across this stream's requests, should bytes have left the cache
        self._hash = hashlib.md5(usedforsecurity=False)
        self._position = 0

    def advance(self, layout: Layout, end: int, *, whole: bool) -> None:
        """Hash up to `end`, fetching what has left the cache, as `whole` units or not.

        Raises Damaged if that is the end of the file and the checksum does not match.
        """
        if end <= self._position < self._blob.size_bytes:
            return
        with self._lock:
            while self._position < end:
                run = self._cache.run(self._blob.version, layout, self._position, end, whole=whole)
                start = self._position - run.span.start
                stop = min(end, run.span.stop) - run.span.start
                self._hash.update(run.buffer.view[start:stop])
                self._position += stop - start
            self._compare()

    def _compare(self) -> None:
        found = self._hash.digest()
        if self._position == self._blob.size_bytes and found != self._expected:
            raise Damaged(
                f"{self._blob.name}: the whole, {self._position} bytes: "
                f"expected MD5 {self._expected.hex()}, found {found.hex()}"
            )
