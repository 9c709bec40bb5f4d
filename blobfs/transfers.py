"""The only threads of blobfs. They start in `start`, after the process has forked for the last time.

A task never waits for another task, so no pool can deadlock. Reads, writes and name
operations have budgets of their own, so uploads cannot starve a reader.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeAlias, TypeVar

Result = TypeVar("Result")
Item = TypeVar("Item")
Parameters = ParamSpec("Parameters")
Transfer: TypeAlias = Future[Any]


class Transfers:
    """Named thread pools: one for reads, one for writes, one for copies and deletes of names."""

    def __init__(self, *, reads: int, writes: int) -> None:
        self._sizes = {"read": reads, "write": writes, "name": writes}
        self._pools: dict[str, ThreadPoolExecutor] = {}

    def start(self) -> None:
        """Make the pools. Nothing may be submitted before."""
        for name, size in self._sizes.items():
            self._pools[name] = ThreadPoolExecutor(size, thread_name_prefix=f"blobfs-{name}")

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

    def for_each(self, task: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Run `task` on all items side by side and return the results in order.

        All tasks run to their end; then the first failure, if any, is raised. Not to be
        called from a task.
        """
        futures = [self._pools["name"].submit(task, item) for item in items]
        for future in futures:
            future.exception()
        return [future.result() for future in futures]

    def after(self, seconds: float, task: Callable[[], None]) -> None:
        """Run `task` once, some time from now."""
        timer = threading.Timer(seconds, task)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Wait for what is under way and end the threads."""
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
