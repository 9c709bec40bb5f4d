"""What the service says of a blob, and in the same reply the first bytes of it."""

from blobfs.blocks import MAX_RANGE_WITH_MD5_BYTES
from blobfs.content.checksums import Checksums
from blobfs.content.fetcher import Fetcher, Wanted
from blobfs.content.memory import Buffer
from blobfs.content.range_cache import RangeCache
from blobfs.store import BlobInfo


class FirstBytes:
    """Asks what blobs are now, and keeps the bytes that come along for whoever reads them next."""

    def __init__(
        self, cache: RangeCache, checksums: Checksums, fetcher: Fetcher, *, whole_bytes: int
    ) -> None:
        self._cache = cache
        self._checksums = checksums
        self._fetcher = fetcher
        self._whole_bytes = whole_bytes  # up to this size, files are read whole

    def refresh(self, blob: BlobInfo, first_bytes: int) -> BlobInfo:
        """Return what the service says of the blob now; its first bytes come along unless they are here.

        A file that any reader gets whole comes whole. Blocks for a request. Raises NotFound.
        """
        if blob.size_bytes <= self._whole_bytes:
            first_bytes = blob.size_bytes
        return self._refresh(blob, self._cache.buffer_for(min(blob.size_bytes, first_bytes)), first_bytes)

    def refresh_if_memory(self, blob: BlobInfo, first_bytes: int) -> BlobInfo | None:
        """Like `refresh`, but None if there is no memory to spare: for work that is only helpful."""
        buffer = self._cache.spare_buffer(min(blob.size_bytes, first_bytes))
        return self._refresh(blob, buffer, first_bytes) if buffer is not None else None

    def discover_if_memory(self, name: str, first_bytes: int) -> BlobInfo | None:
        """Like `refresh_if_memory`, of a blob of which nothing is known."""
        buffer = self._cache.spare_buffer(first_bytes)
        return self._first_bytes(name, buffer, first_bytes) if buffer is not None else None

    def are_here(self, blob: BlobInfo) -> bool:
        """Tell whether the first bytes of a version need not be fetched."""
        return self._cache.holds(blob.version) or self._fetcher.has_on_disk(blob.version)

    def _refresh(self, blob: BlobInfo, buffer: Buffer, first_bytes: int) -> BlobInfo:
        count = min(blob.size_bytes, first_bytes)
        known_etag = blob.etag if self.are_here(blob) else ""
        has_checks = bool(self._checksums.layout(blob).checks(range(count)))
        return self._first_bytes(blob.name, buffer, count, known_etag, has_checks=has_checks) or blob

    def _first_bytes(
        self, name: str, buffer: Buffer, count: int, known_etag: str = "", *, has_checks: bool = False
    ) -> BlobInfo | None:
        """Return what a blob is now and keep its first bytes; None if it still has the ETag that is known.

        Unless there are checksums of them, they are compared with an MD5 that the service makes.
        """
        with_md5 = self._checksums.enabled and not has_checks and count <= MAX_RANGE_WITH_MD5_BYTES
        received, info = self._fetcher.first_bytes(name, buffer.view[:count], known_etag, with_md5=with_md5)
        if info is None or self.are_here(info):  # a larger piece may be
            return info
        if received < info.size_bytes:
            received -= received % self._cache.fragment_bytes
        view, checks = buffer.view[:received], self._checksums.layout(info).checks(range(received))
        wanted = Wanted(info.version, range(received), view, 0, checks, buffer)
        if received and self._fetcher.is_sound(wanted):
            self._fetcher.keep(wanted)
            self._cache.add(info.version, buffer, received, is_verified=bool(checks))
        return info
