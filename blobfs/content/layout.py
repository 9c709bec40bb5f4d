"""How a version of a blob is cut into units, and what their bytes must hash to. Pure.

A unit is what is fetched at once for a sequential reader. Where checksums are known, a unit is
made of whole blocks, so that it can be verified before a reader gets any byte of it.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import NamedTuple

from blobfs.blocks import md5_digest, xxh3_digest, xxh3_hash, xxh3_in_id
from blobfs.errors import Damaged
from blobfs.store import BlobInfo, CommittedBlock

MD5_BYTES = 16


class Check(NamedTuple):
    """The checksum of a stretch of a blob: MD5 if it has 16 bytes, XXH3-64 if it has 8."""

    start: int
    end: int
    digest: bytes

    def verify(self, name: str, data: memoryview) -> None:
        """Raise Damaged, naming blob, block and both checksums, unless `data` is this stretch."""
        kind, hash_of = ("MD5", md5_digest) if len(self.digest) == MD5_BYTES else ("XXH3", xxh3_digest)
        self.require(name, hash_of(data), kind)

    def require(self, name: str, found: bytes, kind: str = "XXH3") -> None:
        """Raise Damaged, as `verify` does, if another checksum was found."""
        if found != self.digest:
            where = f"{name}: block at {self.start}, {self.end - self.start} bytes"
            raise Damaged(f"{where}: expected {kind} {self.digest.hex()}, found {found.hex()}")


class Layout:
    """The units of one version, in order and without gaps; complete if their checksums cover every byte.

    Checksums of stretches larger than a unit are `large`: only a reader in order can compare them.
    `is_vouched` tells whether the two together cover every byte.
    """

    def __init__(
        self,
        size_bytes: int,
        starts: Sequence[int],
        checks: Sequence[Check] = (),
        large: Sequence[Check] = (),
    ) -> None:
        self.size_bytes = size_bytes
        self.large = large
        self._starts = starts
        self._checks = checks
        self._check_starts = [check.start for check in checks]
        self._check_ends = [check.end for check in checks]
        self.is_complete = _bytes_in(checks) == size_bytes
        self.is_vouched = _bytes_in(checks) + _bytes_in(large) == size_bytes

    def __len__(self) -> int:
        return len(self._checks)

    def unit(self, offset: int) -> range:
        """Return the offsets of the unit that holds the byte at `offset`, which must be in the blob."""
        index = bisect_right(self._starts, offset)
        end = self._starts[index] if index < len(self._starts) else self.size_bytes
        return range(self._starts[index - 1], end)

    def checks(self, span: range) -> Sequence[Check]:
        """Return the checksums of the stretches that lie wholly inside `span`."""
        first = bisect_left(self._check_starts, span.start)
        last = bisect_right(self._check_ends, span.stop)
        return self._checks[first:last]

    def has_checks(self, offset: int) -> bool:
        """Tell whether any checksum is known within the unit at `offset`."""
        return bool(self.checks(self.unit(offset)))

    def all_in_order(self, name: str) -> "ChecksInOrder":
        """Return what compares all checksums of blocks, the large ones too."""
        return ChecksInOrder(name, merge(self._checks, self.large, key=lambda check: check.start))

    def verify(self, name: str, span: range, data: memoryview) -> None:
        """Raise Damaged unless `data`, which is that span, matches every checksum inside it."""
        verify_all(name, self.checks(span), span.start, data)


@dataclass(frozen=True, slots=True)
class Cut:
    """How units are fetched for a reader in order: whole, or in portions counted from the unit's start."""

    layout: Layout
    whole_bytes: int  # larger units are in portions
    only_checked: bool  # units without checksums are in portions, too
    portion_bytes: int

    def is_whole(self, offset: int) -> bool:
        """Tell whether the unit at `offset` is fetched at once."""
        if len(self.layout.unit(offset)) > self.whole_bytes:
            return False
        return self.layout.has_checks(offset) or not self.only_checked

    def span(self, offset: int) -> range:
        """Return what is fetched together with the byte at `offset`."""
        unit = self.layout.unit(offset)
        if self.is_whole(offset):
            return unit
        start = piece_start(unit, offset, self.portion_bytes)
        return range(start, min(start + self.portion_bytes, unit.stop))


