"""How a version of a blob is cut into units, and what their bytes must hash to. Pure.

A unit is what is fetched at once for a sequential reader. Where checksums are known, a unit is
made of whole blocks, so that it can be verified before anybody gets a byte of it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from blobfs.blocks import md5_digest, xxh3_digest, xxh3_in_id
from blobfs.errors import Damaged
from blobfs.store import CommittedBlock

MD5_BYTES = 16


@dataclass(frozen=True, slots=True)
class Check:
    """The checksum of a stretch of a blob: MD5 if it has 16 bytes, XXH3-64 if it has 8."""

    start: int
    end: int
    digest: bytes

    def verify(self, name: str, data: memoryview) -> None:
        """Raise Damaged, naming blob, block and both checksums, unless `data` is this stretch."""
        kind, hash_of = ("MD5", md5_digest) if len(self.digest) == MD5_BYTES else ("XXH3", xxh3_digest)
        found = hash_of(data)
        if found != self.digest:
            where = f"{name}: block at {self.start}, {self.end - self.start} bytes"
            raise Damaged(f"{where}: expected {kind} {self.digest.hex()}, found {found.hex()}")


class Layout:
    """The units of one version, in order and without gaps; complete if its checksums cover every byte."""

    def __init__(self, size_bytes: int, starts: Sequence[int], checks: Sequence[Check] = ()) -> None:
        self.size_bytes = size_bytes
        self._starts = starts
        self._checks = checks
        self._check_starts = [check.start for check in checks]
        self._check_ends = [check.end for check in checks]
        checked_bytes = sum(check.end - check.start for check in checks)
        self.is_complete = checked_bytes == size_bytes

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

    def verify(self, name: str, span: range, data: memoryview) -> None:
        """Raise Damaged unless `data`, which is that span, matches every checksum inside it."""
        verify_all(name, self.checks(span), span.start, data)


def verify_all(name: str, checks: Iterable[Check], start: int, data: memoryview) -> None:
    """Raise Damaged unless `data`, whose first byte is at `start`, matches these checksums inside it."""
    for check in checks:
        check.verify(name, data[check.start - start : check.end - start])


def uniform_layout(size_bytes: int, unit_bytes: int) -> Layout:
    """Return the layout of a blob of which no checksums are known."""
    return Layout(size_bytes, range(0, size_bytes, unit_bytes))


def layout_of_blocks(
    blocks: Sequence[CommittedBlock], size_bytes: int, *, unit_bytes: int, largest_bytes: int
) -> Layout:
    """Return the layout that a block list gives: units of about `unit_bytes`.

    Blocks of ours up to `largest_bytes` stay whole. Larger ones, and those of other programs, are
    cut where they must be, and have no checksums. A list that does not add up says nothing.
    """
    if sum(block.size_bytes for block in blocks) != size_bytes:
        return uniform_layout(size_bytes, unit_bytes)
    checks = tuple(check for check in _checks(blocks) if check.end - check.start <= largest_bytes)
    return Layout(size_bytes, list(_unit_starts(blocks, checks, unit_bytes)), checks)


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
