"""Comparing trees, or a container with its own checksums, from end to end."""

from contextlib import closing

from blobfs.copying.catalogue import Catalogue
from blobfs.copying.comparing import Comparer, Comparison
from blobfs.copying.entries import Entry, Work
from blobfs.copying.interruption import Interruption
from blobfs.copying.part_file import is_part
from blobfs.copying.report import FAILURES, Outcome, Report, Verdict, reason_of
from blobfs.copying.trees import LocalTree, RemoteTree
from blobfs.copying.workers import Workers
from blobfs.errors import Abandoned


class Checker:
    """Compares entries side by side. Directories are not compared: many have no blob. For one thread."""

    def __init__(self, comparer: Comparer, report: Report, interruption: Interruption, *, jobs: int) -> None:
        self._comparer = comparer
        self._report = report
        self._interruption = interruption
        self._jobs = jobs

    def compare(self, local: LocalTree, remote: RemoteTree) -> None:
        """Compare what is here with what is there; the report has it. Blocks. Raises Failure, OSError."""
        here, there = local.root(), remote.root()
        if here is None or there is None:
            missing = local.address("") if here is None else remote.address("")
            self._missing(missing, "does not exist")
            return
        remote_entries = remote.entries() if there.is_directory else iter([there])
        with closing(Catalogue(remote_entries)) as catalogue, self._workers() as workers:
            for entry in local.entries() if here.is_directory else [here]:
                self._interruption.check()
                self._submit(workers, local, entry, catalogue.take(entry.path))
            workers.drain()
            for entry in catalogue.rest():
                if entry.blob is not None and not entry.is_directory and not is_part(entry.path):
                    self._missing(entry.blob.name, "is not here")

    def audit(self, remote: RemoteTree) -> None:
        """Read everything there and compare it with its checksums. Blocks. Raises Failure."""
        root = remote.root()
        if root is None:
            self._missing(remote.address(""), "does not exist")
            return
        with self._workers() as workers:
            for entry in remote.entries() if root.is_directory else [root]:
                self._interruption.check()
                if entry.blob is not None and not entry.is_directory:
                    workers.submit(Work(entry, entry.blob.name, ""))
            workers.drain()

    def _submit(self, workers: Workers[Work], local: LocalTree, entry: Entry, found: Entry | None) -> None:
        path = local.address(entry.path)
        if is_part(entry.path) and not entry.is_directory:
            return  # no copy brings it
        if entry.problem:
            self._report.add(Outcome(Verdict.UNVERIFIABLE, path, reason=entry.problem))
        elif found is None:
            if not entry.is_directory:
                self._missing(path, "is only here")
        elif not (entry.is_directory and found.is_directory):
            workers.submit(Work(entry, path, found.blob.name if found.blob is not None else "", found))

    def _workers(self) -> Workers[Work]:
        return Workers(self._check, self._interruption, count=self._jobs)

    def _check(self, work: Work) -> None:
        try:
            comparison = self._compare(work)
        except Abandoned:
            return
        except FAILURES as failure:
            comparison = Comparison(Verdict.UNVERIFIABLE, reason_of(failure))
        size_bytes = work.source.size_bytes
        self._report.add(Outcome(comparison.verdict, work.origin, work.target, size_bytes, comparison.reason))

    def _compare(self, work: Work) -> Comparison:
        if work.replaces is not None:
            return self._comparer.compare(work.origin, work.source, work.replaces)
        assert work.source.blob is not None
        return self._comparer.audit(work.source.blob)

    def _missing(self, path: str, reason: str) -> None:
        self._report.add(Outcome(Verdict.MISSING, path, reason=reason))
