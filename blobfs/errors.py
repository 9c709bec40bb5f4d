"""Every failure blobfs names, and the errno each becomes at the kernel boundary.

Failures never derive from ``OSError``: the FUSE bindings read ``errno`` from
those, and an ``OSError`` without one turns into garbage in the application.
"""

import errno
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

T = TypeVar("T")


class Failure(Exception):
    """Something blobfs can explain. The message names the blob and, where there is one, the cure."""

    errno: ClassVar[int] = errno.EIO

    def __init__(self, message: str, *, is_reported: bool = False) -> None:
        super().__init__(message)
        self.is_reported = is_reported  # the log has it already, once for all callers that meet it
        self.may_be_done = False  # what was asked for: the service had the request, and did not answer


class NotFound(Failure):
    """No blob and no virtual directory has this name."""

    errno = errno.ENOENT


class AlreadyExists(Failure):
    """The name is taken, and the operation needed it free."""

    errno = errno.EEXIST


class NotADirectory(Failure):
    """A path component is a file."""

    errno = errno.ENOTDIR


class IsADirectory(Failure):
    """The operation is for files and the name is a directory."""

    errno = errno.EISDIR


class DirectoryNotEmpty(Failure):
    """The directory still has entries."""

    errno = errno.ENOTEMPTY


class InvalidName(Failure):
    """The name cannot be kept as a blob name and read back unchanged."""

    errno = errno.EINVAL


class InvalidArgument(Failure):
    """An argument other than a name makes no sense."""

    errno = errno.EINVAL


class NameTooLong(Failure):
    """A component is over 255 bytes, or the blob name over the service's limit."""

    errno = errno.ENAMETOOLONG


class AccessDenied(Failure):
    """The service refused the credential, or it lacks the permission."""

    errno = errno.EACCES


class NotPermitted(Failure):
    """The operation does not exist here (hard links), for any user."""

    errno = errno.EPERM


class ReadOnly(Failure):
    """The mount, or the credential behind it, is read-only."""

    errno = errno.EROFS


class Unsupported(Failure):
    """The blob's kind or the service does not offer this."""

    errno = errno.EOPNOTSUPP


class UnsupportedAttribute(Unsupported):
    """Extended attributes outside ``user.*`` are not kept; programs ask for them in passing."""

    errno = errno.EOPNOTSUPP


class Changed(Failure):
    """Another client has replaced the blob since it was opened."""

    errno = errno.ESTALE


class StagedGone(Changed):
    """Staged blocks are not there any more: another client committed the name, or a week went by."""

    errno = errno.ESTALE


class TooLarge(Failure):
    """The file would need more blocks than a blob can have."""

    errno = errno.EFBIG


class NoSpace(Failure):
    """No room is left: for metadata, in memory, in the spool or temporary directory, or on the service."""

    errno = errno.ENOSPC


class NoAttribute(Failure):
    """The extended attribute is not set."""

    errno = errno.ENODATA


class Archived(Failure):
    """The blob is in the archive tier and must be rehydrated before it can be read."""

    errno = errno.ENODATA


class BadHandle(Failure):
    """The file handle is unknown, or open for the other direction."""

    errno = errno.EBADF


class Busy(Failure):
    """What the operation needs is held by another client or process (a lease, a mount)."""

    errno = errno.EBUSY


class OtherIdLength(Busy):
    """An unfinished upload of the name has block ids of another length, and the service takes no others."""

    errno = errno.EBUSY


class TimedOut(Failure):
    """The service did not answer within the stated time."""

    errno = errno.ETIMEDOUT


class Abandoned(Failure):
    """The answer is not needed any more: the process that asked is being killed, or the mount is gone."""

    errno = errno.EINTR


class Unavailable(Failure):
    """The service or a cluster cannot be reached, or answered with an error that retrying did not cure."""

    errno = errno.EIO


class CannotRun(Failure):
    """What a command needs on this machine is missing or does not work: libfuse, a log, a mount's process."""

    errno = errno.EIO


class Incomplete(Failure):
    """Part of what was asked for is not done, mostly not committed. The message names it."""

    errno = errno.EIO


class Ended(Failure):
    """A signal ended the mounting process before the mount answered."""

    errno = errno.EINTR


class Damaged(Failure):
    """Bytes arrived that do not match their checksum, more than once."""

    errno = errno.EIO


def errno_of(error: BaseException) -> int:
    """Return the errno for any exception; EIO for one that blobfs does not name."""
    if isinstance(error, Failure):
        return error.errno
    if isinstance(error, UnicodeError):
        return errno.EINVAL
    return errno.EIO


def raise_first(failures: Sequence[Failure]) -> None:
    """Raise the first of what failed, if anything did."""
    if failures:
        raise failures[0]


def failure_of(function: Callable[[T], object], argument: T) -> Failure | None:
    """Call ``function(argument)`` and return the Failure that it raises, None if it raises none."""
    try:
        function(argument)
    except Failure as failure:
        return failure
    return None
