"""How many addresses this process reserves for its threads. ulimit -v, and h_vmem of Grid Engine, limit them.

Hardly any of what is reserved is ever touched. But by default each thread has a stack of 8 MiB and, up to
eight threads for each processor, 64 MiB or more for malloc(3).
"""

import ctypes
import os
import threading

from blobfs.blocks import MiB

RESERVED_BYTES = 512 * MiB  # at most, for the program, its libraries, and all threads; measured: 350
STACK_BYTES = 1 * MiB
MALLOC_ARENAS = 2  # the interpreter's lock has threads take turns at malloc anyway

_M_ARENA_MAX = -8  # <malloc.h> of glibc; see mallopt(3)


def reserve_little() -> None:
    """Have threads that are started from now on reserve little. What the user set for malloc stays."""
    threading.stack_size(STACK_BYTES)
    os.environ.setdefault("FUSE_THREAD_STACK", str(STACK_BYTES))  # for libfuse, which starts its own
    libc = ctypes.CDLL(None)
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(libc, "mallopt"):  # musl has no arenas
        libc.mallopt(_M_ARENA_MAX, MALLOC_ARENAS)
