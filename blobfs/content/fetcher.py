"""Getting the bytes of one run: from disk or the service, verified, and again if they arrived damaged."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from blobfs.blocks import MAX_RANGE_WITH_MD5_BYTES
from blobfs.content.disk_cache import DiskCache
from blobfs.content.layout import Check, verify_all
from blobfs.content.memory import Buffer
from blobfs.counters import Counters
from blobfs.errors import Changed, Damaged
from blobfs.store import BlobInfo, BlobStore, BlobVersion

logger = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """A run of bytes of one version, what is known of them, and where they go."""

    version: BlobVersion
    span: range  # offsets in the blob
    view: memoryview  # as long as the span
    unit_start: int  # of the unit that the run is in
    checks: Sequence[Check]
    buffer: Buffer | None = None  # behind the view; without one, the bytes are not put on disk
    by_range_md5: bool = False  # have the service make an MD5 of what the checks do not cover

    @property
    def is_covered(self) -> bool:
        """Whether every byte has a checksum."""
        return sum(check.end - check.start for check in self.checks) == len(self.span)

    def parts(self, part_bytes: int) -> Sequence[range]:
        """Return what can be received by itself, as all is verified afterwards; 0 bytes: only the whole."""
        if not part_bytes or not self.is_covered:
            return [self.span]
        stop = self.span.stop
        return [range(at, min(at + part_bytes, stop)) for at in range(self.span.start, stop, part_bytes)]

    def verify(self) -> None:
        """Raise Damaged unless the bytes in place match every checksum."""
        verify_all(self.version.name, self.checks, self.span.start, self.view)


class Fetcher:
    """Fills memory with bytes that are as they were written, as far as checksums tell.

    With `range_md5`, the service sends the MD5 of whatever no other checksum covers.
    """

    def __init__(self, store: BlobStore, disk: DiskCache | None, *, range_md5: bool, attempts: int) -> None:
        self._store = store
        self.disk = disk  # None: there is no cache on disk
        self._range_md5 = range_md5
        self._attempts = attempts
        self.counts = Counters()  # damaged replies; hits and misses on disk, of runs

    def fill(self, wanted: Wanted, held_bytes: int = 0) -> None:
        """Fill `wanted.view`, of which the first `held_bytes` are in place already, unverified.

        Blocks for requests. Raises Damaged if the bytes stay damaged, Changed if the blob was replaced.
        """
        is_for_cache = wanted.buffer is not None or not wanted.by_range_md5
        if is_for_cache and held_bytes < len(wanted.span) and self._read_from_disk(wanted):
            return
        self._download(wanted, held_bytes)
        self.keep(wanted)

    def fill_part(self, wanted: Wanted, part: range, held_bytes: int) -> None:
        """Fill a part of `wanted.view`, of whose bytes so many are in place; `complete` verifies all parts.

        Blocks for a request. Raises Changed if the blob was replaced.
        """
        start = part.start + held_bytes
        piece = wanted.view[start - wanted.span.start : part.stop - wanted.span.start]
        if piece:
            self._receive_piece(wanted.version, start, piece, with_md5=False)

    def complete(self, wanted: Wanted) -> None:
        """Verify what was filled by parts, and get it again if it is damaged. Raises as `fill`."""
        if not self.is_sound(wanted):
            self._download(wanted, held_bytes=0)
        self.keep(wanted)

    def keep(self, wanted: Wanted) -> None:
        """Have the bytes put on disk in the background."""
        if self.disk is not None and wanted.buffer is not None:
            self.disk.keep(wanted.version, wanted.span.start, wanted.buffer, len(wanted.span))

    def keep_surely(self, wanted: Wanted) -> None:
        """Have the bytes on disk, if there is a cache there, when this returns. Blocks."""
        if self.disk is not None and wanted.buffer is not None:
            self.disk.keep_surely(wanted.version, wanted.span.start, wanted.buffer, len(wanted.span))

    def bytes_on_disk(self, version: BlobVersion, start: int) -> int:
        """Return how many bytes from `start` on are there in one piece."""
        return self.disk.bytes_at(version, start) if self.disk is not None else 0

    def has_on_disk(self, version: BlobVersion) -> bool:
        """Tell whether the first bytes of a blob need not be fetched."""
        return self.disk is not None and self.disk.holds(version, 0)

    def _read_from_disk(self, wanted: Wanted) -> bool:
        if self.disk is None:
            return False
        is_hit = self._read_sound(self.disk, wanted)
        self.counts.add("hits" if is_hit else "misses")
        return is_hit

    def _read_sound(self, disk: DiskCache, wanted: Wanted) -> bool:
        if not disk.read(wanted.version, wanted.unit_start, wanted.span.start, wanted.view):
            return False
        if self.is_sound(wanted):
            return True
        disk.discard(wanted.version, wanted.span.start)
        return False

    def _download(self, wanted: Wanted, held_bytes: int) -> None:
        damage = self._attempt(wanted, held_bytes)
        for _ in range(1, self._attempts):
            if damage is None:
                return
            damage = self._attempt(wanted, held_bytes=0)
        if damage is not None:
            raise damage

    def first_bytes(
        self, name: str, view: memoryview, known_etag: str, *, with_md5: bool
    ) -> tuple[int, BlobInfo | None]:
        """Return what the blob is now, and how many of its first bytes are in `view`.

        None if it still has the ETag that is known. With `with_md5`, the service sends an MD5 of them.
        Blocks for a request. Raises NotFound.
        """
        with_md5 |= self._range_md5
        try:
            return self._store.read_range(name, 0, view, if_none_match=known_etag, with_md5=with_md5)
        except Damaged as damage:
            self.note_damage(damage)
            return 0, self._store.head(name)

    def is_sound(self, wanted: Wanted) -> bool:
        """Tell whether bytes that are in place match their checksums; damage is counted."""
        try:
            wanted.verify()
        except Damaged as damage:
            self.note_damage(damage)
            return False
        return True

    def note_damage(self, damage: Damaged) -> None:
        """Count and log bytes that did not match their checksum, and that nobody gets to see."""
        self.counts.add("damaged")
        logger.warning("damaged bytes arrived: %s", damage)

    def _attempt(self, wanted: Wanted, held_bytes: int) -> Damaged | None:
        """Get the bytes once; return what is wrong with them."""
        try:
            self._receive(wanted, held_bytes)
            wanted.verify()
        except Damaged as damage:
            self.note_damage(damage)
            return damage
        return None

    def _receive(self, wanted: Wanted, held_bytes: int) -> None:
        with_md5 = (self._range_md5 or wanted.by_range_md5) and not wanted.is_covered
        step = MAX_RANGE_WITH_MD5_BYTES if with_md5 else len(wanted.view)
        for position in range(held_bytes, len(wanted.view), step):
            piece = wanted.view[position : position + step]
            self._receive_piece(wanted.version, wanted.span.start + position, piece, with_md5=with_md5)

    def _receive_piece(self, version: BlobVersion, start: int, piece: memoryview, *, with_md5: bool) -> None:
        received, _ = self._store.read_range(
            version.name, start, piece, if_match=version.etag, with_md5=with_md5
        )
        if received != len(piece):
            raise Changed(f"{version.name}: {received} bytes at {start}, expected {len(piece)}")
