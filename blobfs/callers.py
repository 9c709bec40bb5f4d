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
    """While it is entered, what this thread does may be given up when those who want it are gone.

    Only for what changes nothing. Not `contextmanager`, which costs four times as much for each call.
    """

    is_on = False

    def __enter__(self) -> None:
        self.is_on = True

    def __exit__(self, *_exception: object) -> None:
        self.is_on = False


class Callers(Waits):
    """Finds out about the process on whose behalf a thread works, if it does for one that may leave.

    Both functions are called by threads that serve a call.
    """

    def __init__(self, thread_id_of_caller: Callable[[], int], is_unmounted: Callable[[], bool]) -> None:
        self._thread_id_of_caller = thread_id_of_caller
        self._is_unmounted = is_unmounted
        self.may_leave = MayLeave()
        self._all_may_leave = MayLeave()
        self._are_gone = False

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

    def work_for_all(self) -> None:
        """Have what this thread does from now on given up when the mount is gone. It serves no call."""
        self._all_may_leave.is_on = True

    def dismiss(self) -> None:
        """Note that the mount is gone, and nobody asks any more."""
        self._are_gone = True

    def check(self) -> None:
        """Raise Abandoned if the caller is being killed, or the mount is gone. Reads one file of /proc."""
        if self._all_may_leave.is_on and self._are_gone:
            raise Abandoned("the mount is gone")
        if not self.may_leave.is_on:
            return
        if proc.is_dying(self._task()):
            raise Abandoned("the process that asked is being killed")
        if self._is_unmounted():  # the kernel had read ahead for a process that is gone
            raise Abandoned("the mount is gone")

    def _task(self) -> Path:
        return proc.task_of(self._thread_id_of_caller())
