"""A file exerciser: random operations of every kind on one file, each compared with a copy in memory.

The idea is that of fsx (Apple, 1991): whatever a program may do to a file, in any order, through
several descriptors and shared maps, and after each step the file is what the steps say. A failure
lists what went before it; the same seed does the same again.
"""

import ctypes
import mmap
import os
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path

from unix import libc

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # fallocate(2)
LOGGED_OPERATIONS = 400
LENGTH_CHANCES = [1, 8, 10, 1]  # of one byte, some, some pages, some blocks


class Exerciser:
    """What a file of at most `largest_bytes` should hold, and what may happen to it.

    Whoever else writes the file between two runs sets `content`. Offsets are often a boundary of
    `block_bytes`, or near one. `lacks` names operations that are left out.
    """

    def __init__(
        self, *, seed: int, block_bytes: int, largest_bytes: int, lacks: tuple[str, ...] = ()
    ) -> None:
        self.content = bytearray()
        self._path = Path()
        self._seed = seed
        self._random = random.Random(seed)
        self._block_bytes = block_bytes
        self._largest_bytes = largest_bytes
        self._log: deque[str] = deque(maxlen=LOGGED_OPERATIONS)
        self._done = 0
        often: list[Callable[[], None]] = [self._write, self._read]
        sometimes = [self._append, self._truncate, self._copy]
        seldom = [self._map_read, self._map_write, self._allocate, self._punch, self._zero]
        costly = [self._sync, self._reopen]
        chances = [(often, 24), (sometimes, 8), (seldom, 4), (costly, 1)]
        chosen = [(action, chance) for actions, chance in chances for action in actions]
        self._actions = [action for action, _ in chosen if action.__name__[1:] not in lacks]
        self._chances = [chance for action, chance in chosen if action.__name__[1:] not in lacks]
        self._descriptors: list[int] = []
        self._maps: list[mmap.mmap] = []

    def run(self, path: Path, operations: int) -> None:
        """Open or create the file, do so many things to it, read it as a whole, and close it.

        Raises AssertionError, with what was done, when the file is not as it should be.
        """
        self._path = path
        self._note("open", 0, len(self.content))
        self._open()
        try:
            for action in self._random.choices(self._actions, self._chances, k=operations):
                self._done += 1
                action()
                self._same(os.fstat(self._any()).st_size, len(self.content), "size")
            self._reopen()
        finally:
            self._close()

    # What is done

    def _write(self) -> None:
        offset, length = self._place(self._largest_bytes)
        self._note("write", offset, length)
        self._put(offset, data := self._random.randbytes(length))
        self._same(os.pwrite(self._any(), data, offset), length, "count")

    def _append(self) -> None:
        length = min(self._length(), self._largest_bytes - len(self.content))
        self._note("append", len(self.content), length)
        self._put(len(self.content), data := self._random.randbytes(length))
        self._same(os.write(self._appending, data), length, "count")

    def _read(self) -> None:
        offset, length = self._place(self._largest_bytes)
        self._note("read", offset, length)
        self._compare(offset, length, os.pread(self._any(), length, offset))

    def _truncate(self) -> None:
        size_bytes = self._random.choice([0, *[self._offset(self._largest_bytes) for _ in range(9)]])
        self._note("truncate", 0, size_bytes)
        os.truncate(self._random.choice([self._any(), self._path]), size_bytes)
        self._resize(size_bytes)

    def _map_read(self) -> None:
        offset, length = self._place(len(self.content))
        self._note("map and read", offset, length)
        if length:
            mapped = self._map(offset, length, mmap.PROT_READ)
            self._compare(offset, length, mapped[offset % mmap.PAGESIZE :])

    def _map_write(self) -> None:
        offset, length = self._place(len(self.content))
        is_flushed = self._random.random() < 0.2  # else the kernel writes the pages when it likes
        self._note(f"map and write, {is_flushed=}", offset, length)
        if length:
            self._put(offset, data := self._random.randbytes(length))
            mapped = self._map(offset, length, mmap.PROT_READ | mmap.PROT_WRITE)
            mapped[offset % mmap.PAGESIZE :] = data
            if is_flushed:
                mapped.flush()

    def _copy(self) -> None:
        """copy_file_range(2), which refuses ranges that overlap."""
        source, length = self._place(len(self.content))
        target = self._offset(self._largest_bytes)
        length = min(length, abs(target - source), self._largest_bytes - target)
        self._note(f"copy to {target:#x}", source, length)
        copied = 0
        while copied < length:
            ends = self._any(), self._any()
            count = os.copy_file_range(*ends, length - copied, source + copied, target + copied)
            assert count, self._story("nothing copied")
            copied += count
        self._put(target, self.content[source : source + length])

    def _allocate(self) -> None:
        offset, length = self._place(self._largest_bytes)
        if length:
            self._note("allocate", offset, length)
            os.posix_fallocate(self._any(), offset, length)
            self._resize(max(len(self.content), offset + length))

    def _punch(self) -> None:
        offset, length = self._place(self._largest_bytes)
        self._note("punch", offset, length)
        self._fallocate(PUNCH_HOLE | KEEP_SIZE, offset, length)
        end = min(offset + length, len(self.content))
        self.content[offset:end] = bytes(max(0, end - offset))

    def _zero(self) -> None:
        offset, length = self._place(self._largest_bytes)
        self._note("zero", offset, length)
        self._fallocate(ZERO_RANGE, offset, length)
        self._put(offset, bytes(length))

    def _sync(self) -> None:
        self._note("sync", 0, len(self.content))
        self._random.choice([os.fsync, os.fdatasync])(self._any())

    def _reopen(self) -> None:
        self._note("close, open and read all", 0, len(self.content))
        self._close()
        self._compare(0, self._largest_bytes, self._path.read_bytes())
        self._open()

    # Where, and how much

    def _place(self, end: int) -> tuple[int, int]:
        """Return an offset and a length that together stay within `end`."""
        offset = self._offset(end)
        return offset, min(self._length(), end - offset)

    def _offset(self, end: int) -> int:
        near = self._random.randrange(0, end + 1, self._block_bytes) + self._random.randint(-2, 2)
        size = len(self.content)
        anywhere = self._random.randint(0, end)
        return min(max(0, self._random.choice([near, size, anywhere, anywhere])), end)

    def _length(self) -> int:
        (most,) = self._random.choices([1, 100, 10_000, self._block_bytes * 2], LENGTH_CHANCES)
        return self._random.randint(1, most)

    # How

    def _open(self) -> None:
        self._descriptors = [os.open(self._path, os.O_RDWR | os.O_CREAT) for _ in range(2)]
        self._appending = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def _close(self) -> None:
        while self._maps:
            self._maps.pop().close()
        for descriptor in (*self._descriptors, self._appending):
            os.close(descriptor)

    def _any(self) -> int:
        return self._random.choice(self._descriptors)

    def _map(self, offset: int, length: int, protection: int) -> mmap.mmap:
        start = offset - offset % mmap.PAGESIZE
        mapped = mmap.mmap(self._any(), offset + length - start, prot=protection, offset=start)
        self._maps.append(mapped)  # closing it would close its copy of the descriptor, which commits
        return mapped

    def _fallocate(self, mode: int, offset: int, length: int) -> None:
        if length and libc.fallocate(self._any(), mode, ctypes.c_long(offset), ctypes.c_long(length)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    # What should be there

    def _put(self, offset: int, data: bytes | bytearray) -> None:
        if data:
            self._resize(max(len(self.content), offset))
            self.content[offset : offset + len(data)] = data

    def _resize(self, size_bytes: int) -> None:
        self.content[size_bytes:] = bytes(max(0, size_bytes - len(self.content)))

    def _compare(self, offset: int, length: int, found: bytes) -> None:
        expected = self.content[offset : offset + length]
        if found != expected:
            self._same(len(found), len(expected), "length")
            pairs = enumerate(zip(found, expected, strict=True), offset)
            wrong = [place for place, (one, other) in pairs if one != other]
            self._same(f"{len(wrong)} wrong bytes", "none", f"{wrong[0]:#x} to {wrong[-1]:#x}")

    def _same(self, found: object, expected: object, what: str) -> None:
        assert found == expected, self._story(f"{what}: {found}, expected {expected}")

    def _note(self, action: str, offset: int, length: int) -> None:
        size = len(self.content)
        self._log.append(f"{self._done}: {action}, {offset:#x} to {offset + length:#x}, size {size:#x}")

    def _story(self, what: str) -> str:
        return "\n".join([*self._log, f"{self._path}, seed {self._seed}: {what}"])
