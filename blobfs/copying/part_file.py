"""A local file that is not complete yet: beside its final name, until it is known to be right."""

import errno
import fcntl
import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from blobfs.errors import Busy

PREFIX, SUFFIX = ".blobfs-", ".part"
MODE = 0o600  # until it has its own

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # as of Lustre mounted without -o flock
_PART = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{16}}{re.escape(SUFFIX)}")


def part_path(target: Path) -> Path:
    """Return where a file is made: the same for every attempt, and short whatever the target is called."""
    digest = hashlib.shake_128(os.fsencode(target.name)).hexdigest(8)
    return target.with_name(f"{PREFIX}{digest}{SUFFIX}")


def is_part(path: str) -> bool:
    """Tell from its name whether something is what an unfinished download has left."""
    return _PART.fullmatch(path.rpartition("/")[2]) is not None


class PartFile:
    """The file that will be `target`. After an error it goes, unless it `stays`. Raises OSError, Busy."""

    def __init__(self, target: Path, size_bytes: int, *, is_shared: bool = False) -> None:
        """Open what an earlier attempt has left, or a new one, and give it its size.

        Raises Busy if another copy writes it now, unless both said that they share it.
        """
        self._target = target
        self.path = part_path(target)
        self.stays = False
        try:
            self.descriptor = self._open(os.O_RDWR)
        except PermissionError:
            self._make_writable()
            self.descriptor = self._open(os.O_RDWR)
        try:
            self._claim(self.descriptor, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
            self.is_new = os.fstat(self.descriptor).st_size == 0
            os.ftruncate(self.descriptor, size_bytes)
        except (Busy, OSError):
            os.close(self.descriptor)
            raise

    def _open(self, access: int) -> int:
        return os.open(self.path, access | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)

    def _make_writable(self) -> None:
        """Take the mode of a read-only file away, which an earlier attempt gave it just before its end."""
        descriptor = self._open(os.O_RDONLY)
        try:
            self._claim(descriptor, fcntl.LOCK_SH)  # not from who is about to finish it
            os.fchmod(descriptor, MODE)
        finally:
            os.close(descriptor)

    def _claim(self, descriptor: int, lock: int) -> None:
        busy = Busy(f"{self._target}: another copy writes it now")
        try:
            _lock(descriptor, lock | fcntl.LOCK_NB)
            # It may have become the target since it was opened.
            if not os.path.samestat(os.stat(self.path), os.fstat(descriptor)):
                raise busy
        except (BlockingIOError, FileNotFoundError):
            raise busy from None

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.stays:
            with suppress(OSError):  # the copy's own failure counts
                os.unlink(self.path)
        os.close(self.descriptor)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` with bytes from there; return how many there were."""
        return os.preadv(self.descriptor, [view], offset)

    def write(self, offset: int, view: memoryview) -> None:
        """Put bytes there."""
        while view:
            count = os.pwrite(self.descriptor, view, offset)
            offset, view = offset + count, view[count:]

    def finish(self) -> None:
        """Make it the target, replacing what stood there in one step."""
        os.replace(self.path, self._target)


def _lock(descriptor: int, operation: int) -> None:
    """Do as flock(2), where the file system has it: a file that cannot be locked is better than none."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
