"""A copy by the workers of a Dask cluster: they list and move bytes, and this process plans and reports.

What travels is where things are and what is wanted, never a secret: each worker opens the service
with its own files and environment.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, LocalCluster, WorkerPlugin, get_worker
from distributed.worker import Worker

from blobfs.blocks import block_spans
from blobfs.copies import Route, Session, session
from blobfs.copying.carrying import Carrier
from blobfs.copying.entries import Entry, Work
from blobfs.copying.meter import Interruption
from blobfs.copying.plan import Step, step_for
from blobfs.copying.report import Outcome, Report, Verdict
from blobfs.copying.trees import PartedTree, Tree
from blobfs.errors import Failure, Unavailable
from blobfs.settings import CopySettings, MountSettings

LOCAL = "local"  # instead of an address: a cluster of processes on this machine, for this copy
STAGED_BLOCKS = 8  # by one task: at 8 MiB a second or so of work, and little to do again if it is lost
LISTED_AHEAD = 32  # parts of a tree
POLL_SECONDS = 0.5  # how soon an interruption is noticed


class Station(WorkerPlugin):
    """What one worker has for a copy: a session, opened by itself."""

    def __init__(self, settings: MountSettings, wishes: CopySettings) -> None:
        self._settings = settings
        self._wishes = wishes

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker, also in those that come later."""
        self._closing = ExitStack()
        self.interruption = Interruption()
        opened = session(
            self._settings, self._wishes, Report(lambda _: None), self.interruption, lambda _: None
        )
        self.session = self._closing.enter_context(opened)
        self._places = threading.BoundedSemaphore(self.session.uploads_at_once)

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when the copy is over."""
        self.interruption.set()
        self._closing.close()

    def carry_out(self, route: Route, work: Work) -> Outcome:
        """Copy one entry. A worker that was lost may have done so already, and not have said it."""
        with self._places:
            outcome = self.session.carrier(route).carry_out(work)
            if outcome.verdict is Verdict.FAILED and self.session.has_landed(route, work):
                return Outcome(Verdict.COPIED, work.origin, work.target, work.source.size_bytes)
        return outcome

    def stage(self, work: Work, spans: Sequence[range]) -> None:
        """Stage stretches of a file. Raises Failure, OSError."""
        with self._places:
            self.session.stage(work, spans)

    def list_source(self, route: Route, part: str) -> list[Entry]:
        """List a part of the source. Raises Failure."""
        return list(self.session.source_tree(route).part(part))

    def list_target(self, route: Route, part: str) -> list[Entry]:
        """List a part of the target. Raises Failure."""
        return list(self.session.target_tree(route).part(part))


def _at_station(name: str, method: str, *arguments: object) -> object:
    """Run by a worker: do something with what it has for this copy."""
    return getattr(get_worker().plugins[name], method)(*arguments)


class Cluster:
    """The workers, as `Helpers` of a copy. Safe to use from many threads."""

    def __init__(self, client: Client, name: str, session: Session) -> None:
        self._client = client
        self._name = name
        self.session = session

    def source_tree(self, route: Route, tree: PartedTree) -> Tree:
        """See `Helpers.source_tree`."""
        return tree if self._has_loops else SpreadTree(tree, self, "list_source", route)

    def target_tree(self, route: Route, tree: PartedTree) -> Tree:
        """See `Helpers.target_tree`."""
        return tree if self._has_loops else SpreadTree(tree, self, "list_target", route)

    def carrier(self, route: Route, local: Carrier) -> Carrier:
        """See `Helpers.carrier`."""
        return ClusterCarrier(self, route, local)

    def submit(self, method: str, *arguments: object) -> Future[Any]:
        """Have a worker do something, another one if that is lost."""
        return self._client.submit(_at_station, self._name, method, *arguments, pure=False)

    def result(self, future: Future[Any]) -> Any:
        """Wait for what a worker gives. Raises what it raises, Abandoned, Unavailable."""
        is_done = threading.Event()
        future.add_done_callback(lambda _: is_done.set())
        while not is_done.wait(POLL_SECONDS):
            self.session.interruption.check()  # Dask drops what nobody waits for
        try:
            return future.result()
        except (KilledWorker, CancelledError) as error:
            raise Unavailable(f"the cluster gave it up: {error}") from error

    @property
    def _has_loops(self) -> bool:
        """Links that lead back up are only noticed by who lists all of it."""
        return self.session.wishes.symlinks == "follow"


@dataclass(frozen=True, slots=True)
class SpreadTree:
    """A tree of which each part is listed by a worker."""

    tree: PartedTree
    cluster: Cluster
    method: str  # of a station, that lists
    route: Route

    def root(self) -> Entry | None:
        """See `Tree.root`."""
        return self.tree.root()

    def entries(self) -> Iterator[Entry]:
        """See `Tree.entries`."""
        entries, parts = self.tree.level()
        yield from entries
        waiting, under_way = deque(parts), deque[Future[Any]]()
        while waiting or under_way:
            while waiting and len(under_way) < LISTED_AHEAD:
                under_way.append(self.cluster.submit(self.method, self.route, waiting.popleft()))
            yield from self.cluster.result(under_way.popleft())

    def address(self, path: str) -> str:
        """See `Tree.address`."""
        return self.tree.address(path)

    def remove(self, entry: Entry) -> bool:
        """See `Tree.remove`."""
        return self.tree.remove(entry)


@dataclass(frozen=True, slots=True)
class ClusterCarrier:
    """Has workers copy: each entry one of them, a large file's blocks several. See `Carrier`."""

    cluster: Cluster
    route: Route
    local: Carrier

    def is_late(self, entry: Entry) -> bool:
        """See `Carrier.is_late`."""
        return self.local.is_late(entry)

    def prepare(self, work: Work) -> None:
        """See `Carrier.prepare`: by this process."""
        self.local.prepare(work)

    def carry_out(self, work: Work) -> Outcome:
        """See `Carrier.carry_out`."""
        try:
            if self._goes_in_parts(work):
                self._stage(work)
            outcome: Outcome = self.cluster.result(self.cluster.submit("carry_out", self.route, work))
        except Unavailable as failure:
            return Outcome(Verdict.FAILED, work.origin, work.target, reason=str(failure))
        if outcome.verdict is Verdict.COPIED and not self.cluster.session.wishes.dry_run:
            self.cluster.session.meter.note(outcome.size_bytes)
        return outcome

    def carry_out_late(self, work: Work) -> Outcome:
        """See `Carrier.carry_out_late`: links and directories, by this process."""
        return self.local.carry_out_late(work)

    def _goes_in_parts(self, work: Work) -> bool:
        session = self.cluster.session
        is_upload = self.route.source.container is None and work.source.attributes.is_regular
        is_large = work.source.size_bytes > STAGED_BLOCKS * session.content.block_bytes
        wanted = step_for(work.source, work.replaces, session.rules()) is Step.COPY
        return is_upload and is_large and wanted and not session.wishes.dry_run

    def _stage(self, work: Work) -> None:
        """Have the blocks staged. One that is not, for whatever reason, is left to who commits."""
        content = self.cluster.session.content
        spans = block_spans(work.source.size_bytes, content.block_bytes, content.largest_block_bytes)
        parts = [spans[start : start + STAGED_BLOCKS] for start in range(0, len(spans), STAGED_BLOCKS)]
        for future in [self.cluster.submit("stage", work, part) for part in parts]:
            with suppress(Failure, OSError):
                self.cluster.result(future)


@contextmanager
def cluster(address: str, session: Session) -> Iterator[Cluster]:
    """Give the workers of the cluster at an address, or of a `LOCAL` one. Blocks.

    Raises Unavailable if there is none, or it has no workers; what opening a session raises in a worker.
    """
    name = f"blobfs-{uuid4().hex}"
    with _client(address, session.settings.retry.total_seconds) as client:
        client.register_plugin(Station(session.settings, session.wishes), name=name)
        try:
            yield Cluster(client, name, session)
        finally:
            client.unregister_worker_plugin(name)


@contextmanager
def _client(address: str, timeout_seconds: float) -> Iterator[Client]:
    with ExitStack() as opened:
        if address == LOCAL:
            address = opened.enter_context(LocalCluster(dashboard_address=None)).scheduler_address
        try:
            client = opened.enter_context(Client(address, timeout=timeout_seconds, set_as_default=False))
            client.wait_for_workers(1, timeout=timeout_seconds)
        except (OSError, ValueError) as error:
            cure = "Start `dask scheduler` and `dask worker`, and give the address that the first one logs"
            raise Unavailable(f"{address}: no Dask cluster with workers answers: {error}. {cure}") from error
        yield client
