"""One file being changed: bytes fill buffers, buffers become blocks, a commit makes them the blob.

Only the stretches that were touched are staged again; all other blocks of the blob, whoever
wrote them, are committed again by their ids. Not thread-safe: the file that owns it has the lock.
"""

import contextlib
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from blobfs.blocks import ID_BYTES, MAX_BLOCKS_PER_BLOB, block_size_at, digest_of, id_length
from blobfs.content.extents import Extent, Extents
from blobfs.content.memory import Buffer, BufferPool, disk_buffer
from blobfs.content.reader import BlobReader, Stream
from blobfs.errors import Failure, TooLarge
from blobfs.store import BlobInfo, BlobStore, Condition, Properties
from blobfs.transfers import Transfers

WHOLE_BLOCKS = 4  # a block up to this many times ours is staged again whole, a larger one in pieces
BLOCKS_IN_FLIGHT = 12  # per file: more than the write pool has threads, so it never runs dry


class OnlyStaged(Exception):
    """The bytes are on the service, uncommitted, and nowhere else: commit, then try again."""


class WholeMd5:
    """The MD5 of a file as long as it is written from start to end; unknown once it is not."""

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)
        self._position = 0
        self._broken = False

    def update(self, offset: int, data: memoryview) -> None:
        """Hash bytes that follow on the last ones; any others end the chain."""
        if self._broken or offset != self._position:
            self._broken = True
            return
        self._hash.update(data)
        self._position += len(data)

    def cut(self, size_bytes: int) -> None:
        """Take note that the file was truncated."""
        self._broken = self._broken or size_bytes < self._position

    def digest(self, size_bytes: int) -> bytes | None:
        """Return the MD5 of the whole file, None if not all its bytes were seen in order."""
        if self._broken or self._position != size_bytes:
            return None
        return self._hash.digest()


