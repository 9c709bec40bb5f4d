"""The file that a journal describes: which bytes are where. Pure: no I/O."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blobfs.spool.records import Kind, Record

NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the file: at `position` in the journal, or in the base at its own offset, or zeros."""

    start: int
    length: int
    position: int = NOWHERE
    in_base: bool = False

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.start + self.length

    @property
    def is_written(self) -> bool:
        """The journal has the bytes."""
        return self.position != NOWHERE

    def part(self, start: int, end: int) -> "Piece":
        """Return the part of the piece that lies in [start, end), which overlaps it."""
        start, end = max(start, self.start), min(end, self.end)
        position = self.position + start - self.start if self.is_written else NOWHERE
        return Piece(start, end - start, position, self.in_base)


class Image:
    """The file as it is after some records. Its pieces are in order and without gaps."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._pieces: list[Piece] = []
        self.kept_bytes = 0  # of the base, from its start, that were never cut off
        self._has_base = False
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Add the change that one more record describes."""
        if record.kind is Kind.WRITE:
            self._write(Piece(record.number, record.body_bytes, record.body_at))
        elif record.kind is Kind.TRUNCATE:
            self._resize(record.number)
        elif record.target is not None and not self._has_base:
            self.kept_bytes, self._has_base = record.target.base_bytes, True
            self._append(Piece(0, self.kept_bytes, in_base=True))

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._pieces)

    def over(self, start: int, end: int) -> list[Piece]:
        """Return what lies in [start, end), in order: nothing beyond the end of the file."""
        if start >= min(end, self.size_bytes):
            return []
        touched = self._pieces[self._index(start) : self._index(min(end, self.size_bytes) - 1) + 1]
        return [piece.part(start, end) for piece in touched]

    @property
    def size_bytes(self) -> int:
        """The size of the file."""
        return self._pieces[-1].end if self._pieces else 0

    def _write(self, piece: Piece) -> None:
        if piece.start > self.size_bytes:
            self._resize(piece.start)
        if not piece.length:
            return
        first, last = self._index(piece.start), self._index(piece.end - 1)
        touched = self._pieces[first : last + 1]
        before = [
            old.part(old.start, piece.start) for old in touched[:1] if old.start < piece.start < old.end
        ]
        after = [old.part(piece.end, old.end) for old in touched[-1:] if old.end > piece.end]
        untouched = [old for old in touched[:1] if old.end <= piece.start]
        self._pieces[first : last + 1] = [*untouched, *before, piece, *after]

    def _resize(self, size_bytes: int) -> None:
        self.kept_bytes = min(self.kept_bytes, size_bytes)
        while self.size_bytes > size_bytes:
            last = self._pieces.pop()
            if last.start < size_bytes:
                self._append(last.part(last.start, size_bytes))
        self._append(Piece(self.size_bytes, size_bytes - self.size_bytes))

    def _append(self, piece: Piece) -> None:
        if piece.length:
            self._pieces.append(piece)

    def _index(self, offset: int) -> int:
        return max(0, bisect_right(self._pieces, offset, key=lambda piece: piece.start) - 1)
