"""The composition root of copies and comparisons without a mount."""

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from blobfs.assembly import Content, content_of, fetcher_of, open_service
from blobfs.azure.addresses import max_name_characters
from blobfs.azure.store import AzureStore
from blobfs.blocks import MiB
from blobfs.copying.carrying import Carrier, LocalCarrier, Performer
from blobfs.copying.checker import Checker
from blobfs.copying.comparing import Comparer
from blobfs.copying.copier import Copier, Orders
from blobfs.copying.downloading import Downloader, Keeping
from blobfs.copying.entries import Entry, Work
from blobfs.copying.interruption import Interruption
from blobfs.copying.meter import Meter
from blobfs.copying.places import STREAM, Place
from blobfs.copying.plan import Rules, Step, refuse_inside_itself, root_for, step_for
from blobfs.copying.relocating import Relocator
from blobfs.copying.report import Outcome, Report, Verdict
from blobfs.copying.selection import Selection
from blobfs.copying.trees import LocalTree, PartedTree, RemoteTree, Tree
from blobfs.copying.units import Units
from blobfs.copying.uploading import Style, Uploader
from blobfs.errors import InvalidArgument
from blobfs.format.attributes import Attributes, Defaults
from blobfs.format.headers import guessed_headers
from blobfs.settings import ContentSettings, CopySettings, ServiceSettings
from blobfs.store import ContentHeaders
from blobfs.transfers import Transfers

JOB_SPARE_BYTES = 2 * MiB  # what one upload holds beside two blocks: what it reads at a time


@dataclass(frozen=True, slots=True)
class Route:
    """One source, and where its copy goes: enough for another process to take part in it."""

    source: Place
    target: Place
    path: str  # of the copy itself, in the target's container or file system


class Helpers(Protocol):
    """Other processes that take part in a copy."""

    def source_tree(self, route: Route, tree: PartedTree) -> Tree:
        """Return the source as they list it."""
        ...

    def target_tree(self, route: Route, tree: PartedTree) -> Tree:
        """Return the target as they list it."""
        ...

    def carrier(self, route: Route, local: Carrier) -> Carrier:
        """Return what has them copy; what has to wait for all of them is left to `local`."""
        ...


class Containers:
    """Those of one account that a copy has to do with, each opened once. Safe to use from many threads."""

    def __init__(self, service: ServiceSettings, interruption: Interruption) -> None:
        self._service = service
        self._interruption = interruption
        self._lock = threading.Lock()  # guards the map
        self._stores: dict[str, AzureStore] = {}

    def store_of(self, name: str) -> AzureStore:
        """Return the store of a container, which `close` closes. Sends nothing. Raises InvalidArgument."""
        with self._lock:
            if name not in self._stores:
                service = replace(self._service, container=name)
                self._stores[name] = open_service(service, self._interruption)
            return self._stores[name]

    def close(self) -> None:
        """Close all that were opened."""
        for store in self._stores.values():
            store.close()


