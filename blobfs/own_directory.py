"""Directories on this machine in which nobody else may do certain things."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from blobfs.errors import InvalidArgument


def make_own(path: Path, purpose: str, *, forbidden_bits: int, parents: bool = False) -> Path:
    """Make a directory for its owner alone, unless there is one, with its parents if so asked; return it.

    Raises InvalidArgument as `require_own` does.
    """
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=parents)
    except OSError as error:
        raise InvalidArgument(f"{purpose} directory {path}: {error.strerror}") from error
    return require_own(path, purpose, forbidden_bits=forbidden_bits)


def require_own(path: Path, purpose: str, *, forbidden_bits: int) -> Path:
    """Return a directory. Raises InvalidArgument unless it is there and ours, without these permissions.

    The message names the cure, and the directory by its purpose.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidArgument(f"{purpose} directory {path}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidArgument(
            f"{purpose} directory {path} is no directory; name one, or a path for a new one"
        )
    if status.st_uid != os.geteuid():
        raise InvalidArgument(
            f"{purpose} directory {path} belongs to another user, {status.st_uid}; name one of your own"
        )
    if status.st_mode & forbidden_bits:
        allowed_bits = 0o700 | status.st_mode & 0o777 & ~forbidden_bits
        raise InvalidArgument(
            f"{purpose} directory {path} is open to others; run: chmod {allowed_bits:o} {path}"
        )
    return path
