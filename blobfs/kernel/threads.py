"""libfuse's threads, as Python sees them."""

import ctypes
import threading

_PYTHON = ctypes.pythonapi
_PYTHON.PyThreadState_Get.restype = ctypes.c_void_p
_LIBC = ctypes.CDLL(None)


class _This(threading.local):
    """What is known of the thread that asks."""

    is_kept = False


_this = _This()


def keep_thread() -> None:
    """Have Python keep its state of the thread that runs this callback until the thread ends.

    Left to itself, it makes the state of a thread that is not its own anew for each callback, and that
    takes longer than most callbacks do. https://docs.python.org/3/c-api/init.html: "PyGILState_Ensure".
    """
    if not _this.is_kept:
        _PYTHON.PyGILState_Ensure()  # once more than it is released
        _LIBC.pthread_setspecific(_key, ctypes.c_void_p(_PYTHON.PyThreadState_Get()))
        _this.is_kept = True


def _forget(state: int) -> None:
    """Called in a thread that ends, of which Python may not know any more that it has a state already."""
    if state == _PYTHON.PyThreadState_Get():
        _PYTHON.PyGILState_Release(0)  # PyGILState_LOCKED: the rest goes with the end of this callback
    else:
        _PYTHON.PyThreadState_Clear(ctypes.c_void_p(state))
        _PYTHON.PyThreadState_Delete(ctypes.c_void_p(state))


_c_forget = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_forget)
_key = ctypes.c_uint()  # a pthread_key_t, by <bits/pthreadtypes.h>
if _LIBC.pthread_key_create(ctypes.byref(_key), _c_forget):
    raise ImportError("the system has no keys left for the data of threads")