def piece_start(span: range, offset: int, piece_bytes: int) -> int:
    """Return where the piece begins that has the byte at `offset`, pieces counted from the span's start."""
    return offset - (offset - span.start) % piece_bytes


class ChecksInOrder:
    """Compares XXH3 checksums with the bytes of a blob that come by in order, in pieces of any size."""

    def __init__(self, name: str, checks: Iterable[Check]) -> None:
        self._name = name
        self._waiting = deque(checks)
        self._hash = xxh3_hash()

    @property
    def are_over(self) -> bool:
        """Whether all were compared."""
        return not self._waiting

    def see(self, start: int, data: memoryview) -> None:
        """Hash the bytes from `start` on. Raises Damaged at the end of a stretch that differs."""
        end = start + len(data)
        while self._waiting and self._waiting[0].start < end:
            check = self._waiting[0]
            self._hash.update(data[max(check.start - start, 0) : check.end - start])
            if check.end > end:
                return
            check.require(self._name, self._hash.digest())
            self._hash.reset()
            self._waiting.popleft()


def verify_all(name: str, checks: Iterable[Check], start: int, data: memoryview) -> None:
    """Raise Damaged unless `data`, whose first byte is at `start`, matches these checksums inside it."""
    for check in checks:
        check.verify(name, data[check.start - start : check.end - start])


def require_whole(blob: BlobInfo, found: bytes) -> None:
    """Raise Damaged, naming both checksums, if the MD5 of all bytes is another one than the blob has."""
    if blob.content_md5 is not None and found != blob.content_md5:
        where = f"{blob.name}: the whole, {blob.size_bytes} bytes"
        raise Damaged(f"{where}: expected MD5 {blob.content_md5.hex()}, found {found.hex()}")


def _bytes_in(checks: Iterable[Check]) -> int:
    return sum(check.end - check.start for check in checks)


def uniform_layout(size_bytes: int, unit_bytes: int) -> Layout:
    """Return the layout of a blob of which no checksums are known."""
    return Layout(size_bytes, range(0, size_bytes, unit_bytes))


def layout_of_blocks(
    blocks: Sequence[CommittedBlock], size_bytes: int, *, unit_bytes: int, largest_bytes: int
) -> Layout:
    """Return the layout that a block list gives: units of about `unit_bytes`.

    Blocks of ours up to `largest_bytes` stay whole. Larger ones, and those of other programs, are
    cut where they must be; the former have `large` checksums, and the latter none. A list that does
    not add up says nothing.
    """
    if sum(block.size_bytes for block in blocks) != size_bytes:
        return uniform_layout(size_bytes, unit_bytes)
    known = tuple(_checks(blocks))
    checks = tuple(check for check in known if check.end - check.start <= largest_bytes)
    large = tuple(check for check in known if check.end - check.start > largest_bytes)
    return Layout(size_bytes, list(_unit_starts(blocks, checks, unit_bytes)), checks, large)


def _checks(blocks: Sequence[CommittedBlock]) -> Iterator[Check]:
    position = 0
    for block in blocks:
        digest = xxh3_in_id(block.block_id)
        if digest is not None and block.size_bytes:
            yield Check(position, position + block.size_bytes, digest)
        position += block.size_bytes


def _unit_starts(blocks: Sequence[CommittedBlock], checks: Sequence[Check], unit_bytes: int) -> Iterator[int]:
    """Yield where units start: as many blocks as fit, and pieces of blocks that need not stay whole."""
    whole = {check.start for check in checks}
    start = position = 0
    yield 0
    for block in blocks:
        end = position + block.size_bytes
        if end - start > unit_bytes and position > start:
            start = position
            yield start
        while position not in whole and end - start > unit_bytes:
            start += unit_bytes
            yield start
        position = end
