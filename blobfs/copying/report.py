"""What became of each entry, and of all together."""

import enum
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from blobfs.errors import Failure


class Verdict(enum.Enum):
    """What became of an entry of a copy, or what comparing it gave."""

    COPIED = "copied"
    SKIPPED = "skipped"
    DELETED = "deleted"
    FAILED = "failed"
    MATCHES = "match"
    DIFFERS = "differ"
    MISSING = "missing"
    UNVERIFIABLE = "unverifiable"


FAILURES = (Failure, OSError)  # what one entry's copy may end in, and others go on
BAD = (Verdict.FAILED, Verdict.DIFFERS, Verdict.MISSING, Verdict.UNVERIFIABLE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one entry."""

    verdict: Verdict
    source: str
    target: str = ""
    size_bytes: int = 0
    reason: str = ""


def reason_of(error: Exception) -> str:
    """Return why something was not copied, for whoever reads the report."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class Watcher(Protocol):
    """Who watches a copy. Called from many threads, never by two at once for `tell`."""

    def expect(self, size_bytes: int) -> None:
        """Take note of an entry that was found, with so many bytes to move."""
        ...

    def moved(self, size_bytes: int) -> None:
        """Take note of bytes that have moved."""
        ...

    def tell(self, outcome: Outcome) -> None:
        """Take note of what became of an entry."""
        ...


class Unwatched:
    """A `Watcher` who takes note of nothing."""

    def expect(self, size_bytes: int) -> None:
        """Do nothing."""

    def moved(self, size_bytes: int) -> None:
        """Do nothing."""

    def tell(self, outcome: Outcome) -> None:
        """Do nothing."""


class Report:
    """Counts outcomes, and keeps the bad ones. Safe to use from many threads."""

    def __init__(self, watcher: Watcher) -> None:
        self._lock = threading.Lock()  # guards the fields below, and has the watcher told in turn
        self.watcher = watcher
        self.counts: Counter[Verdict] = Counter()
        self.copied_bytes = 0
        self.bad: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        """Take note of an outcome, and tell the watcher."""
        with self._lock:
            self.counts[outcome.verdict] += 1
            if outcome.verdict is Verdict.COPIED:
                self.copied_bytes += outcome.size_bytes
            if outcome.verdict in BAD:
                self.bad.append(outcome)
            self.watcher.tell(outcome)

    @property
    def is_clean(self) -> bool:
        """Whether everything went as it was asked for."""
        return not self.bad
