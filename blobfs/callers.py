"""The process that waits for an answer, and whether it still does.

A process that is killed cannot go before the kernel has the answer of a request that the mount
has begun. No signal tells us safely: the kernel reports any signal (FUSE_INTERRUPT), and a read
that failed for a mere SIGALRM would break programs. So slow waits look whether SIGKILL is pending
in the caller, as it is for every signal that ends a process: the kernel spreads those as SIGKILL
(complete_signal in kernel/signal.c; SigPnd in proc(5)).
"""

import threading
from collections.abc import Callable
from pathlib import Path

from blobfs import proc
from blobfs.errors import Abandoned
from blobfs.waits import Waits


class MayLeave(threading.local):
    """While it is entered, what this thread does may be given up when the caller is killed.

    Only for what changes nothing. Not `contextmanager`, which costs four times as much for each call.
    """

    is_on = False

    def __enter__(self) -> None:
        self.is_on = True

    def __exit__(self, *_exception: object) -> None:
        self.is_on = False


class Callers(Waits):
    """Finds out about the process on whose behalf a thread works, if it does for one that may leave."""

    def __init__(self, thread_id_of_caller: Callable[[], int]) -> None:
        self._thread_id_of_caller = thread_id_of_caller
        self.may_leave = MayLeave()

    def thread_id(self) -> int:
        """Return the kernel's number of the caller's thread, 0 if it is unknown."""
        return self._thread_id_of_caller()

    def program(self) -> str:
        """Return the name of the program that asked, as ps(1) shows it; empty if it is unknown."""
        return proc.program(self._task())

    def is_opening_to_read(self) -> bool:
        """Tell whether the caller's thread is inside an open(2) of a file for reading.

        False where that is not to be known: it takes the right to trace the process (ptrace(2)).
        """
        return proc.is_opening_to_read(self._task())

    def check(self) -> None:
        """Raise Abandoned if the caller is being killed. Reads one file of /proc."""
        if self.may_leave.is_on and proc.is_dying(self._task()):
            raise Abandoned("the process that asked is being killed")

    def _task(self) -> Path:
        return proc.task_of(self._thread_id_of_caller())
