"""Pools of threads in which requests and other work go on beside the call that wants them; and a timer.

They start in `start`, after the process has forked for the last time: one of each pool, others when they
are wanted. While the machine gives no more, tasks wait for those that are there. A mount has others too:
the kernel's, which call it, that of `kernel.notifier` and that of `metrics`. Copies have `copying.workers`.

A task waits for none that is still queued, but for writes, which wait for none: so no pool can deadlock.
Each pool has a budget of its own, so uploads cannot starve a reader, nor the rename of a large directory,
or the commits that a sync asks for, a task that has a time.
"""

import heapq
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeAlias, TypeVar

from blobfs.errors import Failure, failure_of

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Item = TypeVar("Item")
Parameters = ParamSpec("Parameters")
Transfer: TypeAlias = Future[Any]
_Task: TypeAlias = tuple[Future[Any], Callable[[], Any]]


class Pool:
    """Up to so many threads, each of which starts when a task finds none that is free.

    While the machine gives no more (ulimit -u), tasks wait for those that are there. A ThreadPoolExecutor
    raises then, although it has queued the task; and up to Python 3.11 it counts a thread that is not there
    as free for each such task, and from then on starts too few.
    """

    def __init__(self, size: int, name: str, begin: Callable[[], None] | None = None) -> None:
        self._size = size
        self._name = name
        self._begin = begin  # what each thread does first
        self._waiting: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()  # None: the end
        self._lock = threading.Lock()  # guards the three fields below
        self._threads: list[threading.Thread] = []
        self._unfinished_count = 0  # tasks that wait or are under way
        self._is_closed = False

    def start(self) -> None:
        """Start the first thread. Raises RuntimeError if there is none to be had."""
        with self._lock:
            self._add_thread()

    def submit(
        self, task: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> "Future[Result]":
        """Run a task in one of the threads, in its turn. Raises RuntimeError after `close`."""
        future: Future[Result] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"{self._name} is closed")
            self._unfinished_count += 1
            self._waiting.put((future, partial(task, *args, **kwargs)))
            if len(self._threads) < min(self._unfinished_count, self._size):
                with suppress(RuntimeError):  # the next task tries again
                    self._add_thread()
        return future

    def close(self, *, gives_up: bool) -> None:
        """Wait for all tasks, or give up those that still wait, and end the threads."""
        with self._lock:
            self._is_closed = True
        with suppress(queue.Empty):
            while gives_up:
                if (waiting := self._waiting.get_nowait()) is not None:
                    waiting[0].cancel()
        self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _add_thread(self) -> None:
        name = f"{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        if self._begin is not None:
            self._begin()
        while (waiting := self._waiting.get()) is not None:
            _run(*waiting)
            del waiting  # an idle thread keeps no buffers
            with self._lock:
                self._unfinished_count -= 1
        self._waiting.put(None)  # for the next thread, even one whose start Ctrl-C has interrupted


class Transfers:
    """Named thread pools, by what they are for.

    read: downloads, and questions asked ahead; write: uploads, and the checksums that they need; batch: what
    one call does to many blobs or files; background: commits and deletions that no call waits for; due:
    the same, when their time has come; disk: the local disk. Threads of the first begin with `begin_read`.
    """

    def __init__(self, *, reads: int, writes: int, begin_read: Callable[[], None] | None = None) -> None:
        self._sizes = {
            "read": reads,
            "write": writes,
            "batch": writes,
            "background": writes,
            "due": writes,
            "disk": 1,
        }
        self._begin = {"read": begin_read}
        self._pools: dict[str, Pool] = {}
        self._changed = threading.Condition()  # guards the three fields below
        self._due: list[tuple[float, int, Callable[[], None]]] = []  # a heap, by time and order
        self._order = itertools.count()
        self._is_closing = False
        self._timer = threading.Thread(target=self._run_due, name="blobfs-timer", daemon=True)

    def start(self) -> None:
        """Make the pools. Nothing may be submitted before. Raises RuntimeError if there are no threads."""
        for name, size in self._sizes.items():
            self._pools[name] = Pool(size, f"blobfs-{name}", self._begin.get(name))
            self._pools[name].start()
        self._timer.start()

    def submit_read(
        self, task: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> "Future[Result]":
        """Run a download in the background."""
        return self._pools["read"].submit(task, *args, **kwargs)

    def submit_write(
        self, task: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> "Future[Result]":
        """Run an upload in the background."""
        return self._pools["write"].submit(task, *args, **kwargs)

    def submit_disk(
        self, task: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> "Future[Result]":
        """Run something on the local disk in the background, after all that was submitted before."""
        return self._pools["disk"].submit(task, *args, **kwargs)

    def for_each(self, task: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Run `task` on all items side by side and return the results in order.

        All tasks run to their end; then the first failure, if any, is raised. Not to be
        called from a task.
        """
        futures = [self._pools["batch"].submit(task, item) for item in items]
        for future in futures:
            future.exception()
        return [future.result() for future in futures]

    def failures_of_each(self, task: Callable[[Item], object], items: Iterable[Item]) -> list[Failure]:
        """Run `task` on all items side by side and return the failures, in order.

        All tasks run to their end; then the first exception that is no Failure, if any, is
        raised. Not to be called from a task.
        """
        return [failure for failure in self.for_each(partial(failure_of, task), items) if failure is not None]

    def shares(self, items: Sequence[Item], most: int) -> list[Sequence[Item]]:
        """Cut items into equal shares, one for each thread of `for_each` or more, of `most` items at most."""
        size = min(most, math.ceil(len(items) / self._sizes["batch"])) or 1
        return [items[start : start + size] for start in range(0, len(items), size)]

    def run_in_background(self, task: Callable[[], None]) -> None:
        """Run `task` once, as soon as a thread is free; not at all if blobfs ends before.

        It may wait for writes. An exception is logged.
        """
        self._pools["background"].submit(_logged, task)

    def run_after(self, seconds: float, task: Callable[[], None]) -> None:
        """Like `run_in_background`, but not before so many seconds are over."""
        with self._changed:
            entry = (time.monotonic() + seconds, next(self._order), task)
            heapq.heappush(self._due, entry)
            if self._due[0] is entry:  # otherwise the timer wakes up early enough
                self._changed.notify()

    def close(self) -> None:
        """Wait for what is under way, and for the local disk, and end the threads."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        for name, pool in self._pools.items():
            pool.close(gives_up=name != "disk")
        if self._timer.is_alive():
            self._timer.join()

    def _run_due(self) -> None:
        """Hand each task that is due to the pool for that."""
        with self._changed:
            while not self._is_closing:
                wait_seconds = self._due[0][0] - time.monotonic() if self._due else None
                if wait_seconds is None or wait_seconds > 0:
                    self._changed.wait(wait_seconds)
                else:
                    self._pools["due"].submit(_logged, heapq.heappop(self._due)[2])


def _run(future: Transfer, call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # not swallowed: raised again for whoever asks for the result
        future.set_exception(error)
        del future, call  # or they, the traceback and this frame would hold each other
    else:
        future.set_result(result)


def _logged(task: Callable[[], None]) -> None:
    try:
        task()
    except Exception:  # not swallowed: logged, because nobody asks for the result
        logger.exception("a task in the background failed")
