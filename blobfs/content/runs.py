"""What the cache of ranges holds.

A fragment is a small aligned piece; a run is a row of fragments that one request brought, or several
side by side. What is here of one version stands on one shelf, so that a replaced blob's bytes cannot be met.
"""

import threading
from collections import deque
from dataclasses import dataclass, field

from blobfs.content.fetcher import Wanted
from blobfs.content.memory import Buffer, copy_bytes
from blobfs.store import BlobVersion


@dataclass(eq=False, slots=True)
class Shelf:
    """What is here, or on its way, of one version, by the offsets of fragments."""

    version: BlobVersion
    runs: "dict[int, Run]" = field(default_factory=dict)
    fetches: "dict[int, Fetch]" = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Run:
    """Bytes in a row. Whoever holds it keeps its buffer."""

    shelf: Shelf
    span: range  # offsets in the blob
    buffer: Buffer
    is_verified: bool = False  # a whole unit that matched its checksums

    def copy(self, offset: int, target: memoryview) -> int:
        """Copy bytes from `offset` on; return how many there were."""
        start = offset - self.span.start
        count = min(len(self.span) - start, len(target))
        copy_bytes(target, self.buffer.view[start : start + count])
        return count


@dataclass(eq=False, slots=True)
class Fetch:
    """What brings a run: one request, or one for each of its parts."""

    run: Run
    wanted: Wanted
    waiting: deque[range]  # parts that nobody has begun
    unfinished: int  # parts
    failure: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def is_verifying(self) -> bool:
        """Whether the run will be a whole unit that matched its checksums."""
        return self.run.is_verified
