"""How a command talks to a mount that is served elsewhere: extended attributes of its root."""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STATUS = "user.blobfs.status"
SYNC = "user.blobfs.sync"


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """A file with bytes that the service does not have, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class MountStatus:
    """What a mount says of itself."""

    pid: int
    account: str
    container: str
    uncommitted: Sequence[Uncommitted]


def read_status(mountpoint: Path) -> MountStatus | None:
    """Ask the mount; None if there is no blobfs mounted here.

    Raises OSError: ENOTCONN when the process behind the mount is dead.
    """
    try:
        status = json.loads(os.getxattr(mountpoint, STATUS))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise
    uncommitted = [Uncommitted(entry["path"], entry["reason"]) for entry in status["uncommitted"]]
    return MountStatus(status["pid"], status["account"], status["container"], uncommitted)


def commit_everything(mountpoint: Path) -> None:
    """Have the mount commit all files, open ones too. Blocks. Raises OSError if one cannot be committed."""
    try:
        os.setxattr(mountpoint, SYNC, b"")
    except OSError as error:
        # A read-only mount has nothing to commit.
        if error.errno != errno.EROFS:
            raise
