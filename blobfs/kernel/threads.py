"""libfuse's threads, as Python sees them."""

import ctypes
import threading


class _This(threading.local):
    """What is known of the thread that asks."""

    is_kept = False


_this = _This()


def keep_thread() -> None:
    """Make Python keep its state of the thread that runs this callback, for ever: some 20 KB.

    Otherwise Python makes that state anew for each callback in a thread that it has not started, which
    takes longer than most callbacks do. https://docs.python.org/3/c-api/init.html: "PyGILState_Ensure".
    """
    if not _this.is_kept:
        ctypes.pythonapi.PyGILState_Ensure()  # once more than it is released
        _this.is_kept = True
