"""A copy from end to end: what is there, what is to be done, doing it, and what became of it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from blobfs.copying.carrying import Carrier
from blobfs.copying.catalogue import Catalogue
from blobfs.copying.entries import Entry, Work
from blobfs.copying.interruption import Interruption
from blobfs.copying.part_file import is_part
from blobfs.copying.plan import Rules, Step, step_for
from blobfs.copying.report import FAILURES, Outcome, Report, Verdict, reason_of
from blobfs.copying.trees import Tree
from blobfs.copying.workers import Item, Workers
from blobfs.errors import Abandoned

logger = logging.getLogger(__name__)

TOGETHER = 64  # files that one thread removes; more would leave the other threads without any


@dataclass(frozen=True, slots=True)
class Orders:
    """What is asked for beside the copy itself."""

    rules: Rules
    recursive: bool
    deletes: bool
    skips_links: bool  # the source's are not copied, and the target's not deleted
    dry_run: bool


@dataclass(frozen=True, slots=True)
class TreeCopy:
    """A tree and where its copy goes, with what was seen at both before anything is copied."""

    source: Tree
    root: Entry  # of the source
    target: Tree
    found: Entry | None  # what stands at the target's root


class Copier:
    """Copies trees one after the other, entries side by side. For one thread."""

    def __init__(
        self,
        carrier: Carrier,
        report: Report,
        interruption: Interruption,
        *,
        orders: Orders,
        jobs: int,
    ) -> None:
        self._carrier = carrier
        self._report = report
        self._interruption = interruption
        self._orders = orders
        self._jobs = jobs

    def copy(self, copy: TreeCopy) -> None:
        """Copy a tree; what fails is in the report. Blocks.

        Nothing is deleted unless everything was listed, on both sides, and copied. Raises Failure
        when a listing breaks off, and KeyboardInterrupt, having ended what was under way.
        """
        root = copy.root
        if root.is_directory and not self._orders.recursive:
            self._fail(_name(root, copy.source), "is a directory: copy it with -r")
            return
        with closing(Catalogue(copy.target.entries() if root.is_directory and copy.found else ())) as there:
            self._copy_all(copy, there)

    def _copy_all(self, copy: TreeCopy, there: Catalogue) -> None:
        late: list[Work] = []
        with self._workers(self._copy_one) as workers:
            for work in self._planned(copy, there):
                if self._carrier.is_late(work.source):
                    self._carrier.prepare(work)
                    late.append(work)
                else:
                    workers.submit(work)
            workers.drain()
        # What is in a directory before it, and the marker `d/`, which often has no attributes, before `d`.
        late.sort(key=lambda work: (work.target, work.origin), reverse=True)
        for work in [work for work in late if not work.source.is_directory]:
            self._note(work, self._carrier.copy_late)
        if self._orders.deletes and copy.root.is_directory:
            self._delete(copy.target, there)
        for work in [work for work in late if work.source.is_directory]:
            self._note(work, self._carrier.copy_late)

    def _planned(self, copy: TreeCopy, there: Catalogue) -> Iterator[Work]:
        """Yield what is to be copied; what is not is in the report."""
        if work := self._plan(copy, copy.root, copy.found):
            yield work
        for entry in copy.source.entries() if copy.root.is_directory else ():
            self._interruption.check()
            if is_part(entry.path) and not entry.is_directory:  # it may be where another entry is made
                logger.warning("%s: not copied: an unfinished download left it", _name(entry, copy.source))
            elif (file := there.file_above(entry.path)) is not None:
                self._fail(_name(entry, copy.source), f"{copy.target.address(file)} is no directory")
            elif work := self._plan(copy, entry, there.take(entry.path)):
                yield work

    def _plan(self, copy: TreeCopy, entry: Entry, found: Entry | None) -> Work | None:
        origin = _name(entry, copy.source)
        try:
            step = step_for(entry, found, self._orders.rules)
            work = Work(entry, origin, copy.target.address(entry.path), found)
        except FAILURES as failure:
            self._fail(origin, reason_of(failure))
            return None
        if step is Step.SKIP or (step is Step.RESTORE_TIMES and not self._carrier.is_late(entry)):
            self._report.add(Outcome(Verdict.SKIPPED, work.origin, work.target, entry.size_bytes))
            return None
        if not work.target:
            return None  # a whole container has no blob that stands for it
        self._report.watcher.expect(entry.size_bytes)
        return work

    def _copy_one(self, work: Work) -> None:
        self._note(work, self._carrier.copy)

    def _note(self, work: Work, copy: Callable[[Work], Outcome]) -> None:
        with suppress(Abandoned):
            self._report.add(copy(work))

    def _delete(self, target: Tree, there: Catalogue) -> None:
        """Remove what only the target has, directories last."""
        if not self._report.is_clean:
            self._fail(target.address(""), "nothing is deleted, because not everything was copied")
            return
        directories: list[Entry] = []
        files: list[Entry] = []
        workers: Workers[Sequence[Entry]] = self._workers(lambda files: self._remove_files(target, files))
        with workers:
            for entry in there.rest():
                if entry.is_directory:
                    directories.append(entry)
                elif not (self._orders.skips_links and entry.attributes.is_symlink):
                    files.append(entry)
                    if len(files) == TOGETHER:
                        workers.submit(files)
                        files = []
            workers.submit(files)
            workers.drain()
        for entry in directories:
            self._remove(target, entry)

    def _remove_files(self, target: Tree, files: Sequence[Entry]) -> None:
        left = files
        if len(files) > 1 and not self._orders.dry_run:
            with suppress(*FAILURES):  # each is removed alone, and tells
                left = target.remove_files(files)
        alone = {entry.path for entry in left}
        for entry in files:
            if entry.path in alone:
                self._remove(target, entry)
            else:
                self._report.add(Outcome(Verdict.DELETED, "", _name(entry, target)))

    def _remove(self, target: Tree, entry: Entry) -> None:
        name = _name(entry, target)
        try:
            if self._orders.dry_run or target.remove(entry):
                self._report.add(Outcome(Verdict.DELETED, "", name))
        except Abandoned:
            return
        except FAILURES as failure:
            self._fail("", reason_of(failure), name)

    def _workers(self, perform: Callable[[Item], None]) -> Workers[Item]:
        return Workers(perform, self._interruption, count=self._jobs)

    def _fail(self, source: str, reason: str, target: str = "") -> None:
        self._report.add(Outcome(Verdict.FAILED, source, target, reason=reason))


def _name(entry: Entry, tree: Tree) -> str:
    return entry.blob.name if entry.blob is not None else tree.address(entry.path)
