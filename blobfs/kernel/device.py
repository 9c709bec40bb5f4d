"""The descriptor by which a mount is served (fuse(4)), and what the kernel says by it."""

import os
import select
from functools import cache
from pathlib import Path


def is_unmounted() -> bool:
    """Tell whether the kernel asks nothing any more. For threads that serve a call, which keeps it open."""
    poll = select.poll()
    poll.register(_descriptor(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))  # fuse_dev_poll in fs/fuse/dev.c


@cache
def _descriptor() -> int:
    """Return the one that libfuse has opened, or was given by fusermount."""
    numbers = Path("/proc/self/fd")
    return next(int(number.name) for number in numbers.iterdir() if os.readlink(number) == "/dev/fuse")
