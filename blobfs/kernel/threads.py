"""libfuse's threads, as Python sees them."""

import ctypes
import threading


class _This(threading.local):
    """What is known of the thread that asks."""

    is_kept = False


_this = _This()


def keep_thread() -> None:
    """Have Python keep its state of the thread that runs this callback, for ever: some 20 KB.

    Left to itself, it makes the state of a thread that is not its own anew for each callback, and that
    takes longer than most callbacks do. https://docs.python.org/3/c-api/init.html: "PyGILState_Ensure".
    """
    if not _this.is_kept:
        ctypes.pythonapi.PyGILState_Ensure()  # once more than it is released
        _this.is_kept = True
