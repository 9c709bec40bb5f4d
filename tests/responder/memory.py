"""What blobs are made of: memory that a body was received into, and endless patterns."""

import base64
import hashlib
import mmap
import random
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Protocol

KiB = 1024
MiB = 1024 * KiB

PATTERN_BYTES = 64 * MiB
CONTENTS = ("random", "zeros")

_STEP_BYTES = 256 * KiB  # memory is reused by size, so there should be few sizes
_SPARE_BYTES_PER_SIZE = 2048 * MiB


class Span(Protocol):
    """Bytes in a row. Its views are good as long as the span lives."""

    size_bytes: int

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """Yield the bytes from `start` to `end`, without copying them."""
        ...


class Pool:
    """Memory that is reused: fresh pages cost several times what receiving into old ones does."""

    def __init__(self) -> None:
        # Appending and popping need no lock, which `Received.__del__` could not take.
        self._spare: dict[int, deque[mmap.mmap]] = defaultdict(deque)

    def take(self, size_bytes: int) -> mmap.mmap:
        """Return memory of at least this size, with anything in it."""
        rounded_bytes = _rounded(size_bytes)
        try:
            return self._spare[rounded_bytes].pop()
        except IndexError:
            return fresh_memory(rounded_bytes)

    def keep(self, size_bytes: int, count: int) -> None:
        """Have so many pieces of a size at hand that were used before."""
        spare, zeros = self._spare[_rounded(size_bytes)], bytes(_rounded(size_bytes))
        while len(spare) < count:
            memory = fresh_memory(len(zeros))
            memory.write(zeros)
            spare.append(memory)

    def give_back(self, memory: mmap.mmap) -> None:
        """Let others have it."""
        spare = self._spare[len(memory)]
        if len(spare) * len(memory) < _SPARE_BYTES_PER_SIZE:
            spare.append(memory)


class Received:
    """Room for one body; returned to the pool when no blob and no reply holds it any more."""

    __slots__ = ("_memory", "_pool", "size_bytes", "view")

    def __init__(self, size_bytes: int, pool: Pool) -> None:
        self.size_bytes = size_bytes
        self._pool = pool
        self._memory = pool.take(size_bytes) if size_bytes >= _STEP_BYTES else None
        self.view = memoryview(self._memory or bytearray(size_bytes))[:size_bytes]

    def __del__(self) -> None:
        if self._memory is not None:
            self._pool.give_back(self._memory)

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """See `Span.views`."""
        yield self.view[start:end]


class Given:
    """Bytes that exist already."""

    __slots__ = ("_view", "size_bytes")

    def __init__(self, body: bytes) -> None:
        self.size_bytes = len(body)
        self._view = memoryview(body)

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """See `Span.views`."""
        yield self._view[start:end]


class Pattern:
    """A stretch of one shared buffer repeated without end: any size costs nothing."""

    __slots__ = ("content", "offset", "size_bytes")

    def __init__(self, content: str, offset: int, size_bytes: int) -> None:
        self.content = content
        self.offset = offset % PATTERN_BYTES
        self.size_bytes = size_bytes

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """See `Span.views`."""
        period = _period(self.content)
        position = (self.offset + start) % PATTERN_BYTES
        while start < end:
            count = min(end - start, PATTERN_BYTES - position)
            yield period[position : position + count]
            start += count
            position = 0


class Content:
    """Spans one after the other."""

    __slots__ = ("_ends", "size_bytes", "spans")

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self.spans = tuple(spans)
        self.size_bytes = 0
        self._ends: list[int] = []
        for span in self.spans:
            self.size_bytes += span.size_bytes
            self._ends.append(self.size_bytes)

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """Yield the bytes from `start` to `end`, without copying them."""
        index = bisect_right(self._ends, start)
        while start < end:
            span, span_end = self.spans[index], self._ends[index]
            span_start = span_end - span.size_bytes
            yield from span.views(start - span_start, min(end, span_end) - span_start)
            start = span_end
            index += 1

    def part(self, start: int = 0, end: int | None = None) -> "Part":
        """Return the bytes from `start` to `end`, or to the end."""
        return Part(self, start, self.size_bytes if end is None else end)


class Part:
    """Some bytes of a content: a span as well, and kept alive as long as it."""

    __slots__ = ("_content", "_end", "_start", "size_bytes")

    def __init__(self, content: Content, start: int, end: int) -> None:
        self._content, self._start, self._end = content, start, end
        self.size_bytes = end - start

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the bytes, without copying them."""
        return self._content.views(self._start, self._end)

    def views(self, start: int, end: int) -> Iterator[memoryview]:
        """See `Span.views`."""
        return self._content.views(self._start + start, self._start + end)

    def before(self, position: int) -> "Part":
        """Return the bytes in front of a position."""
        return Part(self._content, self._start, min(self._start + position, self._end))

    def after(self, position: int) -> "Part":
        """Return the bytes from a position on."""
        return Part(self._content, min(self._start + position, self._end), self._end)

    def md5(self) -> str:
        """Return the checksum of the bytes, in base64 as headers carry it."""
        digest = hashlib.md5(usedforsecurity=False)
        for view in self:
            digest.update(view)
        return base64.b64encode(digest.digest()).decode()


def fresh_memory(size_bytes: int) -> mmap.mmap:
    """Return zeroed memory, in large pages where the kernel has some."""
    memory = mmap.mmap(-1, size_bytes)
    if size_bytes >= 2 * MiB and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _rounded(size_bytes: int) -> int:
    return -(-size_bytes // _STEP_BYTES) * _STEP_BYTES


@cache
def _period(content: str) -> memoryview:
    memory = fresh_memory(PATTERN_BYTES)
    if content == "random":
        randomness = random.Random(0)
        for _ in range(PATTERN_BYTES // MiB):
            memory.write(randomness.randbytes(MiB))
    else:
        memory.write(bytes(PATTERN_BYTES))  # or each page would be faulted in by the first reader
    return memoryview(memory).toreadonly()
