"""The one bounded pool of memory that reads and writes share.

Buffers are anonymous page-aligned memory, reused and never handed back to the system while
they may be needed: a fresh page costs more than the network does. When the pool is full,
callers wait; the registered reclaimers are asked to free what can be fetched again.
"""

import ctypes
import gc
import mmap
import os
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from blobfs.blocks import KiB
from blobfs.errors import NoSpace

SMALLEST_BYTES = 16 * KiB  # most small files are smaller than what a hop fetches
UNLOCKED_BYTES = 64 * KiB  # from here on copied without the interpreter's lock: releasing it costs about a µs
RECHECK_SECONDS = 0.2  # how often a waiting caller asks the reclaimers again without `recheck`
# Not shared, as is mmap's default: the first touch of a shared page takes half as long again.
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def copy_bytes(target: memoryview, source: memoryview) -> None:
    """Copy all of `source` to the front of `target`. Raises ValueError if it is longer.

    An assignment would keep the interpreter's lock, for a tenth of a millisecond or more a MiB, in which
    no other thread receives.
    """
    if len(source) > len(target):
        raise ValueError(f"{len(source)} bytes do not fit into {len(target)}")
    if len(source) < UNLOCKED_BYTES or source.readonly:
        target[: len(source)] = source
    else:
        ctypes.memmove(_start_of(target), _start_of(source), len(source))


def _start_of(memory: memoryview) -> Any:
    """Return a pointer that keeps the memory where it is as long as the pointer lives."""
    return ctypes.byref(ctypes.c_char.from_buffer(memory))


class Buffer:
    """A piece of memory that goes back to its pool when the last reference to it is dropped."""

    __slots__ = ("_memory", "_pool", "size_bytes", "view")

    def __init__(self, memory: mmap.mmap, size_bytes: int, pool: "BufferPool | None") -> None:
        self._memory = memory
        self._pool = pool
        self.size_bytes = size_bytes
        self.view = memoryview(memory)

    def __del__(self) -> None:
        self.view.release()
        if self._pool is not None:
            self._pool._give_back(self._memory, self.size_bytes)


class BufferPool:
    """At most `budget_bytes` of buffers, in sizes that are powers of two from SMALLEST_BYTES."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._changed = threading.Condition()  # guards the fields below; reentrant, for __del__
        self._free: dict[int, list[mmap.mmap]] = defaultdict(list)
        self._in_use_bytes = 0
        self._allocated_bytes = 0
        self._granted_bytes = budget_bytes  # less once the system has refused more, until all is given back
        self._reclaimers: list[Callable[[int], None]] = []
        self._recheck_count = 0

    @property
    def in_use_bytes(self) -> int:
        """How much is handed out now."""
        return self._in_use_bytes

    def add_reclaimer(self, reclaim: Callable[[int], None]) -> None:
        """Add a function: ``reclaim(size_bytes)`` is called, without a lock, when that much is missing."""
        self._reclaimers.append(reclaim)

    def take(self, size_bytes: int) -> Buffer:
        """Return a buffer of at least `size_bytes`, waiting until there is room for it.

        Its content is undefined. Raises NoSpace if the whole pool is smaller than that, or the system
        has no memory for it though nobody else holds any.
        """
        rounded = self._rounded(size_bytes)
        if rounded > self.budget_bytes:
            raise NoSpace(f"a buffer of {rounded} bytes is larger than --memory ({self.budget_bytes} bytes)")
        has_collected = False
        while (buffer := self._try_take(rounded)) is None:
            count = self._recheck_count
            for reclaim in self._reclaimers:
                reclaim(rounded)
            if not self._wait(rounded, count) and not has_collected:
                # A failure's traceback may refer to itself and to a buffer. Python looks for such
                # cycles only when many objects are made, and waiting callers make none.
                gc.collect()
                has_collected = True
        return buffer

    def recheck(self) -> None:
        """Wake the waiting callers to ask the reclaimers again: something has become reclaimable."""
        with self._changed:
            self._recheck_count += 1
            self._changed.notify_all()

    def take_if_free(self, size_bytes: int) -> Buffer | None:
        """Return a buffer, or None at once if there is no room: for work that is only helpful."""
        try:
            return self._try_take(self._rounded(size_bytes))
        except NoSpace:
            return None

    def _try_take(self, rounded: int) -> Buffer | None:
        with self._changed:
            if not self._fits(rounded):
                return None
            self._in_use_bytes += rounded
            free = self._free[rounded]
            if free:
                return Buffer(free.pop(), rounded, self)
            self._drop_free_beyond(self._granted_bytes - rounded)
            self._allocated_bytes += rounded
        try:
            return Buffer(mmap.mmap(-1, rounded, flags=ANONYMOUS), rounded, self)
        except OSError as error:  # a limit on address space (ulimit -v), or a system that promises no more
            self._refused(rounded, error)
            return None

    def _refused(self, rounded: int, error: OSError) -> None:
        """Make do with what is in use, and have callers wait for that. Raises NoSpace if it is nothing."""
        with self._changed:
            self._in_use_bytes -= rounded
            self._allocated_bytes -= rounded
            self._granted_bytes = self._in_use_bytes or self.budget_bytes
            if not self._allocated_bytes:
                raise NoSpace(
                    f"the system has no memory for a buffer of {rounded} bytes: {error.strerror}; "
                    "the limit on address space (ulimit -v) may be too low"
                ) from error
            self._drop_free_beyond(self._in_use_bytes)

    def _wait(self, rounded: int, count: int) -> bool:
        """Wait until there may be room; False after RECHECK_SECONDS without a sign of it."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._fits(rounded) or self._recheck_count != count, RECHECK_SECONDS
            )

    def _fits(self, rounded: int) -> bool:
        return self._in_use_bytes + rounded <= self._granted_bytes

    def _drop_free_beyond(self, allowed_bytes: int) -> None:
        # A copy: a buffer dropped by the garbage collector meanwhile may add a size.
        for size_bytes, free in list(self._free.items()):
            while free and self._allocated_bytes > allowed_bytes:
                free.pop()
                self._allocated_bytes -= size_bytes

    def _give_back(self, memory: mmap.mmap, size_bytes: int) -> None:
        with self._changed:
            self._in_use_bytes -= size_bytes
            if not self._in_use_bytes:
                self._granted_bytes = self.budget_bytes
            self._free[size_bytes].append(memory)
            self._changed.notify_all()

    @staticmethod
    def _rounded(size_bytes: int) -> int:
        return max(SMALLEST_BYTES, 1 << (size_bytes - 1).bit_length())


def power_of_two(limit_bytes: int) -> int:
    """Return the largest power of two up to the limit: what a buffer of the pool can be."""
    return 1 << (limit_bytes.bit_length() - 1)


def disk_buffer(size_bytes: int) -> Buffer:
    """Return a buffer backed by an unlinked temporary file, outside every pool.

    For bytes that must outlive their blob (unlinked while open). Raises NoSpace.
    """
    try:
        with tempfile.TemporaryFile(prefix="blobfs-") as file:
            # A full disk must be an error here, not a SIGBUS at some later store.
            os.posix_fallocate(file.fileno(), 0, max(1, size_bytes))
            return Buffer(mmap.mmap(file.fileno(), max(1, size_bytes)), size_bytes, None)
    except OSError as error:
        where = tempfile.gettempdir()
        raise NoSpace(f"no room for {size_bytes} bytes in {where}: {error.strerror}") from error
