"""What becomes of one entry that is to be copied, wherever that is done."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from blobfs.copying.comparing import Comparer
from blobfs.copying.entries import Entry, Work
from blobfs.copying.entry_copier import EntryCopier
from blobfs.copying.plan import Rules, Step, step_for
from blobfs.copying.report import FAILURES, Outcome, Verdict, reason_of
from blobfs.errors import Abandoned


class Carrier(Protocol):
    """What copies entries, or finds that it need not, and tells what became of each."""

    def is_late(self, entry: Entry) -> bool:
        """Tell what has to wait until everything else is copied."""
        ...

    def prepare(self, work: Work) -> None:
        """Make one that has to wait fit for what comes before it."""
        ...

    def copy(self, work: Work) -> Outcome:
        """Copy one entry. Blocks. Raises Abandoned, but nothing that is only about this one."""
        ...

    def copy_late(self, work: Work) -> Outcome:
        """Copy one that had to wait, as `copy` does."""
        ...


@dataclass(frozen=True, slots=True)
class LocalCarrier:
    """Copies in this process. Safe to use from many threads."""

    copier: EntryCopier
    comparer: Comparer
    rules: Rules
    dry_run: bool = field(kw_only=True)

    def is_late(self, entry: Entry) -> bool:
        """See `Carrier.is_late`."""
        return self.copier.is_late(entry)

    def prepare(self, work: Work) -> None:
        """See `Carrier.prepare`. What fails, fails again, and is told, when it is copied."""
        if not self.dry_run:
            with suppress(*FAILURES):
                self.copier.prepare(work)

    def copy(self, work: Work) -> Outcome:
        """See `Carrier.copy`."""
        return self._copy(work, self.copier.copy)

    def copy_late(self, work: Work) -> Outcome:
        """See `Carrier.copy_late`."""
        return self._copy(work, self.copier.copy_late)

    def _copy(self, work: Work, copy: Callable[[Work], None]) -> Outcome:
        step = step_for(work.source, work.replaces, self.rules)
        verdict = Verdict.COPIED if step is Step.COPY else Verdict.SKIPPED
        try:
            if step is Step.COMPARE and not self.is_same(work):
                verdict = Verdict.COPIED
            if not self.dry_run and (verdict is Verdict.COPIED or step is Step.RESTORE_TIMES):
                copy(work)
        except Abandoned:
            raise
        except FAILURES as failure:
            return Outcome(Verdict.FAILED, work.origin, work.target, reason=reason_of(failure))
        return Outcome(verdict, work.origin, work.target, work.source.size_bytes)

    def is_same(self, work: Work) -> bool:
        """Compare checksums of two that stand there; unknown ones differ. Blocks. Raises Failure, OSError."""
        source, there = work.source, work.replaces
        assert there is not None
        if source.blob is None:
            return self.comparer.compare(work.origin, source, there).verdict is Verdict.MATCHES
        if there.blob is None:
            return self.comparer.compare(work.target, there, source).verdict is Verdict.MATCHES
        return source.blob.content_md5 is not None and source.blob.content_md5 == there.blob.content_md5
