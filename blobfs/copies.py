"""The composition root of copies and comparisons without a mount."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from blobfs.assembly import Content, content_of, fetcher_of, open_service
from blobfs.azure.addresses import EMULATOR_ACCOUNT
from blobfs.azure.store import AzureStore
from blobfs.blocks import MAX_BLOB_NAME_CHARACTERS, MiB
from blobfs.copying.checker import Checker
from blobfs.copying.comparing import Comparer
from blobfs.copying.copier import Copier, Orders, Performer
from blobfs.copying.downloading import Downloader, Keeping
from blobfs.copying.entries import Entry, Work
from blobfs.copying.meter import Interruption, Meter
from blobfs.copying.places import STREAM, Container, Place
from blobfs.copying.plan import Rules, refuse_inside_itself, root_for
from blobfs.copying.relocating import Relocator
from blobfs.copying.report import Outcome, Report, Verdict
from blobfs.copying.selection import Selection
from blobfs.copying.trees import LocalTree, RemoteTree, Tree
from blobfs.copying.units import Units
from blobfs.copying.uploading import Style, Uploader
from blobfs.errors import InvalidArgument
from blobfs.format.attributes import Attributes, Defaults
from blobfs.format.headers import guessed_headers
from blobfs.settings import CopySettings, MountSettings
from blobfs.store import ContentHeaders
from blobfs.transfers import Transfers

JOB_SPARE_BYTES = 2 * MiB  # what one upload holds beside two blocks: what it reads at a time


@dataclass(frozen=True, slots=True)
class Session:
    """One container, and everything that a copy to or from it, or a check of it, is made of."""

    settings: MountSettings
    wishes: CopySettings
    interruption: Interruption
    report: Report
    meter: Meter
    store: AzureStore
    content: Content
    units: Units
    comparer: Comparer
    selection: Selection

    def copy(self, sources: Sequence[Place], target: Place) -> None:
        """Copy the sources one after the other; what becomes of each entry is in the report. Blocks.

        Raises InvalidArgument, NotADirectory or IsADirectory for what cannot be meant, having copied
        nothing; Failure for what stops all of it; KeyboardInterrupt.
        """
        if target.is_stream:
            for source in sources:
                self._print(source)
        else:
            for errand in self._errands(sources, target):
                self._run(errand)

    def check(self, local: Place | None, remote: Place) -> None:
        """Compare a tree here with one there, or what is there with its own checksums. Blocks."""
        checker = Checker(self.comparer, self.report, self.interruption, jobs=self.wishes.jobs)
        there = self._remote(self.store, remote.path)
        if local is None:
            checker.audit(there)
        else:
            checker.compare(self._local(local.path, follow_root=True), there)

    def _errands(self, sources: Sequence[Place], target: Place) -> list["_Errand"]:
        """Look at everything that is named before anything is copied."""
        found = self._tree(target, target.path).root()
        errands = []
        for source in sources:
            tree = self._source(source)
            entry = _stream_entry() if source.is_stream else tree.root()
            if entry is None:
                self.report.add(Outcome(Verdict.FAILED, source.text, reason="does not exist"))
                continue
            path = root_for(source, entry, target, found, is_one_of_many=len(sources) > 1)
            refuse_inside_itself(source, path, target)
            there = found if path == target.path else self._tree(target, path).root()
            errands.append(_Errand(source, tree, entry, target, path, there))
        if len({errand.path for errand in errands}) < len(errands):
            raise InvalidArgument("two sources have the same name, and would overwrite each other")
        return errands

    def _run(self, errand: "_Errand") -> None:
        tree = self._tree(errand.target, errand.path)
        if errand.source.is_stream:
            self._read_input(tree.address(""), errand.entry, errand.found)
            return
        copier = Copier(
            self._performer(errand.source, errand.target, errand.path),
            self.comparer,
            self.report,
            self.interruption,
            orders=Orders(
                Rules(self.wishes.no_clobber, self.wishes.update, self.wishes.checksum),
                recursive=self.wishes.recursive,
                deletes=self.wishes.deletes,
                dry_run=self.wishes.dry_run,
            ),
            jobs=self._jobs(errand),
        )
        copier.copy(errand.tree, errand.entry, tree, errand.found)

    def _performer(self, source: Place, target: Place, path: str) -> Performer:
        if source.container is None:
            return self._uploader()
        if target.container is None:
            keeping = Keeping(self.wishes.preserves, owners=os.geteuid() == 0, umask=_umask())
            return Downloader(self.units, Path(os.path.realpath(path)), keeping)
        origin = self._store_of(source.container)
        return Relocator(partial(self.store.copy_from, origin), self.meter)

    def _uploader(self) -> Uploader:
        def headers_for(name: str) -> ContentHeaders:
            given = self.wishes.content_type
            return ContentHeaders(content_type=given) if given else guessed_headers(name)

        return Uploader(
            self.store,
            self.content.pool,
            self.meter,
            Style(
                preserves=self.wishes.preserves,
                uid=os.getuid(),
                gid=os.getgid(),
                umask=_umask(),
                headers_for=headers_for,
                tier=self.wishes.tier,
            ),
            make_writer=self.content.make_writer,
            block_bytes=self.content.block_bytes,
        )

    def _jobs(self, errand: "_Errand") -> int:
        """As many uploads at once as memory has room for; downloads just wait for it."""
        if errand.source.container is not None:
            return self.wishes.jobs
        job_bytes = 2 * self.content.block_bytes + JOB_SPARE_BYTES
        return max(1, min(self.wishes.jobs, self.content.pool.budget_bytes // job_bytes))

    def _read_input(self, name: str, entry: Entry, found: Entry | None) -> None:
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stream:
            size_bytes = self._uploader().send_stream(stream, Work(entry, STREAM, name, found))
        self.report.add(Outcome(Verdict.COPIED, STREAM, name, size_bytes))

    def _print(self, source: Place) -> None:
        """Write a file to standard output, as it is verified."""
        entry = self._source(source).root()
        if entry is None or entry.blob is None or not entry.attributes.is_regular:
            what = "does not exist" if entry is None else "is no file, and only files go to standard output"
            self.report.add(Outcome(Verdict.FAILED, source.text, STREAM, reason=what))
            return
        for _, view in self.units.stream(entry.blob, self.units.layout(entry.blob)):
            sys.stdout.buffer.write(view)
        sys.stdout.buffer.flush()
        self.report.add(Outcome(Verdict.COPIED, source.text, STREAM, entry.size_bytes))

    def _source(self, source: Place) -> Tree:
        if source.container is not None:
            return self._remote(self._store_of(source.container), source.path)
        return self._local(source.path, follow_root=not self.wishes.recursive)

    def _tree(self, place: Place, path: str) -> Tree:
        """Return the tree that is copied to. A link that is named itself is followed, as by cp(1)."""
        if place.container is None:
            return self._local(os.path.realpath(path), follow_root=True)
        return self._remote(self.store, path)

    def _local(self, path: str, *, follow_root: bool = False) -> LocalTree:
        return LocalTree(Path(path), self.selection, self.wishes.symlinks, follow_root)

    def _remote(self, store: AzureStore, path: str) -> RemoteTree:
        limit = None if self.settings.account == EMULATOR_ACCOUNT else MAX_BLOB_NAME_CHARACTERS
        defaults = Defaults.for_umask(os.getuid(), os.getgid(), _umask())
        return RemoteTree(store, path, defaults, self.selection, self.wishes.symlinks, limit)

    def _store_of(self, container: Container) -> AzureStore:
        if container.name == self.settings.container:
            return self.store
        return open_service(replace(self.settings, container=container.name), self.interruption)


@dataclass(frozen=True, slots=True)
class _Errand:
    """One source, and where its copy goes."""

    source: Place
    tree: Tree
    entry: Entry
    target: Place
    path: str
    found: Entry | None  # what stands there


@contextmanager
def session(
    settings: MountSettings,
    wishes: CopySettings,
    report: Report,
    interruption: Interruption,
    watch: Callable[[int], None],
) -> Iterator[Session]:
    """Give what copies and checks; ``watch(size_bytes)`` is told of bytes as they move.

    Raises InvalidArgument for settings that cannot work, before anything is sent.
    """
    selection = Selection(wishes.include, wishes.exclude)
    meter = Meter(interruption, limit_bytes_per_second=wishes.limit_bytes_per_second, watch=watch)
    transfers = Transfers(reads=settings.transfers.reads, writes=settings.transfers.writes)
    with closing(open_service(settings, interruption)) as store, closing(transfers):
        transfers.start()
        # What no stored checksum covers comes with one that the service makes of the reply.
        verify = "all" if settings.verify == "blocks" else settings.verify
        fetcher = fetcher_of(replace(settings, verify=verify), store, transfers)
        content = content_of(settings, store, fetcher, transfers, interruption)
        units = Units(
            content.reader,
            content.pool,
            transfers,
            meter,
            ahead=settings.reads.ahead_blocks,
            verifies=settings.verify != "off",
        )
        comparer = Comparer(units, content.pool, meter, reads_all=wishes.reads_all)
        yield Session(
            settings, wishes, interruption, report, meter, store, content, units, comparer, selection
        )


def _umask() -> int:
    """Return this process's umask, which can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _stream_entry() -> Entry:
    """Return what standard input is: a new file."""
    now = time.time_ns()
    mode = stat.S_IFREG | 0o666 & ~_umask()
    return Entry("", Attributes(mode, os.getuid(), os.getgid(), now, now, now), 0)
