"""The threads that copy and delete, each one piece of work at a time."""

import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Generic, TypeVar

from blobfs.copying.interruption import Interruption

Item = TypeVar("Item")

WAITING_PER_THREAD = 4  # planned ahead of the threads; more would only be memory


class Workers(Generic[Item]):
    """Calls `perform` for whatever is submitted, at most so many at once. For one submitting thread.

    After an error in the `with` block, what still waits is not begun. Whatever `perform` raises is a bug:
    it ends all, and is raised at the end of the block.
    """

    def __init__(self, perform: Callable[[Item], None], interruption: Interruption, *, count: int) -> None:
        self._perform = perform
        self._interruption = interruption
        self._waiting: queue.Queue[Item | None] = queue.Queue(count * WAITING_PER_THREAD)
        self._bug: BaseException | None = None
        self._threads = [threading.Thread(target=self._work, name=f"blobfs-copy-{n}") for n in range(count)]

    def __enter__(self) -> "Workers[Item]":
        with ExitStack() as undoing:  # Ctrl-C must leave no thread waiting
            undoing.callback(self._abandon)
            for thread in self._threads:
                thread.start()
            undoing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon()
        else:
            self._dismiss()
        for thread in self._threads:
            thread.join()
        if self._bug is not None:
            raise self._bug

    def submit(self, work: Item) -> None:
        """Have it done. Waits while too much is waiting."""
        self._waiting.put(work)

    def drain(self) -> None:
        """Wait until everything submitted is done."""
        self._waiting.join()

    def _abandon(self) -> None:
        """Have all threads end. Never waits: a second Ctrl-C would then leave them without their end."""
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._dismiss()
        self._interruption.set()

    def _dismiss(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            if not self._interruption.is_set:
                self._do(work)
            self._waiting.task_done()

    def _do(self, work: Item) -> None:
        try:
            self._perform(work)
        except BaseException as bug:  # raised again by `__exit__`; the queue must go on being emptied
            self._bug = bug
            self._interruption.set()
