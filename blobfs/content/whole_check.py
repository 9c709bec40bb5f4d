"""The MD5 of a whole file, kept up while one handle reads it from start to end."""

import hashlib
import threading

from blobfs.content.layout import Layout, require_whole
from blobfs.content.range_cache import RangeCache
from blobfs.store import BlobInfo


class WholeCheck:
    """Hashes what a stream reads, in the file's order, which the kernel's requests do not quite keep.

    The blob may get another name or other metadata meanwhile: its bytes are those of its MD5.
    """

    def __init__(self, cache: RangeCache, md5: bytes) -> None:
        self._cache = cache
        self._expected = md5
        self._lock = threading.Lock()  # held across this stream's requests, should bytes have left the cache
        self._hash = hashlib.md5(usedforsecurity=False)
        self._position = 0

    def is_of(self, blob: BlobInfo) -> bool:
        """Tell whether a blob has the bytes that are hashed here."""
        return blob.content_md5 == self._expected

    def advance(self, blob: BlobInfo, layout: Layout, end: int, *, whole: bool) -> None:
        """Hash up to `end`, fetching what has left the cache, as `whole` units or not.

        Raises Damaged if that is the end of the file and the checksum does not match.
        """
        if end <= self._position < blob.size_bytes:
            return
        with self._lock:
            while self._position < end:
                run = self._cache.run(blob.version, layout, self._position, end, whole=whole)
                start = self._position - run.span.start
                stop = min(end, run.span.stop) - run.span.start
                self._hash.update(run.buffer.view[start:stop])
                self._position += stop - start
            if self._position == blob.size_bytes:
                require_whole(blob, self._hash.digest())
