"""How a command talks to a mount that is served elsewhere: extended attributes of its root."""

import errno
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blobfs.errors import Incomplete

STATUS = "user.blobfs.status"
SYNC = "user.blobfs.sync"
RECEIPT = "user.blobfs.receipt"
CACHED = "user.blobfs.cached"
WARM = "user.blobfs.warm"

ANSWER_SECONDS = 5.0  # a mount answers from memory; one that takes longer is stuck

# What an error of the commit means here; README.md, "When something goes wrong".
CAUSES = {
    errno.EIO: "the service cannot be reached or fails; the mount's log says how",
    errno.ETIMEDOUT: "the service does not answer in time; the mount's log says more",
    errno.EACCES: "the service refuses the credential; the mount's log says why",
}


@dataclass(frozen=True, slots=True)
class UncommittedFile:
    """A file with bytes that the service does not have, and why."""

    path: str
    reason: str
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class MountStatus:
    """What a mount says of itself."""

    pid: int
    account: str
    container: str
    uncommitted: Sequence[UncommittedFile]
    unnamed_count: int = 0  # of uncommitted files for whose names the answer had no room

    @property
    def rest(self) -> list[str]:
        """A line about those that are not named, if there are any."""
        return [f"and {self.unnamed_count} more"] if self.unnamed_count else []


def read_facts(mountpoint: Path) -> dict[str, Any] | None:
    """Return everything that the mount says of itself; None if there is no blobfs mounted here.

    Raises OSError; `has_died` tells whether that is because the process behind the mount is dead.
    """
    try:
        facts: dict[str, Any] = json.loads(os.getxattr(mountpoint, STATUS))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise
    return facts


def read_facts_soon(mountpoint: Path) -> dict[str, Any] | None:
    """Like `read_facts`. Raises TimeoutError if the mount does not answer within ANSWER_SECONDS.

    It is asked in a thread of its own, which is left alone if the mount is stuck.
    """
    answers: list[dict[str, Any] | OSError | None] = []

    def ask() -> None:
        try:
            answers.append(read_facts(mountpoint))
        except OSError as error:
            answers.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    if not answers:
        raise TimeoutError
    if isinstance(answers[0], OSError):
        raise answers[0]
    return answers[0]


def read_status(mountpoint: Path) -> MountStatus | None:
    """Return what commands need to know of a mount, as `read_facts` does."""
    facts = read_facts(mountpoint)
    if facts is None:
        return None
    # The mount may be older.
    uncommitted = [
        UncommittedFile(entry["path"], entry["reason"], entry.get("has_failed", False))
        for entry in facts["uncommitted"]
    ]
    unnamed_count = facts.get("uncommitted_files", len(uncommitted)) - len(uncommitted)
    return MountStatus(facts["pid"], facts["account"], facts["container"], uncommitted, unnamed_count)


def has_died(error: OSError) -> bool:
    """Tell whether the process behind a mount is dead, from how a call to the mount failed."""
    return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)


def commit_all_below(path: Path) -> None:
    """Have the mount commit all files there, open ones too. Blocks. Raises OSError if one cannot be."""
    os.getxattr(path, SYNC, follow_symlinks=False)


def warm(path: Path, start: int, end: int) -> None:
    """Have the mount bring these bytes of a file into its cache. Blocks. Raises OSError."""
    os.getxattr(path, f"{WARM}.{start}-{end}", follow_symlinks=False)


def cached_bytes(path: Path) -> int:
    """Return how many bytes of a file are in its mount's cache.

    Raises OSError: ENODATA or EOPNOTSUPP if it is not in a mount of ours.
    """
    return int(os.getxattr(path, CACHED, follow_symlinks=False))


def cause_of(error: OSError) -> str:
    """Say in words why a commit failed."""
    return CAUSES.get(error.errno or 0) or os.strerror(error.errno or errno.EIO)


def named_uncommitted(status: MountStatus, below: str, cause: str) -> str:
    """Return a line for each file below a path of the mount that is uncommitted, and why; else the cause.

    The cause is of the attempt just made: it is all there is to say of a file that has not failed.
    """
    lines = [
        f"{file.path}: {f'{file.reason}; {cause}' if cause and not file.has_failed else file.reason}"
        for file in status.uncommitted
        if f"{file.path}/".startswith(below.rstrip("/") + "/")
    ]
    return "\n".join([*lines, *status.rest]) or cause


def read_receipt(path: Path) -> dict[str, Any]:
    """Return what the service has acknowledged of a file. Raises Incomplete if not all of it, OSError."""
    try:
        receipt: dict[str, Any] = json.loads(os.getxattr(path, RECEIPT))
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        raise Incomplete(
            f"{path}: not everything is committed. Close it, or run: blobfs sync {path}"
        ) from error
    return receipt
