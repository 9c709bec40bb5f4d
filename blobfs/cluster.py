"""A copy by the workers of a Dask cluster: they list and move bytes, and this process plans and reports.

What travels is where things are and what is wanted, never a secret: each worker opens the service
with its own files and environment.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, LocalCluster

from blobfs import cluster_worker
from blobfs.cluster_worker import TaskResult, WorkerSession, run_on_worker
from blobfs.copy_session import Route, Session
from blobfs.copying.carrying import Carrier
from blobfs.copying.entries import Entry, Work
from blobfs.copying.plan import Step, step_for
from blobfs.copying.report import FAILURES, Outcome, Verdict, reason_of
from blobfs.copying.trees import PartedTree, Tree
from blobfs.errors import Abandoned, Failure, Unavailable

LOCAL = "local"  # instead of an address: a cluster of processes on this machine, for this copy
STAGED_BLOCKS = 8  # by one task: at 8 MiB a second or so of work, and little to do again if it is lost
LISTED_AHEAD = 32  # parts of a tree
MAX_LOST_WORKERS = 5  # workers in a row that end while they have the same to do
POLL_SECONDS = 0.5  # how soon an interruption is noticed


class FileProgress:
    """How much of each file has moved, by whomever: never more than there is of it. Thread-safe."""

    def __init__(self, moved: Callable[[int], None]) -> None:
        self._moved = moved
        self._lock = threading.Lock()  # guards the map
        self._left_bytes: dict[str, int] = {}

    def begin(self, work: Work) -> None:
        """Expect the bytes of a file."""
        with self._lock:
            self._left_bytes[work.target] = work.source.size_bytes

    def note(self, target: str, size_bytes: int) -> None:
        """Take note that so many bytes of the file there have moved, perhaps once more."""
        with self._lock:
            left_bytes = self._left_bytes.get(target, 0)
            new_bytes = min(size_bytes, left_bytes)
            if new_bytes:
                self._left_bytes[target] = left_bytes - new_bytes
        if new_bytes:
            self._moved(new_bytes)

    def end(self, work: Work, *, was_copied: bool) -> None:
        """Take note that no more of it will move."""
        if was_copied:
            self.note(work.target, work.source.size_bytes)
        with self._lock:
            self._left_bytes.pop(work.target, None)  # two sources may have one target, and one of them fails


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker was asked to do, and its answer once there is one."""

    method: str  # of a worker's session
    arguments: tuple[object, ...]
    answer: "Future[TaskResult]"


class DaskCluster:
    """The workers, as the `Cluster` of a copy. Safe to use from many threads."""

    def __init__(self, client: Client, name: str, session: Session) -> None:
        self._client = client
        self._name = name
        self.session = session
        self.progress = FileProgress(session.meter.note)

    def source_tree(self, route: Route, tree: PartedTree) -> Tree:
        """See `Cluster.source_tree`."""
        return tree if self._has_loops else SpreadTree(tree, self, "list_source", route)

    def target_tree(self, route: Route, tree: PartedTree) -> Tree:
        """See `Cluster.target_tree`."""
        return tree if self._has_loops else SpreadTree(tree, self, "list_target", route)

    def carrier(self, route: Route, local: Carrier) -> Carrier:
        """See `Cluster.carrier`."""
        return ClusterCarrier(self, route, local)

    def submit(self, method: str, *arguments: object) -> Task:
        """Have a worker do something, another one if that is lost."""
        answer = self._client.submit(run_on_worker, self._name, method, *arguments, pure=False)
        return Task(method, arguments, answer)

    def result(self, task: Task) -> Any:
        """Wait for what a worker gives. Raises what it raises, Abandoned, Unavailable."""
        for _ in range(MAX_LOST_WORKERS):
            answer = self._wait(task.answer)
            if answer.failure is None:
                return answer.value
            if not isinstance(answer.failure, Abandoned):
                raise answer.failure
            self.session.interruption.check()
            task = self.submit(task.method, *task.arguments)  # that worker was about to end
        raise Unavailable("the cluster gave it up: one worker after the other ended")

    def _wait(self, answer: "Future[TaskResult]") -> TaskResult:
        is_done = threading.Event()
        answer.add_done_callback(lambda _: is_done.set())
        while not is_done.wait(POLL_SECONDS):
            self.session.interruption.check()  # Dask drops what nobody waits for
        try:
            return answer.result()
        except (KilledWorker, CancelledError) as error:
            raise Unavailable(f"the cluster gave it up: {error}") from error

    @property
    def _has_loops(self) -> bool:
        """Links that lead back up are only noticed by who lists all of it."""
        return self.session.settings.copy.symlinks == "follow"


