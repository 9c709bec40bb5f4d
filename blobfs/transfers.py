"""Pools of threads in which requests and other work go on beside the call that wants them; and a timer.

They start in `start`, after the process has forked for the last time. A mount has others too: the
kernel's, which call it, that of `kernel.notifier` and that of `metrics`. Copies have `copying.workers`.

A task waits for none that is still queued, but for writes, which wait for none: so no pool can deadlock.
Each pool has a budget of its own, so uploads cannot starve a reader, nor the rename of a large directory,
or the commits that a sync asks for, a task that has a time.
"""

import heapq
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeAlias, TypeVar

from blobfs.errors import Failure, failure_of

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Item = TypeVar("Item")
Parameters = ParamSpec("Parameters")
Transfer: TypeAlias = Future[Any]


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
        self._initializers = {"read": begin_read}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._changed = threading.Condition()  # guards the three fields below
        self._due: list[tuple[float, int, Callable[[], None]]] = []  # a heap, by time and order
        self._order = itertools.count()
        self._is_closing = False
        self._timer = threading.Thread(target=self._run_due, name="blobfs-timer", daemon=True)

    def start(self) -> None:
        """Make the pools. Nothing may be submitted before."""
        for name, size in self._sizes.items():
            self._pools[name] = ThreadPoolExecutor(
                size, thread_name_prefix=f"blobfs-{name}", initializer=self._initializers.get(name)
            )
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
            pool.shutdown(wait=True, cancel_futures=name != "disk")
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


def _logged(task: Callable[[], None]) -> None:
    try:
        task()
    except Exception:  # not swallowed: logged, because nobody asks for the result
        logger.exception("a task in the background failed")
