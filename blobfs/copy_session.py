"""A session of copies and checks: what is planned, who copies it, and what becomes of it."""

import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Protocol

from blobfs.assembly import Content
from blobfs.azure.store import AzureStore
from blobfs.blocks import MiB
from blobfs.copying.carrying import Carrier, LocalCarrier
from blobfs.copying.checker import Checker
from blobfs.copying.comparing import Comparer
from blobfs.copying.copier import Copier, Orders, TreeCopy
from blobfs.copying.downloading import Downloader, Keeping
from blobfs.copying.entries import Entry, Work
from blobfs.copying.entry_copier import EntryCopier
from blobfs.copying.interruption import Interruption
from blobfs.copying.meter import Meter
from blobfs.copying.places import STREAM, Place
from blobfs.copying.plan import Rules, Step, refuse_inside_itself, root_for, step_for
from blobfs.copying.relocating import Relocator
from blobfs.copying.report import FAILURES, Outcome, Report, Verdict, reason_of
from blobfs.copying.selection import Selection
from blobfs.copying.trees import LocalTree, PartedTree, RemoteTree, Tree
from blobfs.copying.units import Units
from blobfs.copying.uploading import Uploader
from blobfs.errors import Abandoned, InvalidArgument
from blobfs.format.attributes import Attributes, Defaults
from blobfs.proc import umask
from blobfs.settings import SessionSettings

_DEVICES_AND_SOCKETS = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)
_NOT_READ = "is a device or socket: copy it with -r as one, or what it gives through standard input (-)"

KEEP = "keep"  # what becomes of symbolic links wherever they are not those of a source

JOB_SPARE_BYTES = 2 * MiB  # what one upload holds beside two blocks: what it reads at a time


@dataclass(frozen=True, slots=True)
class Route:
    """One source, and where its copy goes: enough for another process to take part in it."""

    source: Place
    target: Place
    path: str  # of the copy itself, in the target's container or file system
    is_stream: bool = False  # the source is standard input, or a fifo whose bytes are meant


class Cluster(Protocol):
    """Other processes, the workers, that take part in a copy."""

    def source_tree(self, route: Route, tree: PartedTree) -> Tree:
        """Return the source as they list it."""
        ...

    def target_tree(self, route: Route, tree: PartedTree) -> Tree:
        """Return the target as they list it."""
        ...

    def carrier(self, route: Route, local: Carrier) -> Carrier:
        """Return what has them copy; what has to wait for all of them is left to `local`."""
        ...


@dataclass(frozen=True, slots=True)
class Trees:
    """Makes the trees that are copied and compared. Sends nothing."""

    store: AzureStore  # of the container that is copied to, or checked
    store_of: Callable[[str], AzureStore]  # by the name of a container of the same account
    max_name_characters: int | None
    selection: Selection
    symlinks: str  # of the source: keep, follow or skip
    follows_sources: bool  # links that are named themselves, as cp(1) without -r

    def source(self, source: Place) -> PartedTree:
        """Return the tree that is copied. Raises InvalidArgument."""
        if source.container is not None:
            return self._remote(self.store_of(source.container.name), source.path, self.symlinks)
        # `link/` and `link/.` name the directory that it leads to (path_resolution(7)).
        follows = self.follows_sources or source.means_directory
        return self._local(source.path, self.symlinks, follow_root=follows)

    def target(self, place: Place, path: str) -> PartedTree:
        """Return the tree that is copied to. A link that is named itself is followed, as by cp(1)."""
        if place.container is None:
            return self.local(os.path.realpath(path), follow_root=True)
        return self.remote(path)

    def local(self, path: str, *, follow_root: bool) -> LocalTree:
        """Return what is here, with its links."""
        return self._local(path, KEEP, follow_root=follow_root)

    def remote(self, path: str) -> RemoteTree:
        """Return what is at a path of the container, with its links."""
        return self._remote(self.store, path, KEEP)

    def _local(self, path: str, symlinks: str, *, follow_root: bool) -> LocalTree:
        return LocalTree(Path(path), self.selection, symlinks, follow_root)

    def _remote(self, store: AzureStore, path: str, symlinks: str) -> RemoteTree:
        defaults = Defaults.for_umask(os.getuid(), os.getgid(), umask())
        return RemoteTree(store, path, defaults, self.selection, symlinks, self.max_name_characters)


