"""How each handle reads, and how many handles read in order at present."""

import threading
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from blobfs.content.memory import power_of_two
from blobfs.content.whole_check import WholeCheck
from blobfs.store import BlobVersion

AHEAD_FACTOR = 4  # how many times what a reader has read in order may be asked for ahead of it
IDLE_SHARE = 4  # capacities: a stream that was idle while the others read this much has ended
CERTAIN_HOPS = 2  # equal hops in a row, after the first, that make a stride


@dataclass(eq=False)
class Hops:
    """Where the stretches that are read begin, and how far each is behind the one before it."""

    offset: int = 0  # of the stretch that is read now
    stride_bytes: int = 0
    equal_hops: int = 0  # guesses that would have come true
    ahead_offset: int = 0  # what begins up to here has been asked for

    def note(self, offset: int) -> None:
        """Record where the next stretch begins."""
        stride_bytes = offset - self.offset
        is_equal = stride_bytes == self.stride_bytes > 0
        self.equal_hops = self.equal_hops + 1 if is_equal else 0
        self.offset, self.stride_bytes = offset, stride_bytes
        self.ahead_offset = max(self.ahead_offset, offset) if is_equal else offset

    def ahead(self, most_hops: int) -> range:
        """Return where to fetch ahead: no more places than guesses would have come true, each once."""
        if self.equal_hops < CERTAIN_HOPS:
            return range(0)
        first = self.ahead_offset + self.stride_bytes
        last = self.offset + min(most_hops, self.equal_hops) * self.stride_bytes
        self.ahead_offset = max(self.ahead_offset, last)
        return range(first, last + 1, self.stride_bytes)


@dataclass(eq=False)
class Stream:
    """How one handle has been reading. Races on it cost at most a fetch too many."""

    version: BlobVersion | None = None  # what is read
    next_offset: int = 0  # behind the furthest read of those in order
    in_order_bytes: int = 0
    starts_at_zero: bool = True  # what was read in order began with the first byte
    ahead_offset: int = 0  # everything before it has been asked for
    has_waited: bool = False  # for what had been asked for ahead: that was not enough
    whole_check: WholeCheck | None = None
    hops: Hops = field(default_factory=Hops)

    def is_next(self, offset: int, length: int, least_bytes: int, most_bytes: int) -> bool:
        """Tell whether a read is in order: near the furthest one before it.

        The kernel's read-ahead arrives out of order, so a stream that has read much is given more room.
        """
        tolerance_bytes = min(max(least_bytes, self.in_order_bytes), most_bytes)
        return offset - tolerance_bytes <= self.next_offset <= offset + length + tolerance_bytes

    def note(self, offset: int, length: int, *, in_order: bool) -> None:
        """Record one read."""
        end = offset + length
        if in_order:
            self.in_order_bytes += length
            self.next_offset = max(end, self.next_offset)
            return
        self.hops.note(offset)
        self.in_order_bytes = length
        self.next_offset = end
        self.starts_at_zero = offset == 0
        self.ahead_offset = 0
        self.has_waited = False
        self.whole_check = None

    def earned_bytes(self, portion_bytes: int) -> int:
        """Return how much to ask for ahead: a portion, until the reader has had to wait all the same."""
        return max(portion_bytes, AHEAD_FACTOR * self.in_order_bytes if self.has_waited else 0)

    def portion_bytes(self, least_bytes: int, most_bytes: int) -> int:
        """Return how much one request is to bring, a power of two: half of what was read.

        A reader that has just begun may soon end, and waits for all of the first request.
        """
        return power_of_two(min(max(least_bytes, self.in_order_bytes // 2), most_bytes))


class Readers:
    """The streams that read in order at present, between which the cache's memory is shared."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._lock = threading.Lock()  # guards the fields below
        self._read_bytes = 0  # by all of them: the clock here
        self._last_read: WeakKeyDictionary[Stream, int] = WeakKeyDictionary()  # longest idle first

    def share_bytes(self, stream: Stream, length: int) -> int:
        """Note that a stream reads `length` bytes in order; return its share of the memory."""
        with self._lock:
            self._read_bytes += length
            self._last_read.pop(stream, None)
            self._last_read[stream] = self._read_bytes
            self._forget_idle()
            return self._capacity_bytes // len(self._last_read)

    def at(
        self, version: BlobVersion, offset: int, length: int, least_bytes: int, most_bytes: int
    ) -> Stream | None:
        """Return the longest stream of a version that is read in order and for which this read is next."""
        with self._lock:
            streams = [
                stream
                for stream in self._last_read
                if stream.version == version and stream.is_next(offset, length, least_bytes, most_bytes)
            ]
        return max(streams, key=lambda stream: stream.in_order_bytes, default=None)

    def leave(self, stream: Stream) -> None:
        """Note that a stream has come to the end of its file. Those of closed files leave by themselves."""
        with self._lock:
            self._last_read.pop(stream, None)

    def _forget_idle(self) -> None:
        horizon = self._read_bytes - IDLE_SHARE * self._capacity_bytes
        while True:
            stream, read_at = next(iter(self._last_read.items()))
            if read_at >= horizon:
                return
            del self._last_read[stream]
