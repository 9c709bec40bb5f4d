"""What the workers of a Dask cluster have for a copy, and do for it. Run by them."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from distributed import WorkerPlugin, get_worker
from distributed.worker import Worker

from blobfs.copies import session
from blobfs.copy_session import Route
from blobfs.copying.entries import Entry, Work
from blobfs.copying.interruption import Interruption
from blobfs.copying.report import FAILURES, Outcome, Report, Unwatched, Verdict
from blobfs.errors import Abandoned, Unavailable
from blobfs.settings import SessionSettings

TOLD_EVERY_SECONDS = 0.5  # by each thread: a bar shows no more, and the scheduler keeps what it is told


def dask_setup(_worker: Worker) -> None:
    """Called by Dask in the workers of `--scheduler local`: the command ends them, and Ctrl-C must not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a worker gives: a failure is no error of the task, which the worker would log with its trace."""

    value: object = None
    failure: Exception | None = None


def run_on_worker(name: str, method: str, *arguments: object) -> TaskResult:
    """Run by a worker: do something with what it has for this copy."""
    own = get_worker().plugins.get(name)
    if not isinstance(own, WorkerSession):
        return TaskResult(failure=Abandoned("the copy is over"))
    try:
        with own.use():
            return TaskResult(getattr(own, method)(*arguments))
    except FAILURES as failure:
        return TaskResult(failure=failure)


class WorkerSession(WorkerPlugin):
    """What one worker has for a copy: a session, opened by itself."""

    def __init__(self, name: str, settings: SessionSettings) -> None:
        self.name = name
        self._settings = settings

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker, also in those that come later. Raises Unavailable that names it."""
        self._closing = ExitStack()
        self._uses = UseCount()
        self.interruption = Interruption()
        self._moved = MovedBytes(lambda target, size_bytes: worker.log_event(self.name, [target, size_bytes]))
        opened = session(self._settings, Report(self._moved), self.interruption)
        try:
            self.session = self._closing.enter_context(opened)
        except FAILURES as failure:
            raise Unavailable(f"the worker {worker.address}: {failure}") from failure
        self._places = threading.BoundedSemaphore(self.session.uploads_at_once)

    async def teardown(self, worker: Worker) -> None:
        """Called by Dask when the copy is over, or the worker ends: when nothing is under way any more."""
        self.interruption.set()
        await asyncio.to_thread(self._uses.end)
        self._closing.close()

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the session open. Raises Abandoned when it no longer is."""
        with self._uses.one():
            self.interruption.check()
            yield

    def copy(self, route: Route, work: Work) -> Outcome:
        """Copy one entry. A worker that was lost may have done so already, and not have said it."""
        with self._places, self._moved.of(work.target):
            outcome = self.session.carrier(route).copy(work)
            if outcome.verdict is Verdict.FAILED and self._has_landed(route, work):
                return Outcome(Verdict.COPIED, work.origin, work.target, work.source.size_bytes)
        return outcome

    def _has_landed(self, route: Route, work: Work) -> bool:
        """Tell whether it is there all the same; if that cannot be found out, the failure counts."""
        try:
            return self.session.has_landed(route, work)
        except Abandoned:
            raise
        except FAILURES:
            return False

    def stage(self, route: Route, work: Work, spans: Sequence[range]) -> None:
        """Move stretches of a file ahead of who copies it. Raises Failure, OSError."""
        with self._places, self._moved.of(work.target):
            self.session.stage(route, work, spans)

    def list_source(self, route: Route, part: str) -> list[Entry]:
        """List a part of the source. Raises Failure."""
        return list(self.session.source_tree(route).part(part))

    def list_target(self, route: Route, part: str) -> list[Entry]:
        """List a part of the target. Raises Failure."""
        return list(self.session.target_tree(route).part(part))


class UseCount:
    """Who is using something that is to be closed once nobody does. Safe to use from many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the field below
        self._count = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count as one as long as it lasts."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def end(self) -> None:
        """Wait until there are none."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count)

    def _add(self, count: int) -> None:
        with self._changed:
            self._count += count
            self._changed.notify_all()


class MovedBytes(threading.local, Unwatched):
    """The bytes that each thread has moved of its file, told now and then."""

    def __init__(self, tell: Callable[[str, int], None]) -> None:
        """Called in each thread that uses it."""
        self._tell = tell
        self._target = ""
        self._untold_bytes = 0
        self._told_at = 0.0

    @contextmanager
    def of(self, target: str) -> Iterator[None]:
        """Have what moves be of this file."""
        self._target, self._told_at = target, time.monotonic()
        try:
            yield
        finally:
            self._tell_now()

    def moved(self, size_bytes: int) -> None:
        """See `Watcher.moved`."""
        self._untold_bytes += size_bytes
        if time.monotonic() - self._told_at >= TOLD_EVERY_SECONDS:
            self._tell_now()

    def _tell_now(self) -> None:
        if self._untold_bytes:
            self._tell(self._target, self._untold_bytes)
        self._untold_bytes, self._told_at = 0, time.monotonic()