@dataclass(frozen=True, slots=True)
class Session:
    """One container, and everything that a copy to or from it, or a check of it, is made of."""

    settings: SessionSettings
    interruption: Interruption
    report: Report
    meter: Meter
    trees: Trees
    content: Content
    units: Units
    comparer: Comparer
    uploader: Uploader

    def copy(self, sources: Sequence[Place], target: Place, cluster: Cluster | None = None) -> None:
        """Copy the sources one after the other; what becomes of each entry is in the report. Blocks.

        With a cluster, its workers list and copy, and this process plans and reports.

        Raises InvalidArgument, NotADirectory or IsADirectory for what cannot be meant, having copied
        nothing; Failure for what stops all of it; KeyboardInterrupt.
        """
        if target.is_stream:
            for source in sources:
                self._print(source)
        else:
            for route, copy in self._planned(sources, target):
                self._run(route, copy, cluster)

    def check(self, local: Place | None, remote: Place) -> None:
        """Compare a tree here with one there, or what is there with its own checksums. Blocks.

        To have compared nothing because of what was asked for is no success.
        """
        checker = Checker(self.comparer, self.report, self.interruption, jobs=self.settings.copy.jobs)
        there = self.trees.remote(remote.path)
        if local is None:
            checker.audit(there)
        else:
            checker.compare(self.trees.local(local.path, follow_root=True), there)
        if not self.report.counts and (self.settings.copy.include or self.settings.copy.exclude):
            nothing = "nothing was compared: --include and --exclude leave nothing"
            self.report.add(Outcome(Verdict.UNVERIFIABLE, remote.text, reason=nothing))

    def _planned(self, sources: Sequence[Place], target: Place) -> list[tuple[Route, TreeCopy]]:
        """Look at everything that is named before anything is copied."""
        found = self.trees.target(target, target.path).root()
        if found is None and target.container is not None:  # the system itself refuses a path below a file
            self.trees.remote(target.path).require_place()
        planned = []
        for source in sources:
            tree = self.trees.source(source)
            entry = _stream_entry() if source.is_stream else tree.root()
            if entry is None:
                self.report.add(Outcome(Verdict.FAILED, source.text, reason="does not exist"))
                continue
            is_stream = source.is_stream
            if source.container is None and not self.settings.copy.recursive:  # cp(1) reads what is no file
                if entry.kind in _DEVICES_AND_SOCKETS:
                    self.report.add(Outcome(Verdict.FAILED, source.text, reason=_NOT_READ))
                    continue
                if entry.kind == stat.S_IFIFO:
                    is_stream, entry = True, _stream_entry(entry.attributes.mode)
            path = root_for(source, entry, target, found, is_one_of_many=len(sources) > 1)
            refuse_inside_itself(source, path, target)
            place = self.trees.target(target, path)
            there = found if path == target.path else place.root()
            planned.append((Route(source, target, path, is_stream), TreeCopy(tree, entry, place, there)))
        if len({route.path for route, _ in planned}) < len(planned):
            raise InvalidArgument("two sources have the same name, and would overwrite each other")
        return planned

    def source_tree(self, route: Route) -> PartedTree:
        """Return what a copy lists at its source. Sends nothing."""
        return self.trees.source(route.source)

    def target_tree(self, route: Route) -> PartedTree:
        """Return what a copy lists at its target. Sends nothing."""
        return self.trees.target(route.target, route.path)

    def carrier(self, route: Route) -> LocalCarrier:
        """Return what copies the entries of one source in this process."""
        dry_run = self.settings.copy.dry_run
        return LocalCarrier(self._entry_copier(route), self.comparer, self.rules(), dry_run=dry_run)

    def parts(self, route: Route, work: Work) -> Sequence[range]:
        """Return the stretches of a file that can be moved ahead of its copy. Blocks. Raises Failure."""
        return self._entry_copier(route).parts(work)

    def stage(self, route: Route, work: Work, spans: Sequence[range]) -> None:
        """Move stretches of a file, for a carrier that completes it. Blocks. Raises Failure, OSError."""
        self._entry_copier(route).stage(work, spans)

    @property
    def uploads_at_once(self) -> int:
        """As many as memory has room for; downloads just wait for it."""
        job_bytes = 2 * self.content.block_bytes + JOB_SPARE_BYTES
        return max(1, min(self.settings.copy.jobs, self.content.pool.budget_bytes // job_bytes))

    def has_landed(self, route: Route, work: Work) -> bool:
        """Tell whether what stands at the target is the copy, made by somebody who did not say so. Blocks."""
        there = self.trees.target(route.target, work.target).root()
        if there is None or (work.replaces is not None and _is_untouched(there, work.replaces)):
            return False
        step = step_for(work.source, there, Rules(update=True))
        carrier = LocalCarrier(self._entry_copier(route), self.comparer, Rules(), dry_run=True)
        return step is Step.RESTORE_TIMES or (
            step is Step.SKIP and carrier.is_same(replace(work, replaces=there))
        )

    def rules(self) -> Rules:
        """Return what is copied when something stands there already."""
        return Rules(self.settings.copy.no_clobber, self.settings.copy.update, self.settings.copy.checksum)

    def _run(self, route: Route, copy: TreeCopy, cluster: Cluster | None) -> None:
        if route.is_stream:
            work = Work(copy.root, route.source.text, copy.target.address(""), copy.found)
            self._read(route.source, work)
            return
        carrier: Carrier = self.carrier(route)
        jobs = self.uploads_at_once if route.source.container is None else self.settings.copy.jobs
        if cluster is not None:
            source = cluster.source_tree(route, self.source_tree(route))
            target = cluster.target_tree(route, self.target_tree(route))
            copy = replace(copy, source=source, target=target)
            carrier, jobs = cluster.carrier(route, carrier), self.settings.copy.jobs
        copier = Copier(
            carrier,
            self.report,
            self.interruption,
            orders=Orders(
                self.rules(),
                recursive=self.settings.copy.recursive,
                deletes=self.settings.copy.deletes,
                skips_links=self.settings.copy.symlinks == "skip",
                dry_run=self.settings.copy.dry_run,
            ),
            jobs=jobs,
        )
        copier.copy(copy)

    def _entry_copier(self, route: Route) -> EntryCopier:
        source = route.source
        if source.container is None:
            return self.uploader
        if route.target.container is None:
            keeping = Keeping(self.settings.copy.preserves, owners=os.geteuid() == 0, umask=umask())
            return Downloader(self.units, Path(os.path.realpath(route.path)), keeping)
        origin = self.trees.store_of(source.container.name)
        return Relocator(partial(self.trees.store.copy_from, origin), self.meter)

    def _read(self, source: Place, work: Work) -> None:
        """Copy standard input or a fifo, of which nothing is known before it is read."""
        verdict, size_bytes = Verdict.COPIED, 0
        try:
            if step_for(work.source, work.replaces, Rules(self.settings.copy.no_clobber)) is Step.SKIP:
                verdict = Verdict.SKIPPED
            elif not self.settings.copy.dry_run:
                with _opened(source) as stream:
                    size_bytes = self.uploader.send_stream(stream, work)
        except Abandoned:
            raise
        except FAILURES as failure:
            self.report.add(Outcome(Verdict.FAILED, work.origin, work.target, reason=reason_of(failure)))
        else:
            self.report.add(Outcome(verdict, work.origin, work.target, size_bytes))

    def _print(self, source: Place) -> None:
        """Write a file to standard output, as it is verified."""
        entry = self.trees.source(source).root()
        if entry is None or entry.blob is None or not entry.attributes.is_regular:
            what = "does not exist" if entry is None else "is no file, and only files go to standard output"
            self.report.add(Outcome(Verdict.FAILED, source.text, STREAM, reason=what))
            return
        for _, view in self.units.stream(entry.blob, self.units.layout(entry.blob)):
            sys.stdout.buffer.write(view)
        sys.stdout.buffer.flush()
        self.report.add(Outcome(Verdict.COPIED, source.text, STREAM, entry.size_bytes))


def _is_untouched(now: Entry, before: Entry) -> bool:
    return now.blob == before.blob if now.blob is not None else now.has_content_of(before)


def _stream_entry(mode: int = 0o666) -> Entry:
    """Return what a stream becomes: a new file, by default as one that is redirected to."""
    now = time.time_ns()
    mode = stat.S_IFREG | mode & 0o777 & ~umask()
    return Entry("", Attributes(mode, os.getuid(), os.getgid(), now, now, now), 0)


def _opened(source: Place) -> FileIO:
    """Open standard input or a fifo. Blocks until the fifo has a writer."""
    if source.is_stream:
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    return open(source.path, "rb", buffering=0)
