"""A file's content while it is edited: bytes to extents.

Only the stretches that are touched get buffers; the others stay where they are, whoever wrote them.
"""

from collections.abc import Callable, Sequence

from blobfs.blocks import MAX_BLOCKS_PER_BLOB, block_size_at
from blobfs.content.extents import Extent, Extents
from blobfs.content.memory import Buffer, BufferPool, copy_bytes, disk_buffer
from blobfs.content.reader import BlobReader
from blobfs.content.staging import Staging
from blobfs.content.streams import Stream
from blobfs.errors import TooLarge
from blobfs.store import BlobInfo, ReadBase

WHOLE_BLOCKS = 4  # a block up to this many times ours is staged again whole, a larger one in pieces


ReadSpooled = Callable[[int, memoryview, ReadBase], bool]  # gives bytes as edited; False if it lacks any


class OnlyStaged(Exception):
    """The bytes are on the service, uncommitted, and nowhere else: commit, then try again."""


def nothing_spooled(_offset: int, _target: memoryview, _read_base: ReadBase) -> bool:
    """Have no other copy of what was staged."""
    return False


class Draft:
    """The bytes of one file as they are to be. `base` is the committed blob, None if there is none."""

    def __init__(
        self,
        base: BlobInfo | None,
        *,
        staging: Staging,
        pool: BufferPool,
        reader: BlobReader,
        block_bytes: int,
        largest_block_bytes: int,
        read_spooled: ReadSpooled,
    ) -> None:
        self.base = base
        self.extents = Extents()
        if base is not None and base.size_bytes:
            self.extents.append(Extent(0, base.size_bytes, base_offset=0))
        self._staging = staging
        self._pool = pool
        self._reader = reader
        self._block_bytes = block_bytes
        self._largest_block_bytes = largest_block_bytes
        self._read_spooled = read_spooled
        self._is_detached = False

    @property
    def size_bytes(self) -> int:
        """The size of the file."""
        return self.extents.size_bytes

    @property
    def buffered_bytes(self) -> int:
        """How much of the pool the content takes."""
        return sum(extent.buffer.size_bytes for extent in self.extents if extent.buffer is not None)

    def read_into(self, offset: int, target: memoryview, stream: Stream | None = None) -> int:
        """Copy bytes to `target`; return how many there are before the end.

        Raises OnlyStaged, or what reading the committed blob raises.
        """
        end = min(offset + len(target), self.size_bytes)
        for extent in self.extents.over(offset, end):
            start, stop = max(offset, extent.start), min(end, extent.end)
            self._copy(extent, start, target[start - offset : stop - offset], stream)
        return max(0, end - offset)

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes at `offset`, growing the file if need be.

        Raises OnlyStaged, or what staging an earlier block raised; the bytes of this call may
        then be partly in place. Raises TooLarge.
        """
        if offset > self.size_bytes:
            self._grow(offset)
        position, rest = offset, data
        while rest:
            taken = self._append(rest) if position == self.size_bytes else self._overwrite(position, rest)
            position += taken
            rest = rest[taken:]

    def truncate(self, size_bytes: int) -> None:
        """Cut the file, or let it grow by a hole. Raises OnlyStaged, having changed nothing."""
        if size_bytes > self.size_bytes:
            self._grow(size_bytes)
        else:
            self._shrink(size_bytes)

    def make_resident(self, extent: Extent, *, overwritten: bool = False) -> None:
        """Have the extent's bytes in a buffer that may be changed; content undefined if `overwritten`."""
        if extent.staging is not None:
            self._staging.finish(extent, keep_buffer=True)
        if extent.buffer is not None:
            return
        buffer = self._take(extent.length)
        if not overwritten:
            self._copy(extent, extent.start, buffer.view[: extent.length])
        extent.buffer = buffer

    def whole_buffer(self) -> Buffer | None:
        """Return the whole content in one buffer; None if a part of it is staged and nowhere else."""
        only = self.extents.last
        if only is not None and only.start == 0 and only.buffer is not None:
            return only.buffer
        buffer = self._take(self.size_bytes)
        try:
            self.read_into(0, buffer.view[: self.size_bytes])
        except OnlyStaged:
            return None
        return buffer

    def parts_of(self, extent: Extent) -> list[Extent]:
        """Return the pieces of a long stretch that can each become one block."""
        needed_bytes = -(-self.size_bytes // (MAX_BLOCKS_PER_BLOB // 2))
        part_bytes = 1 << (max(self._block_bytes, needed_bytes) - 1).bit_length()
        return extent.parts(min(part_bytes, self._largest_block_bytes))

    def detach(self) -> None:
        """Take all bytes to the local disk: memory that holds them could not be had again.

        Raises OnlyStaged, NoSpace.
        """
        buffers = [self._own_buffer(extent) for extent in self.extents]
        self._staging.stop()
        for extent, buffer in zip(self.extents, buffers, strict=True):
            extent.buffer, extent.block_id, extent.base_offset = buffer, "", -1
        self._is_detached = True

    def release_memory(self) -> None:
        """Let go of copies; if there are none, send dirty bytes on their way. Does not wait."""
        if self._is_detached:
            return
        self._staging.note_staged()
        self._staging.drop_kept(0)
        copies = [extent for extent in self.extents if extent.is_droppable]
        for extent in copies:
            extent.buffer = None
        if not copies:
            self._staging.seal_some(list(self.extents))

    def _append(self, data: memoryview) -> int:
        tail, index = self.extents.last, len(self.extents) - 1
        limit = block_size_at(max(0, index), self._block_bytes, self._largest_block_bytes)
        if tail is not None and tail.is_open and tail.length < limit:
            taken = min(limit - tail.length, len(data))
            run = self.extents.outgrown(taken, limit)
            if len(run) > 1 and self._join(run, taken):
                return 0
            if tail.is_open and self._has_capacity(tail, tail.length + taken):
                _fill(tail, tail.length, data[:taken])
                return taken
        if tail is not None:
            # Not before there is more: a file of one block goes up in one request, without staging.
            self._staging.seal(tail)
        # Who has filled a block here will fill the next one, too; others begin small.
        self._start_extent(limit if tail is not None and tail.is_dirty else min(limit, len(data)))
        return 0

    def _join(self, run: Sequence[Extent], growth_bytes: int) -> bool:
        """Have the last extents in one buffer with room for more, unless memory is too short for that."""
        start, end = run[0].start, run[-1].end
        buffer = self._take_if_free(end - start + growth_bytes)
        if buffer is None:
            return False
        for extent in run:
            self._copy(extent, extent.start, buffer.view[extent.start - start : extent.end - start])
        self.extents.join(run, buffer)
        return True

    def _start_extent(self, room_bytes: int) -> None:
        if len(self.extents) >= MAX_BLOCKS_PER_BLOB:
            raise TooLarge(f"{self._staging.name}: a blob has at most {MAX_BLOCKS_PER_BLOB} blocks")
        self.extents.append(Extent(self.size_bytes, 0, self._take(room_bytes)))

    def _overwrite(self, offset: int, data: memoryview) -> int:
        extent = self.extents.at(offset)
        if extent.buffer is None and self._must_split(extent):
            extent = self._carve(extent, offset)
        taken = min(extent.end - offset, len(data))
        self.make_resident(extent, overwritten=taken == extent.length)
        _fill(extent, offset - extent.start, data[:taken])
        return taken

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
        self.extents.replace(extent, [part for part in around if part.length])
        return piece

    def _grow(self, size_bytes: int) -> None:
        gap = size_bytes - self.size_bytes
        tail = self.extents.last
        if tail is not None and not tail.is_hole and tail.length + gap <= self._block_bytes:
            zeros = memoryview(bytes(gap))
            while zeros:
                zeros = zeros[self._append(zeros) :]
        elif tail is not None and tail.is_hole:
            tail.length += gap
        else:
            self.extents.append(Extent(self.size_bytes, gap))

    def _shrink(self, size_bytes: int) -> None:
        if size_bytes > 0:
            self._shorten(self.extents.at(size_bytes - 1), size_bytes)
        self.extents.cut(size_bytes)

    def _shorten(self, tail: Extent, size_bytes: int) -> None:
        """Have the extent end at `size_bytes`, which is in it. Raises OnlyStaged, having changed nothing."""
        if tail.end == size_bytes:
            return
        if tail.staging is not None:
            self._staging.finish(tail, keep_buffer=True)
        if tail.buffer is not None:
            tail.length = size_bytes - tail.start
            tail.block_id, tail.base_offset = "", -1
        elif tail.is_only_staged:
            buffer = self._take(size_bytes - tail.start)
            self._copy(tail, tail.start, buffer.view[: size_bytes - tail.start])
            tail.buffer, tail.length, tail.block_id = buffer, size_bytes - tail.start, ""
        else:
            self.extents.replace(tail, [tail.part(tail.start, size_bytes)])

    def _has_capacity(self, extent: Extent, length: int) -> bool:
        """Have the extent's buffer hold `length` bytes, unless memory is too short to grow it now."""
        assert extent.buffer is not None
        if extent.buffer.size_bytes >= length:
            return True
        wanted = max(length, min(2 * extent.buffer.size_bytes, self._block_bytes))
        larger = self._take_if_free(wanted)
        if larger is None:
            return False
        copy_bytes(larger.view, extent.buffer.view[: extent.length])
        extent.buffer = larger
        return True

    def _take(self, size_bytes: int) -> Buffer:
        return disk_buffer(size_bytes) if self._is_detached else self._pool.take(size_bytes)

    def _take_if_free(self, size_bytes: int) -> Buffer | None:
        return disk_buffer(size_bytes) if self._is_detached else self._pool.take_if_free(size_bytes)

    def _own_buffer(self, extent: Extent) -> Buffer | None:
        """Return a buffer with the extent's bytes that needs no service and no memory; None for a hole."""
        if extent.is_hole:
            return None
        buffer = disk_buffer(extent.length)
        self._copy(extent, extent.start, buffer.view[: extent.length])
        return buffer

    def _copy(self, extent: Extent, start: int, target: memoryview, stream: Stream | None = None) -> None:
        """Copy bytes of an extent from wherever they are. Without a stream, nothing is cached for them."""
        if extent.buffer is not None:
            inner = start - extent.start
            copy_bytes(target, extent.buffer.view[inner : inner + len(target)])
        elif extent.is_committed:
            assert self.base is not None
            offset = extent.base_offset + start - extent.start
            if stream is None:
                block_id = extent.block_id if len(target) == extent.length else ""
                self._reader.read_exactly(self.base, offset, target, block_id)
            else:
                self._reader.read_into(self.base, offset, target, stream)
        elif extent.is_hole:
            target[:] = bytes(len(target))
        elif not self._read_spooled(start, target, self._read_base):
            raise OnlyStaged

    def _read_base(self, offset: int, target: memoryview) -> None:
        assert self.base is not None
        self._reader.read_exactly(self.base, offset, target, "")


def _fill(extent: Extent, start: int, data: memoryview) -> None:
    """Put bytes into the extent's buffer, which has room for them."""
    assert extent.buffer is not None
    copy_bytes(extent.buffer.view[start:], data)
    extent.length = max(extent.length, start + len(data))
    extent.block_id, extent.base_offset = "", -1
