"""The process that waits for an answer, and whether it still does.

A process that is killed cannot go before the kernel has the answer of a request that the mount
has begun. No signal tells us safely: the kernel reports any signal (FUSE_INTERRUPT), and a read
that failed for a mere SIGALRM would break programs. So slow waits look whether SIGKILL is pending
in the caller, as it is for every signal that ends a process: the kernel spreads those as SIGKILL
(complete_signal in kernel/signal.c; SigPnd in proc(5)).
"""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from blobfs.errors import Abandoned
from blobfs.waits import Waits

_SIGKILL_BIT = 1 << 8
_PENDING = re.compile(r"^SigPnd:\s*([0-9a-f]+)$", re.MULTILINE)

# The words of /proc/PID/syscall: the number of the call, then its arguments. Here: which word is the flags.
_FLAGS_OF_OPEN = {"x86_64": {"2": 2, "257": 3}, "aarch64": {"56": 3}}.get(os.uname().machine, {})
_NOT_TO_READ = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_DIRECTORY | os.O_PATH


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
        """Return the name of the program that asked, as ps(1) shows it; empty if it is unknown (proc(5))."""
        thread_id = self._thread_id_of_caller()
        try:
            with open(f"/proc/{thread_id}/comm", "rb", buffering=0) as file:
                return os.fsdecode(file.read()).rstrip("\n")
        except OSError:
            return ""

    def is_opening_to_read(self) -> bool:
        """Tell whether the caller's thread is inside an open(2) of a file for reading (proc(5): syscall).

        False where that is not to be known: it takes the right to trace the process (ptrace(2)).
        """
        try:
            call = Path(f"/proc/{self._thread_id_of_caller()}/syscall").read_text().split()
        except OSError:
            return False
        flags_place = _FLAGS_OF_OPEN.get(call[0])
        return flags_place is not None and not int(call[flags_place], 16) & _NOT_TO_READ

    def check(self) -> None:
        """Raise Abandoned if the caller is being killed. Reads one file of /proc."""
        if self.may_leave.is_on and _is_dying(self._thread_id_of_caller()):
            raise Abandoned("the process that asked is being killed")


def _is_dying(thread_id: int) -> bool:
    """Tell whether a thread has SIGKILL pending; not if it is gone, or in another world of processes."""
    try:
        status = Path(f"/proc/{thread_id}/status").read_text(errors="replace") if thread_id else ""
    except OSError:
        return False
    pending = _PENDING.search(status)
    return pending is not None and bool(int(pending[1], 16) & _SIGKILL_BIT)