class BlobWriter:
    """The changed content of one blob. `name` may be set anew while nothing is staged."""

    def __init__(
        self,
        name: str,
        base: BlobInfo | None,
        *,
        store: BlobStore,
        transfers: Transfers,
        pool: BufferPool,
        reader: BlobReader,
        block_bytes: int,
        largest_block_bytes: int,
    ) -> None:
        self.name = name
        self._base = base
        self._store = store
        self._transfers = transfers
        self._pool = pool
        self._reader = reader
        self._block_bytes = block_bytes
        self._largest_block_bytes = largest_block_bytes
        self._id_bytes = ID_BYTES
        self._extents = Extents()
        if base is not None and base.size_bytes:
            self._extents.append(Extent(0, base.size_bytes, base_offset=0))
        self._blocks_known = base is None or base.size_bytes <= block_bytes
        self._whole_md5 = WholeMd5()
        self._in_flight: deque[Extent] = deque()
        self._service_ids: set[str] = set()  # staged since the last commit, or in it
        self._detached = False
        self.is_changed = base is None

    @property
    def size_bytes(self) -> int:
        """The size the file would have if it were committed now."""
        return self._extents.size_bytes

    @property
    def has_staged(self) -> bool:
        """Blocks of a file never committed may be on the service, under its name."""
        return bool(self._in_flight or self._service_ids)

    def read_into(self, offset: int, target: memoryview, stream: Stream) -> int:
        """Copy bytes to `target`; return how many there are before the end.

        Raises OnlyStaged, or what reading the committed blob raises.
        """
        end = min(offset + len(target), self.size_bytes)
        for extent in self._extents.over(offset, end):
            start, stop = max(offset, extent.start), min(end, extent.end)
            self._copy(extent, start, target[start - offset : stop - offset], stream)
        return max(0, end - offset)

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes at `offset`, growing the file if need be.

        Waits while too much is in flight or memory is short. Raises OnlyStaged, or what
        staging an earlier block raised; the bytes of this call may then be partly in place.
        Raises TooLarge, having changed nothing, for a file that no blob can hold.
        """
        self._check_size(offset + len(data))
        self._know_blocks()
        self._settle()
        self.is_changed = True
        if offset > self.size_bytes:
            self._grow(offset)
        position, rest = offset, data
        while rest:
            taken = self._append(rest) if position == self.size_bytes else self._overwrite(position, rest)
            position += taken
            rest = rest[taken:]
        self._whole_md5.update(offset, data)

    def truncate(self, size_bytes: int) -> None:
        """Cut the file, or let it grow by a hole. Raises OnlyStaged, TooLarge."""
        self._check_size(size_bytes)
        if size_bytes == self.size_bytes:
            return
        if size_bytes > 0:
            self._know_blocks()
        self._blocks_known = True
        if size_bytes > self.size_bytes:
            self._grow(size_bytes)
        else:
            self._shrink(size_bytes)
        if size_bytes == 0:
            self._whole_md5 = WholeMd5()
        self._whole_md5.cut(size_bytes)
        self.is_changed = True

    def commit(self, properties: Properties, condition: Condition) -> BlobInfo:
        """Make the content the blob, in one atomic step, and return what the blob is now.

        Blocks until the service has acknowledged every byte. After a failure the bytes are
        still here and commit may be called again.
        """
        whole = self._whole_buffer() if self.size_bytes <= self._block_bytes else None
        if whole is not None:
            info = self._put_whole(whole, properties, condition)
        else:
            info = self._commit_blocks(properties, condition)
        self._base = info
        self._blocks_known = True
        self.is_changed = False
        return info

    def rebase(self, info: BlobInfo) -> None:
        """Take note that the committed blob has a new name or new metadata, but the same bytes."""
        self._base = info
        self.name = info.name

    def detach(self) -> None:
        """Take all bytes into this process, because the blob is about to go. Raises OnlyStaged, NoSpace."""
        buffers = [self._own_buffer(extent) for extent in self._extents]
        self._forget_staged()
        for extent, buffer in zip(self._extents, buffers, strict=True):
            extent.buffer, extent.block_id, extent.base_offset = buffer, "", -1
        self._detached = self._blocks_known = True

    def release_memory(self) -> None:
        """Let go of copies; if there are none, send dirty bytes on their way. Does not wait."""
        if self._detached:
            return
        self._note_staged()
        copies = [extent for extent in self._extents if extent.is_droppable]
        for extent in copies:
            extent.buffer = None
        if not copies:
            self._seal_all(limit=BLOCKS_IN_FLIGHT)

    # Writing…

    def _check_size(self, size_bytes: int) -> None:
        largest_bytes = MAX_BLOCKS_PER_BLOB * self._largest_block_bytes
        if size_bytes > largest_bytes:
            raise TooLarge(f"{self.name}: {size_bytes} bytes, with this --memory at most {largest_bytes}")

    def _append(self, data: memoryview) -> int:
        tail = self._extents.last
        limit = block_size_at(max(0, len(self._extents) - 1), self._block_bytes, self._largest_block_bytes)
        if tail is not None and tail.length < limit and not (tail.is_hole or tail.is_only_staged):
            self._make_resident(tail)
            taken = min(limit - tail.length, len(data))
            if self._has_capacity(tail, tail.length + taken):
                self._fill(tail, tail.length, data[:taken])
                return taken
        if tail is not None:
            # Not before there is more: a file of one block goes up in one request, without staging.
            self._seal(tail)
        self._start_extent(len(data))
        return 0

    def _start_extent(self, wanted_bytes: int) -> None:
        if len(self._extents) >= MAX_BLOCKS_PER_BLOB:
            raise TooLarge(f"{self.name}: a blob has at most {MAX_BLOCKS_PER_BLOB} blocks")
        limit = block_size_at(len(self._extents), self._block_bytes, self._largest_block_bytes)
        # The first block starts small, for small files; a file with more will fill the next ones too.
        first_bytes = limit if len(self._extents) else min(limit, wanted_bytes)
        self._extents.append(Extent(self.size_bytes, 0, self._take(first_bytes)))

    def _overwrite(self, offset: int, data: memoryview) -> int:
        extent = self._extents.at(offset)
        if extent.buffer is None and self._must_split(extent):
            extent = self._carve(extent, offset)
        taken = min(extent.end - offset, len(data))
        self._make_resident(extent, overwritten=taken == extent.length)
        self._fill(extent, offset - extent.start, data[:taken])
        return taken

    def _fill(self, extent: Extent, start: int, data: memoryview) -> None:
        assert extent.buffer is not None
        extent.buffer.view[start : start + len(data)] = data
        extent.length = max(extent.length, start + len(data))
        extent.block_id, extent.base_offset = "", -1

    def _make_resident(self, extent: Extent, *, overwritten: bool = False) -> None:
        """Have the extent's bytes in a buffer that may be changed; content undefined if `overwritten`."""
        if extent.staging is not None:
            self._finish(extent, keep_buffer=True)
        if extent.buffer is not None:
            return
        buffer = self._take(extent.length)
        if not overwritten:
            self._copy(extent, extent.start, buffer.view[: extent.length], Stream())
        extent.buffer = buffer

    def _must_split(self, extent: Extent) -> bool:
        """Holes and other tools' large blocks are changed a block at a time."""
        if extent.block_id:
            return extent.is_committed and extent.length > WHOLE_BLOCKS * self._block_bytes
        return extent.length > self._block_bytes and (extent.is_hole or extent.is_committed)

    def _carve(self, extent: Extent, offset: int) -> Extent:
        """Cut the block-sized piece around `offset` out of a hole or a committed extent."""
        start = extent.start + (offset - extent.start) // self._block_bytes * self._block_bytes
        end = min(start + self._block_bytes, extent.end)
        piece = extent.part(start, end)
        around = [extent.part(extent.start, start), piece, extent.part(end, extent.end)]
        self._extents.replace(extent, [part for part in around if part.length])
        return piece

    def _grow(self, size_bytes: int) -> None:
        gap = size_bytes - self.size_bytes
        tail = self._extents.last
        if tail is not None and not tail.is_hole and tail.length + gap <= self._block_bytes:
            zeros = memoryview(bytes(gap))
            while zeros:
                zeros = zeros[self._append(zeros) :]
        elif tail is not None and tail.is_hole:
            tail.length += gap
        else:
            self._extents.append(Extent(self.size_bytes, gap))

    def _shrink(self, size_bytes: int) -> None:
        if size_bytes > 0:
            self._shorten(self._extents.at(size_bytes - 1), size_bytes)
        self._extents.cut(size_bytes)

    def _shorten(self, tail: Extent, size_bytes: int) -> None:
        """Have the extent end at `size_bytes`, which is in it. Raises OnlyStaged, having changed nothing."""
        if tail.end == size_bytes:
            return
        if tail.staging is not None:
            self._finish(tail, keep_buffer=True)
        if tail.buffer is not None:
            tail.length = size_bytes - tail.start
            tail.block_id, tail.base_offset = "", -1
        elif tail.is_only_staged:
            raise OnlyStaged
        else:
            self._extents.replace(tail, [tail.part(tail.start, size_bytes)])

    def _has_capacity(self, extent: Extent, length: int) -> bool:
        """Have the extent's buffer hold `length` bytes, unless memory is too short to grow it now."""
        assert extent.buffer is not None
        if extent.buffer.size_bytes >= length:
            return True
        wanted = max(length, min(2 * extent.buffer.size_bytes, self._block_bytes))
        larger = disk_buffer(wanted) if self._detached else self._pool.take_if_free(wanted)
        if larger is None:
            return False
        larger.view[: extent.length] = extent.buffer.view[: extent.length]
        extent.buffer = larger
        return True

    def _take(self, size_bytes: int) -> Buffer:
        return disk_buffer(size_bytes) if self._detached else self._pool.take(size_bytes)

    def _own_buffer(self, extent: Extent) -> Buffer | None:
        """Return a buffer with the extent's bytes that needs no service; None for a hole."""
        if extent.is_hole or extent.buffer is not None:
            return extent.buffer
        buffer = disk_buffer(extent.length)
        self._copy(extent, extent.start, buffer.view[: extent.length], Stream())
        return buffer

    def _copy(self, extent: Extent, start: int, target: memoryview, stream: Stream) -> None:
        if extent.buffer is not None:
            inner = start - extent.start
            target[:] = extent.buffer.view[inner : inner + len(target)]
        elif extent.is_committed:
            assert self._base is not None
            offset = extent.base_offset + start - extent.start
            self._reader.read_into(self._base, offset, target, stream)
        elif extent.is_hole:
            target[:] = bytes(len(target))
        else:
            raise OnlyStaged

    # Staging…

    def _seal(self, extent: Extent) -> None:
        """Stage the extent in the background. Its buffer must not change until that is finished."""
        buffer = extent.buffer
        if self._detached or not extent.length or not extent.is_dirty or buffer is None or extent.staging:
            return
        while len(self._in_flight) >= BLOCKS_IN_FLIGHT:
            self._finish(self._in_flight[0])
        extent.staging = self._transfers.submit_write(self._stage, buffer, extent.length)
        self._in_flight.append(extent)

    def _seal_all(self, limit: int) -> None:
        for extent in list(self._extents):
            if len(self._in_flight) >= limit:
                return
            self._seal(extent)

    def _stage(self, buffer: Buffer, length: int) -> str:
        block = buffer.view[:length]
        digest = digest_of(block)
        block_id = digest.block_id(self._id_bytes)
        if block_id not in self._service_ids:
            self._store.stage_block(self.name, block_id, block, digest.md5)
            self._service_ids.add(block_id)
        return block_id

    def _settle(self) -> None:
        """Finish what is staged by now. Raises the failure of a block that could not be."""
        while self._in_flight and self._in_flight[0].staging and self._in_flight[0].staging.done():
            self._finish(self._in_flight[0])

    def _note_staged(self) -> None:
        """Finish what is staged by now; a block that could not be is dirty again, and will be sent again."""
        for extent in [extent for extent in self._in_flight if extent.staging and extent.staging.done()]:
            with contextlib.suppress(Failure):
                self._finish(extent)

    def _finish(self, extent: Extent, *, keep_buffer: bool = False) -> None:
        """Wait until the extent is staged. After a failure it is dirty as before."""
        assert extent.staging is not None
        staging, extent.staging = extent.staging, None
        self._in_flight.remove(extent)
        extent.block_id = staging.result()
        if not keep_buffer and extent.start > 0:  # headers are written again, and stay
            extent.buffer = None

    # Committing…

    def _know_blocks(self) -> None:
        """Learn the committed blob's blocks before the first change of a part of it."""
        if self._blocks_known or self._base is None:
            return
        blocks = self._store.committed_blocks(self._base.version)
        if blocks:
            extents, start = [], 0
            for block in blocks:
                extents.append(Extent(start, block.size_bytes, None, block.block_id, start))
                start += block.size_bytes
            self._extents = Extents(extents)
            self._id_bytes = id_length(blocks[0].block_id)
            self._service_ids = {block.block_id for block in blocks}
        self._blocks_known = True

    def _whole_buffer(self) -> Buffer | None:
        """Return the whole content in one buffer; None if a part of it is staged and nowhere else."""
        only = self._extents.last
        if only is not None and only.start == 0 and only.buffer is not None:
            return only.buffer
        buffer = self._take(self.size_bytes)
        try:
            self.read_into(0, buffer.view[: self.size_bytes], Stream())
        except OnlyStaged:
            return None
        return buffer

    def _put_whole(self, buffer: Buffer, properties: Properties, condition: Condition) -> BlobInfo:
        size_bytes = self.size_bytes
        body = buffer.view[:size_bytes]
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        self._forget_staged()
        info = self._store.put_blob(self.name, body, replace(properties, content_md5=md5), condition)
        whole = [Extent(0, size_bytes, buffer, base_offset=0)] if size_bytes else []
        self._extents = Extents(whole)
        self._id_bytes = ID_BYTES
        return info

    def _forget_staged(self) -> None:
        """Wait for what is under way: Put Blob discards all that is staged, and nothing may come after it."""
        while self._in_flight:
            extent = self._in_flight.popleft()
            if extent.staging is not None:
                extent.staging.exception()
                extent.staging = None
        self._service_ids.clear()

    def _commit_blocks(self, properties: Properties, condition: Condition) -> BlobInfo:
        self._note_staged()
        self._split_for_staging()
        self._seal_rest()
        while self._in_flight:
            self._finish(self._in_flight[0])
        ids = [extent.block_id for extent in self._extents]
        md5 = self._whole_md5.digest(self.size_bytes)
        properties = replace(properties, content_md5=md5)
        info = self._store.commit_blocks(self.name, ids, properties, condition, self.size_bytes)
        for extent in self._extents:
            extent.base_offset = extent.start
        self._service_ids = set(ids)
        return info

    def _split_for_staging(self) -> None:
        """Cut holes and committed stretches that lost their block into pieces of one block."""
        largest = max(self._block_bytes, -(-self.size_bytes // (MAX_BLOCKS_PER_BLOB // 2)))
        piece_bytes = min(1 << (largest - 1).bit_length(), self._largest_block_bytes)
        pieces = Extents(part for extent in self._extents for part in _pieces(extent, piece_bytes))
        if len(pieces) > MAX_BLOCKS_PER_BLOB:
            raise TooLarge(f"{self.name}: {len(pieces)} blocks, a blob has at most {MAX_BLOCKS_PER_BLOB}")
        self._extents = pieces

    def _seal_rest(self) -> None:
        """Send every extent on its way that the service does not hold as a block."""
        zero_ids: dict[int, Extent] = {}
        for extent in self._extents:
            if extent.block_id or extent.staging is not None:
                continue
            if extent.is_hole and extent.length in zero_ids:
                continue
            if extent.is_hole:
                zero_ids[extent.length] = extent
            self._make_resident(extent)
            extent.base_offset = -1
            self._seal(extent)
        self._share_zero_blocks(zero_ids)

    def _share_zero_blocks(self, zero_ids: dict[int, Extent]) -> None:
        """One block of zeros is staged once and listed as often as it occurs."""
        holes: Sequence[Extent] = [extent for extent in self._extents if extent.is_hole]
        for extent in holes:
            staged = zero_ids[extent.length]
            if staged.staging is not None:
                self._finish(staged)
            extent.block_id = staged.block_id


def _pieces(extent: Extent, piece_bytes: int) -> Iterator[Extent]:
    """Return the extent itself, or pieces of it that can each become one block."""
    if not extent.length:
        return
    if extent.block_id or extent.buffer is not None or extent.length <= piece_bytes:
        yield extent
        return
    for start in range(extent.start, extent.end, piece_bytes):
        yield extent.part(start, min(start + piece_bytes, extent.end))