@dataclass(frozen=True, slots=True)
class Session:
    """One container, and everything that a copy to or from it, or a check of it, is made of."""

    service: ServiceSettings
    settings: ContentSettings
    wishes: CopySettings
    interruption: Interruption
    report: Report
    meter: Meter
    containers: Containers
    store: AzureStore  # of the container
    content: Content
    units: Units
    comparer: Comparer
    uploader: Uploader
    selection: Selection

    def copy(self, sources: Sequence[Place], target: Place, helpers: Helpers | None = None) -> None:
        """Copy the sources one after the other; what becomes of each entry is in the report. Blocks.

        With helpers, they list and copy, and this process plans and reports.

        Raises InvalidArgument, NotADirectory or IsADirectory for what cannot be meant, having copied
        nothing; Failure for what stops all of it; KeyboardInterrupt.
        """
        if target.is_stream:
            for source in sources:
                self._print(source)
        else:
            for planned in self._planned(sources, target):
                self._run(planned, helpers)

    def check(self, local: Place | None, remote: Place) -> None:
        """Compare a tree here with one there, or what is there with its own checksums. Blocks.

        To have compared nothing because of what was asked for is no success.
        """
        checker = Checker(self.comparer, self.report, self.interruption, jobs=self.wishes.jobs)
        there = self._remote(self.store, remote.path)
        if local is None:
            checker.audit(there)
        else:
            checker.compare(self._local(local.path, follow_root=True), there)
        if not self.report.counts and (self.wishes.include or self.wishes.exclude):
            nothing = "nothing was compared: --include and --exclude leave nothing"
            self.report.add(Outcome(Verdict.UNVERIFIABLE, remote.text, reason=nothing))

    def _planned(self, sources: Sequence[Place], target: Place) -> list["_Copy"]:
        """Look at everything that is named before anything is copied."""
        found = self._tree(target, target.path).root()
        if found is None and target.container is not None:  # the system itself refuses a path below a file
            self._remote(self.store, target.path).require_place()
        planned = []
        for source in sources:
            tree = self._source(source)
            entry = _stream_entry() if source.is_stream else tree.root()
            if entry is None:
                self.report.add(Outcome(Verdict.FAILED, source.text, reason="does not exist"))
                continue
            path = root_for(source, entry, target, found, is_one_of_many=len(sources) > 1)
            refuse_inside_itself(source, path, target)
            there = found if path == target.path else self._tree(target, path).root()
            planned.append(_Copy(Route(source, target, path), tree, entry, there))
        if len({each.route.path for each in planned}) < len(planned):
            raise InvalidArgument("two sources have the same name, and would overwrite each other")
        return planned

    def source_tree(self, route: Route) -> PartedTree:
        """Return what a copy lists at its source. Sends nothing."""
        return self._source(route.source)

    def target_tree(self, route: Route) -> PartedTree:
        """Return what a copy lists at its target. Sends nothing."""
        return self._tree(route.target, route.path)

    def carrier(self, route: Route) -> LocalCarrier:
        """Return what copies the entries of one source in this process."""
        return LocalCarrier(self._performer(route), self.comparer, self.rules(), self.wishes.dry_run)

    def parts(self, route: Route, work: Work) -> Sequence[range]:
        """Return the stretches of a file that can be moved ahead of its copy. Blocks. Raises Failure."""
        return self._performer(route).parts(work)

    def stage(self, route: Route, work: Work, spans: Sequence[range]) -> None:
        """Move stretches of a file, for a carrier that completes it. Blocks. Raises Failure, OSError."""
        self._performer(route).stage(work, spans)

    @property
    def uploads_at_once(self) -> int:
        """As many as memory has room for; downloads just wait for it."""
        job_bytes = 2 * self.content.block_bytes + JOB_SPARE_BYTES
        return max(1, min(self.wishes.jobs, self.content.pool.budget_bytes // job_bytes))

    def has_landed(self, route: Route, work: Work) -> bool:
        """Tell whether what stands at the target is the copy, made by somebody who did not say so. Blocks."""
        there = self._tree(route.target, work.target).root()
        if there is None or (work.replaces is not None and _is_untouched(there, work.replaces)):
            return False
        step = step_for(work.source, there, Rules(update=True))
        carrier = LocalCarrier(self._performer(route), self.comparer, Rules(), dry_run=True)
        return step is Step.SETTLE or (step is Step.SKIP and carrier.is_same(replace(work, replaces=there)))

    def rules(self) -> Rules:
        """Return what is copied when something stands there already."""
        return Rules(self.wishes.no_clobber, self.wishes.update, self.wishes.checksum)

    def _run(self, planned: "_Copy", helpers: Helpers | None) -> None:
        route = planned.route
        parted = self.target_tree(route)
        if route.source.is_stream:
            self._read_input(parted.address(""), planned.entry, planned.found)
            return
        source: Tree = planned.tree
        target: Tree = parted
        carrier: Carrier = self.carrier(route)
        jobs = self.uploads_at_once if route.source.container is None else self.wishes.jobs
        if helpers is not None:
            source, target = helpers.source_tree(route, planned.tree), helpers.target_tree(route, parted)
            carrier, jobs = helpers.carrier(route, carrier), self.wishes.jobs
        copier = Copier(
            carrier,
            self.report,
            self.interruption,
            orders=Orders(
                self.rules(),
                recursive=self.wishes.recursive,
                deletes=self.wishes.deletes,
                dry_run=self.wishes.dry_run,
            ),
            jobs=jobs,
        )
        copier.copy(source, planned.entry, target, planned.found)

    def _performer(self, route: Route) -> Performer:
        source = route.source
        if source.container is None:
            return self.uploader
        if route.target.container is None:
            keeping = Keeping(self.wishes.preserves, owners=os.geteuid() == 0, umask=_umask())
            return Downloader(self.units, Path(os.path.realpath(route.path)), keeping)
        origin = self.containers.store_of(source.container.name)
        return Relocator(partial(self.store.copy_from, origin), self.meter)

    def _read_input(self, name: str, entry: Entry, found: Entry | None) -> None:
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stream:
            size_bytes = self.uploader.send_stream(stream, Work(entry, STREAM, name, found))
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

    def _source(self, source: Place) -> PartedTree:
        if source.container is not None:
            return self._remote(self.containers.store_of(source.container.name), source.path)
        return self._local(source.path, follow_root=not self.wishes.recursive)

    def _tree(self, place: Place, path: str) -> PartedTree:
        """Return the tree that is copied to. A link that is named itself is followed, as by cp(1)."""
        if place.container is None:
            return self._local(os.path.realpath(path), follow_root=True)
        return self._remote(self.store, path)

    def _local(self, path: str, *, follow_root: bool = False) -> LocalTree:
        return LocalTree(Path(path), self.selection, self.wishes.symlinks, follow_root)

    def _remote(self, store: AzureStore, path: str) -> RemoteTree:
        limit = max_name_characters(self.service.account)
        defaults = Defaults.for_umask(os.getuid(), os.getgid(), _umask())
        return RemoteTree(store, path, defaults, self.selection, self.wishes.symlinks, limit)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy to be made, with what was seen at both its ends before any was."""

    route: Route
    tree: PartedTree
    entry: Entry
    found: Entry | None  # what stands at the target


@contextmanager
def session(
    service: ServiceSettings,
    settings: ContentSettings,
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
    transfers = Transfers(reads=service.transfers.reads, writes=service.transfers.writes)
    with closing(Containers(service, interruption)) as containers, closing(transfers):
        store = containers.store_of(service.container)
        transfers.start()
        # What no stored checksum covers comes with one that the service makes of the reply.
        verify = "all" if settings.verify == "blocks" else settings.verify
        fetcher = fetcher_of(replace(settings, verify=verify), service, store, transfers)
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
            service=service,
            settings=settings,
            wishes=wishes,
            interruption=interruption,
            report=report,
            meter=meter,
            containers=containers,
            store=store,
            content=content,
            units=units,
            comparer=comparer,
            uploader=_uploader(wishes, store, content, meter),
            selection=selection,
        )


def _uploader(wishes: CopySettings, store: AzureStore, content: Content, meter: Meter) -> Uploader:
    def headers_for(name: str) -> ContentHeaders:
        given = wishes.content_type
        return ContentHeaders(content_type=given) if given else guessed_headers(name)

    return Uploader(
        store,
        content.pool,
        meter,
        Style(
            preserves=wishes.preserves,
            uid=os.getuid(),
            gid=os.getgid(),
            umask=_umask(),
            headers_for=headers_for,
            tier=wishes.tier,
        ),
        make_writer=content.make_writer,
        block_bytes=content.block_bytes,
        largest_block_bytes=content.largest_block_bytes,
    )


def _is_untouched(now: Entry, before: Entry) -> bool:
    return now.blob == before.blob if now.blob is not None else now.has_content_of(before)


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
