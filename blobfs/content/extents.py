"""A file as a row of extents: where each stretch of its bytes is now. Pure: no I/O.

Every extent becomes one block (a hole, several) when the file is committed, so an edit
replaces extents and leaves the others, whoever wrote them, as they are.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from blobfs.content.memory import Buffer
from blobfs.transfers import Transfer


@dataclass(slots=True, eq=False)
class Extent:
    """A stretch of a file.

    The bytes are in `buffer`, or in the block `block_id` on the service, or in the committed
    blob at `base_offset`, or in several of them at once; in none of them, it is a hole.
    """

    start: int
    length: int
    buffer: Buffer | None = None
    block_id: str = ""  # staged, or committed where base_offset says
    base_offset: int = -1  # -1: not in the committed blob
    staging: Transfer | None = None  # under way from `buffer`, which must not change meanwhile

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.start + self.length

    @property
    def is_committed(self) -> bool:
        """The committed blob has these bytes."""
        return self.base_offset >= 0

    @property
    def is_hole(self) -> bool:
        """Zeros that were never written."""
        return self.buffer is None and not self.block_id and not self.is_committed

    @property
    def is_only_staged(self) -> bool:
        """The bytes cannot be had before a commit: no buffer, and only a staged block."""
        return self.buffer is None and bool(self.block_id) and not self.is_committed

    @property
    def is_dirty(self) -> bool:
        """Only this process has the bytes."""
        return self.buffer is not None and not self.block_id and not self.is_committed

    @property
    def is_open(self) -> bool:
        """More bytes may be put into the buffer."""
        return self.is_dirty and self.staging is None

    @property
    def is_at_hand(self) -> bool:
        """The bytes can be had without a commit, and are not being sent."""
        return self.staging is None and not self.is_only_staged

    @property
    def is_droppable(self) -> bool:
        """The buffer is only a copy of what the service has."""
        return self.buffer is not None and self.staging is None and not self.is_dirty

    @property
    def is_mere_range(self) -> bool:
        """Only the committed blob has the bytes, and not as a block that a commit could list."""
        return self.is_committed and not self.block_id and self.buffer is None

    def part(self, start: int, end: int) -> "Extent":
        """Return a piece that is still in the committed blob, or a hole; its block id is gone."""
        offset = self.base_offset + start - self.start if self.is_committed else -1
        return Extent(start, end - start, base_offset=offset)

    def parts(self, part_bytes: int) -> list["Extent"]:
        """Return the same stretch in pieces of at most `part_bytes`."""
        starts = range(self.start, self.end, part_bytes)
        return [self.part(start, min(start + part_bytes, self.end)) for start in starts]


class Extents:
    """Extents in order, without gaps, from offset 0 to the end of the file."""

    def __init__(self, extents: Iterable[Extent] = ()) -> None:
        self._extents = list(extents)

    def __iter__(self) -> Iterator[Extent]:
        return iter(self._extents)

    def __len__(self) -> int:
        return len(self._extents)

    @property
    def size_bytes(self) -> int:
        """The size of the file."""
        return self._extents[-1].end if self._extents else 0

    @property
    def uncommitted_bytes(self) -> int:
        """How many written bytes the committed blob does not have."""
        # A copy: callers do not wait for the file's lock.
        return sum(
            extent.length for extent in list(self._extents) if not (extent.is_committed or extent.is_hole)
        )

    @property
    def last(self) -> Extent | None:
        """The extent at the end of the file, None for an empty file."""
        return self._extents[-1] if self._extents else None

    def at(self, offset: int) -> Extent:
        """Return the extent that holds the byte at `offset`, which must be before the end."""
        return self._extents[self._index(offset)]

    def over(self, start: int, end: int) -> list[Extent]:
        """Return the extents that hold bytes of [start, end), in order."""
        if start >= min(end, self.size_bytes):
            return []
        return self._extents[self._index(start) : self._index(min(end, self.size_bytes) - 1) + 1]

    def append(self, extent: Extent) -> None:
        """Add an extent that starts where the file ends."""
        self._extents.append(extent)

    def replace(self, extent: Extent, pieces: Iterable[Extent]) -> None:
        """Put pieces that cover the same bytes in an extent's place."""
        index = self._index(extent.start)
        self._extents[index : index + 1] = pieces

    def outgrown(self, growth_bytes: int, limit_bytes: int) -> list[Extent]:
        """Return the extents to be joined into one when the last grows by `growth_bytes`, that one included.

        They are those before it of less than twice its length. So a file that grows in small steps has
        few extents at its end, and how often a byte is joined grows with the logarithm of the length.
        """
        index = len(self._extents) - 1
        length = self._extents[index].length + growth_bytes
        while index > 0:
            before = self._extents[index - 1]
            if before.length >= 2 * length or before.length + length > limit_bytes or not before.is_at_hand:
                break
            length += before.length
            index -= 1
        return self._extents[index:]

    def join(self, run: Sequence[Extent], buffer: Buffer) -> None:
        """Put one extent in the place of the last ones, with all their bytes in `buffer`."""
        start, end = run[0].start, run[-1].end
        self._extents[-len(run) :] = [Extent(start, end - start, buffer)]

    def adopt(self, committed: Iterable[Extent]) -> None:
        """Let blocks be found where a commit has put them; ids of others are good only for want of bytes."""
        places = {block.block_id: block.start for block in committed}
        for extent in self._extents:
            if extent.block_id in places:
                extent.base_offset = places[extent.block_id]
            elif not extent.is_only_staged:
                extent.block_id = ""

    def cut(self, size_bytes: int) -> None:
        """Drop every extent that starts at or behind `size_bytes`; one that spans it stays whole."""
        while self._extents and self._extents[-1].start >= size_bytes:
            self._extents.pop()

    def _index(self, offset: int) -> int:
        return bisect_right(self._extents, offset, key=lambda extent: extent.start) - 1
