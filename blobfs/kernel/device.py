"""The descriptor by which a mount is served (fuse(4)), and what the kernel says by it."""

import os
import select
import stat
from contextlib import suppress
from functools import cache

FUSE = os.makedev(10, 229)  # MISC_MAJOR and FUSE_MINOR in the kernel's headers


def is_unmounted() -> bool:
    """Tell whether the kernel asks nothing any more. For threads that serve a call, which keeps it open."""
    poll = select.poll()
    poll.register(_descriptor(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))  # fuse_dev_poll in fs/fuse/dev.c


@cache
def _descriptor() -> int:
    """Return the one that libfuse has opened, or was given by fusermount."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # closed since
            status = os.fstat(number)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == FUSE:
                return number
    raise LookupError("nothing is served")
