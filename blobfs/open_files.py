"""How many files this process may have open: each connection is one, and each journal in a spool."""

import resource

from blobfs.errors import CannotRun

LEAST_FILES = 512  # connections, and a file of the spool for each that is open
USUAL_FILES = 4096


def raise_open_files() -> int:
    """Allow this process as many open files as the system lets it have; return how many (getrlimit(2))."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def require_open_files() -> None:
    """Allow this process the usual number of open files unless it has more already.

    Not as many as there may be: a mount closes all that it may have inherited. Raises CannotRun if there
    may be too few.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < LEAST_FILES:
        raise CannotRun(
            f"cannot mount: only {most} files may be open (ulimit -Hn), and a mount needs {LEAST_FILES}. "
            f"Have the limit of this login or job raised to {USUAL_FILES}."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed, min(most, USUAL_FILES)), most))
