"""Reading a committed blob: which ranges to fetch, and how far ahead.

A stream is the reads of one handle. While they hop about, only the fragments asked for are fetched, and
if the hops are equal, the next ones ahead. Once they have been in order for a while, whole units are fetched
and verified, and the next ones ahead, as far as the stream's share of the memory goes. A unit too large for
that share is fetched in portions. Without a cache on disk, so is one without checksums, and other units are
brought at first by several requests side by side.
"""

from blobfs.content.checksums import Checksums
from blobfs.content.fetcher import Fetcher, Wanted
from blobfs.content.layout import Cut, Layout, piece_start
from blobfs.content.memory import copy_bytes
from blobfs.content.range_cache import RangeCache
from blobfs.content.streams import CERTAIN_HOPS, Readers, Stream
from blobfs.content.whole_check import WholeCheck
from blobfs.errors import Damaged
from blobfs.store import BlobInfo
from blobfs.transfers import Transfers


class BlobReader:
    """Fills memory from blob versions, through the cache. Shared by all handles of a mount."""

    def __init__(
        self,
        cache: RangeCache,
        checksums: Checksums,
        fetcher: Fetcher,
        transfers: Transfers,
        *,
        block_bytes: int,
        portion_bytes: int,
        whole_bytes: int,
        sequential_bytes: int,
        mid_file_sequential_bytes: int,
        tolerance_bytes: int,
        most_tolerance_bytes: int,
        ahead_blocks: int,
    ) -> None:
        self._cache = cache
        self._checksums = checksums
        self._fetcher = fetcher
        self._transfers = transfers
        self._block_bytes = block_bytes
        self._portion_bytes = portion_bytes
        self._whole_bytes = whole_bytes
        self._sequential_bytes = sequential_bytes
        self._mid_file_sequential_bytes = mid_file_sequential_bytes
        self._tolerance_bytes = tolerance_bytes
        self._most_tolerance_bytes = most_tolerance_bytes
        self._ahead_blocks = ahead_blocks
        self._readers = Readers(cache.capacity_bytes)

    def read_into(self, blob: BlobInfo, offset: int, target: memoryview, stream: Stream) -> int:
        """Copy bytes of the blob to `target`; return how many there were before its end.

        Blocks while they are fetched. Raises Changed if the blob was replaced, Damaged if its
        bytes do not match their checksums.
        """
        end = min(offset + len(target), blob.size_bytes)
        if offset >= end:
            return 0
        stream = self._noted(blob, offset, end - offset, stream)
        target = target[: end - offset]
        threshold_bytes = self._sequential_bytes if stream.starts_at_zero else self._mid_file_sequential_bytes
        if stream.in_order_bytes >= threshold_bytes:
            self._read_in_order(blob, offset, end, target, stream)
        else:
            # A small file is fetched whole by whoever reads it, which is no slower and can be verified.
            layout, whole = self._checksums.layout(blob), blob.size_bytes <= self._whole_bytes
            self._hop_ahead(blob, layout, len(target), stream)
            # Who reads on from the start gets these bytes before those of their unit can be compared.
            by_range_md5 = self._checksums.enabled and stream.starts_at_zero
            self._copy(blob, layout, offset, target, whole=whole, by_range_md5=by_range_md5)
        return end - offset

    def _noted(self, blob: BlobInfo, offset: int, length: int, stream: Stream) -> Stream:
        """Record a read, and return the stream that it belongs to.

        All who have a file open share the kernel's pages: one asks for what comes next where another has
        stopped, and each by itself would seem to hop.
        """
        tolerances_bytes = self._tolerance_bytes, self._most_tolerance_bytes
        stream = self._readers.at(blob.version, offset, length, *tolerances_bytes) or stream
        in_order = stream.is_next(offset, length, *tolerances_bytes)
        stream.version = blob.version
        stream.note(offset, length, in_order=in_order)
        return stream

    def read_exactly(self, blob: BlobInfo, offset: int, target: memoryview, block_id: str = "") -> None:
        """Fill `target` with bytes of the blob, taking no memory for it: past the cache, and nothing else.

        For who holds memory already, and writes them again: a new checksum of damaged bytes would hide the
        damage for ever. So they are compared with those of the blocks inside, `block_id` if they are that
        block, or with one that the service makes. Blocks. Raises as `read_into` does.
        """
        layout = self._checksums.full_layout(blob)
        span = range(offset, offset + len(target))
        checks = layout.checks(span) or self._checksums.checks_of_block(span, block_id)
        unknown = self._checksums.enabled and sum(check.end - check.start for check in checks) < len(target)
        wanted = Wanted(blob.version, span, target, layout.unit(offset).start, checks, by_range_md5=unknown)
        self._fetcher.fill(wanted, 0 if unknown else self._cache.copy_held(blob.version, offset, target))

    def layout(self, blob: BlobInfo) -> Layout:
        """Return how `read_exactly` best cuts the blob, and its checksums. Blocks for a request at most.

        Raises Changed if the blob was replaced.
        """
        return self._checksums.full_layout(blob)

    def keep(self, blob: BlobInfo, content: memoryview) -> None:
        """Keep what a blob was just made of, if that is small and there is memory to spare.

        Programs often read what they have just written: git its objects, a compiler its own output.
        """
        buffer = self._cache.spare_buffer(len(content)) if 0 < len(content) <= self._whole_bytes else None
        if buffer is not None:
            copy_bytes(buffer.view, content)
            self._cache.add(blob.version, buffer, len(content), is_verified=True)

    def rename(self, old: BlobInfo, new: BlobInfo) -> None:
        """Keep what is here and known when only the name or the metadata of a blob changed."""
        self._cache.rename(old.version, new.version)
        self._checksums.rename(old.version, new.version)

    def _let_go(self, blob: BlobInfo, cut: Cut, offset: int, end: int) -> None:
        """Give up what a reader has left, once it is well past that: its requests overlap."""
        span = cut.span(offset)
        passed = span.start + min(self._most_tolerance_bytes, len(span) // 2)
        if span.start and offset < passed <= end:
            self._cache.let_go(blob.version, cut.span(span.start - 1))

    def _copy(
        self,
        blob: BlobInfo,
        layout: Layout,
        offset: int,
        target: memoryview,
        *,
        whole: bool,
        by_range_md5: bool = False,
        fetched_until: int = 0,
    ) -> None:
        position, end = offset, offset + len(target)
        until = max(end, fetched_until)
        while position < end:
            rest = target[position - offset :]
            # No name for the run: held while the next one waits for memory, it might be what is missing.
            position += self._cache.run(
                blob.version, layout, position, until, whole=whole, by_range_md5=by_range_md5
            ).copy(position, rest)

    def _read_in_order(
        self, blob: BlobInfo, offset: int, end: int, target: memoryview, stream: Stream
    ) -> None:
        """Copy from whole units, unless so many read in order that a unit would be gone before it is read."""
        layout = self._checksums.full_layout(blob)
        share_bytes = self._readers.share_bytes(stream, len(target))
        cut = self._cut(layout, stream, share_bytes)
        self._read_ahead(blob, cut, offset, end, stream, share_bytes)
        whole = cut.is_whole(offset)
        self._copy(
            blob,
            layout,
            offset,
            target,
            whole=whole,
            by_range_md5=not whole and layout.has_checks(offset),
            fetched_until=cut.span(end - 1).stop,
        )
        if stream.starts_at_zero:
            self._check_whole(blob, layout, end, stream, whole=whole)
        self._let_go(blob, cut, offset, end)
        if end == blob.size_bytes:
            self._readers.leave(stream)

    def _cut(self, layout: Layout, stream: Stream, share_bytes: int) -> Cut:
        """Return what is fetched at once: portions of at most a third of the stream's share.

        One has just been left, one is being read, and one is next.
        """
        most_bytes = max(self._cache.fragment_bytes, min(self._block_bytes, share_bytes // 3))
        portion_bytes = stream.portion_bytes(self._portion_bytes, most_bytes)
        return Cut(
            layout,
            whole_bytes=max(share_bytes, self._whole_bytes),
            only_checked=self._fetcher.disk is None,  # a piece on disk serves those who ask for less of it
            portion_bytes=portion_bytes,
        )

    def _check_whole(self, blob: BlobInfo, layout: Layout, end: int, stream: Stream, *, whole: bool) -> None:
        """Keep up the checksum of the whole, where nothing better vouches for all of it."""
        check = stream.whole_check
        if check is None:
            if not (self._checksums.enabled and blob.content_md5) or layout.is_complete:
                return
            check = stream.whole_check = WholeCheck(self._cache, blob.content_md5)
        if not check.is_of(blob):
            # Somebody here has written the file: what was read of it before is another version's.
            stream.whole_check, stream.starts_at_zero = None, False
            return
        try:
            check.advance(blob, layout, end, whole=whole)
        except Damaged as damage:
            self._fetcher.note_damage(damage)
            self._cache.drop(blob.version)
            raise

    def _hop_ahead(self, blob: BlobInfo, layout: Layout, length: int, stream: Stream) -> None:
        """Have the next stretches fetched of a reader that leaves out as much each time."""
        if stream.hops.equal_hops < CERTAIN_HOPS:
            return
        share_bytes = self._readers.share_bytes(stream, length)
        for offset in stream.hops.ahead(min(self._ahead_blocks, share_bytes // 2 // length)):
            if offset >= blob.size_bytes:
                return
            unit = layout.unit(offset)
            start = piece_start(unit, offset, self._cache.fragment_bytes)
            span = range(start, min(offset + length, unit.stop))
            fetch = self._cache.prefetch(blob.version, layout, span, whole=False)
            if fetch is not None:
                self._transfers.submit_read(self._cache.perform, fetch)

    def _read_ahead(
        self, blob: BlobInfo, cut: Cut, offset: int, end: int, stream: Stream, share_bytes: int
    ) -> None:
        """Have what is next fetched in the background: more once the reader has waited for it."""
        span = cut.span(offset)
        fragment = piece_start(span, offset, self._cache.fragment_bytes)
        if offset < stream.ahead_offset and not self._cache.holds(blob.version, fragment):
            stream.has_waited = True
        # The rest is for what is read now and what was before it: a reader's requests overlap.
        spare_bytes = (share_bytes // len(span) - 2) * len(span)
        most_bytes = min(spare_bytes, self._ahead_blocks * self._block_bytes)
        limit = min(blob.size_bytes, end + min(most_bytes, stream.earned_bytes(cut.portion_bytes)))
        position = max(span.start, stream.ahead_offset)  # the reader will help with what it needs now
        while position < limit:
            position = stream.ahead_offset = self._fetch_ahead(blob, cut, position)

    def _fetch_ahead(self, blob: BlobInfo, cut: Cut, position: int) -> int:
        """Have the bytes from `position` on fetched in the background; return where those of them end."""
        layout, whole = cut.layout, cut.is_whole(position)
        span = range(position, cut.span(position).stop)
        fetch = self._cache.prefetch(
            blob.version,
            layout,
            span,
            whole=whole,
            by_range_md5=not whole and layout.has_checks(position),
            part_bytes=cut.portion_bytes if cut.only_checked and cut.portion_bytes < self._block_bytes else 0,
        )
        if fetch is not None:
            for _ in range(fetch.unfinished):
                self._transfers.submit_read(self._cache.perform, fetch)
        return span.stop
