"""How a handle has been reading: in order, or here and there."""

from dataclasses import dataclass

from blobfs.content.whole_check import WholeCheck


@dataclass(slots=True)
class Stream:
    """How one handle has been reading. Races on it cost at most a fetch too many."""

    next_offset: int = 0  # behind the furthest read of those in order
    in_order_bytes: int = 0
    starts_at_zero: bool = True  # what was read in order began with the first byte
    ahead_offset: int = 0  # everything before it has been asked for
    whole_check: WholeCheck | None = None

    def note(self, offset: int, length: int, least_bytes: int, most_bytes: int) -> None:
        """Record one read. It is in order if it is near the furthest one before it.

        The kernel's read-ahead arrives out of order, so who has read much is given more room.
        """
        tolerance_bytes = min(max(least_bytes, self.in_order_bytes), most_bytes)
        end = offset + length
        if offset - tolerance_bytes <= self.next_offset <= end + tolerance_bytes:
            self.in_order_bytes += length
            self.next_offset = max(end, self.next_offset)
            return
        self.in_order_bytes = length
        self.next_offset = end
        self.starts_at_zero = offset == 0
        self.ahead_offset = 0
        self.whole_check = None