@dataclass(frozen=True, slots=True)
class SpreadTree:
    """A tree of which each part is listed by a worker."""

    tree: PartedTree
    cluster: DaskCluster
    method: str  # of a worker's session, that lists
    route: Route

    def root(self) -> Entry | None:
        """See `Tree.root`."""
        return self.tree.root()

    def entries(self) -> Iterator[Entry]:
        """See `Tree.entries`."""
        entries, parts = self.tree.level()
        yield from entries
        waiting, under_way = deque(parts), deque[Task]()
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

    def remove_files(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See `Tree.remove_files`."""
        return self.tree.remove_files(entries)


@dataclass(frozen=True, slots=True)
class ClusterCarrier:
    """Has workers copy: each entry one of them, a large file's blocks several. See `Carrier`."""

    cluster: DaskCluster
    route: Route
    local: Carrier

    def is_late(self, entry: Entry) -> bool:
        """See `Carrier.is_late`."""
        return self.local.is_late(entry)

    def prepare(self, work: Work) -> None:
        """See `Carrier.prepare`: by this process."""
        self.local.prepare(work)

    def copy(self, work: Work) -> Outcome:
        """See `Carrier.copy`."""
        was_copied = False
        self.cluster.progress.begin(work)
        try:
            self._stage(work)
            outcome: Outcome = self.cluster.result(self.cluster.submit("copy", self.route, work))
            was_copied = outcome.verdict is Verdict.COPIED and not self.cluster.session.settings.copy.dry_run
        except Abandoned:
            raise
        except FAILURES as failure:
            return Outcome(Verdict.FAILED, work.origin, work.target, reason=reason_of(failure))
        finally:
            self.cluster.progress.end(work, was_copied=was_copied)
        return outcome

    def copy_late(self, work: Work) -> Outcome:
        """See `Carrier.copy_late`: links and directories, by this process."""
        return self.local.copy_late(work)

    def _stage(self, work: Work) -> None:
        """Have a large file's blocks moved. One that is not, for whatever reason, is left to who finishes."""
        with suppress(Failure, OSError):
            spans = self._spans(work)
            starts = range(0, len(spans), STAGED_BLOCKS) if len(spans) > STAGED_BLOCKS else ()
            parts = [spans[start : start + STAGED_BLOCKS] for start in starts]
            for task in [self.cluster.submit("stage", self.route, work, part) for part in parts]:
                with suppress(Failure, OSError):
                    self.cluster.result(task)

    def _spans(self, work: Work) -> Sequence[range]:
        session = self.cluster.session
        is_wanted = step_for(work.source, work.replaces, session.rules()) is Step.COPY
        return session.parts(self.route, work) if is_wanted and not session.settings.copy.dry_run else ()


@contextmanager
def cluster(address: str, session: Session) -> Iterator[DaskCluster]:
    """Give the workers of the cluster at an address, or of a `LOCAL` one. Blocks.

    Raises Unavailable if there is none, it has no workers, or one of them cannot open a session.
    """
    name = f"blobfs-{uuid4().hex}"
    with _client(address, session.settings.service.retry.total_seconds) as client:
        workers = DaskCluster(client, name, session)

        def note(event: tuple[float, tuple[str, int]]) -> None:
            with suppress(Abandoned):  # who waits for the answers hears of it
                workers.progress.note(*event[1])

        client.subscribe_topic(name, note)
        client.register_plugin(WorkerSession(name, session.settings), name=name)
        try:
            yield workers
        finally:
            client.unregister_worker_plugin(name)
            client.unsubscribe_topic(name)


@contextmanager
def _client(address: str, timeout_seconds: float) -> Iterator[Client]:
    with ExitStack() as opened:
        if address == LOCAL:
            own = LocalCluster(dashboard_address="127.0.0.1:0", preload=[cluster_worker.__name__])
            address = opened.enter_context(own).scheduler_address
        try:
            client = opened.enter_context(Client(address, timeout=timeout_seconds, set_as_default=False))
            client.wait_for_workers(1, timeout=timeout_seconds)
        except (OSError, ValueError) as error:
            cure = "Start `dask scheduler` and `dask worker`, and give the address that the first one logs"
            raise Unavailable(f"{address}: no Dask cluster with workers answers: {error}. {cure}") from error
        yield client
