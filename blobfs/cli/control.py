"""How a command talks to a mount that is served elsewhere: extended attributes of its root."""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATUS = "user.blobfs.status"
SYNC = "user.blobfs.sync"
RECEIPT = "user.blobfs.receipt"

NOT_FAILED = ("still open", "closed, on its way")  # the mount's words for what is uncommitted without trouble

# What an error of the commit means here; README.md, "When something goes wrong".
CAUSES = {
    errno.EIO: "the service cannot be reached or fails; the mount's log says how",
    errno.ETIMEDOUT: "the service does not answer in time; the mount's log says more",
    errno.EACCES: "the service refuses the credential; the mount's log says why",
}


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
    uncommitted_count: int  # more than are listed if they are many


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
    count = status["uncommitted_count"]
    return MountStatus(status["pid"], status["account"], status["container"], uncommitted, count)


def lines_of(status: MountStatus, cause: str = "") -> list[str]:
    """Say for each uncommitted file why it is that: if it has not failed, the `cause` of just now."""
    lines = [f"{file.path}: {_reason(file.reason, cause)}" for file in status.uncommitted]
    if unlisted := status.uncommitted_count - len(lines):
        lines.append(f"and {unlisted} more")
    return lines


def _reason(reason: str, cause: str) -> str:
    return f"{reason}; {cause}" if cause and reason in NOT_FAILED else reason


def commit_all_below(path: Path) -> None:
    """Have the mount commit all files there, open ones too. Blocks. Raises OSError if one cannot be."""
    try:
        os.setxattr(path, SYNC, b"", follow_symlinks=False)
    except OSError as error:
        # A read-only mount has nothing to commit.
        if error.errno != errno.EROFS:
            raise


def cause_of(error: OSError) -> str:
    """Say in words why a commit failed."""
    return CAUSES.get(error.errno or 0) or os.strerror(error.errno or errno.EIO)


def read_receipt(path: Path) -> dict[str, Any]:
    """Return what the service has acknowledged of a file. Raises OSError: ENODATA if not all of it."""
    receipt: dict[str, Any] = json.loads(os.getxattr(path, RECEIPT))
    return receipt
