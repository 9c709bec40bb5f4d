"""The journal of one file: every change is written there before it is made."""

import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from blobfs.errors import NoSpace
from blobfs.spool.records import HEAD_BYTES, Kind, Target, body_of_target, head_of

logger = logging.getLogger(__name__)


class Journal(Protocol):
    """What a file tells of its changes. A failure to note one is raised, and the change not to be made."""

    def write(self, offset: int, data: memoryview) -> None:
        """Note a write. Raises NoSpace, having noted nothing."""
        ...

    def truncate(self, size_bytes: int) -> None:
        """Note a new size. Raises NoSpace, having noted nothing."""
        ...

    def undo(self) -> None:
        """Take back the last note: the change was not made."""
        ...

    def retarget(self) -> None:
        """Note that name, base or attributes are others now. Raises nothing."""
        ...

    def request_commit(self) -> None:
        """Note that somebody counts on what is there, and have the disk keep it. Raises nothing."""
        ...

    def end(self) -> None:
        """Remove the notes: the service has everything, or nobody wants it any more."""
        ...

    def leave(self, conflict: str = "", /) -> str:
        """Leave the notes to `blobfs recover`; return how to get at them. Empty if there are none."""
        ...


class Unspooled:
    """A journal that keeps nothing, for mounts without a spool."""

    def __init__(self, target: Callable[[], Target]) -> None:
        """Have no use for the target."""

    def write(self, offset: int, data: memoryview) -> None:
        """See `Journal`; so for the others."""

    def truncate(self, size_bytes: int) -> None: ...

    def undo(self) -> None: ...

    def retarget(self) -> None: ...

    def request_commit(self) -> None: ...

    def end(self) -> None: ...

    def leave(self, _conflict: str = "", /) -> str:
        return ""


class DiskJournal:
    """A journal in a spool directory. It is there as long as there is something to keep.

    `target` tells what the file is to become by its next commit. Not thread-safe: the file has the lock.
    """

    def __init__(
        self, target: Callable[[], Target], *, create: Callable[[], "JournalFile"], cure: str
    ) -> None:
        self._target = target
        self._create = create
        self._cure = cure
        self._file: JournalFile | None = None
        self._is_given_up = False  # until the next commit: a part of it could not be noted

    def write(self, offset: int, data: memoryview) -> None:
        """See `Journal`; so for the others."""
        if not self._is_given_up:
            self._begun().append(Kind.WRITE, offset, data)

    def truncate(self, size_bytes: int) -> None:
        if not self._is_given_up:
            self._begun().append(Kind.TRUNCATE, size_bytes)

    def undo(self) -> None:
        if self._file is not None:
            self._file.cut_last()
            if self._file.record_count == 1:
                self.end()

    def retarget(self) -> None:
        if self._file is not None:
            try:
                self._file.append(Kind.TARGET, body=body_of_target(self._target()))
            except NoSpace as full:
                # Notes for another name would be worse than none.
                self.end()
                self._is_given_up = True
                logger.warning("%s: a crash before its commit would lose it: %s", self._target().name, full)

    def request_commit(self) -> None:
        if self._is_given_up:
            return
        try:
            file = self._begun()
            file.append(Kind.COMMIT, body=body_of_target(self._target()))
            file.sync()
        except (NoSpace, OSError) as trouble:
            # What the service has in a moment needs no spool.
            logger.warning("%s: the spool does not know of its commit: %s", self._target().name, trouble)

    def end(self) -> None:
        file, self._file = self._file, None
        self._is_given_up = False
        if file is not None:
            try:
                file.remove()
            except OSError as error:
                # Recovery finds that the service has it.
                logger.warning("%s: the spool keeps what is committed: %s", self._target().name, error)

    def leave(self, conflict: str = "", /) -> str:
        file, self._file = self._file, None
        if file is None:
            return ""
        try:
            if conflict:
                file.append(Kind.CONFLICT, body=conflict.encode())
        except NoSpace as full:
            logger.warning("%s: a later attempt to commit it will find the conflict: %s", file.path, full)
        file.close()
        return self._cure

    def _begun(self) -> "JournalFile":
        if self._file is None:
            file = self._create()
            try:
                file.append(Kind.TARGET, body=body_of_target(self._target()))
            except NoSpace:
                file.remove()
                raise
            self._file = file
        return self._file


class JournalFile:
    """An open journal, locked for as long as it is open, so that it is no leftover."""

    def __init__(self, path: Path, descriptor: int, size_bytes: int = 0) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size_bytes = size_bytes
        self.record_count = 0  # of those added here
        self._is_new = not size_bytes
        self._last_at = size_bytes

    @classmethod
    def create(cls, path: Path) -> "JournalFile | None":
        """Make a journal; None if somebody took the new file for an empty leftover. Raises NoSpace."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise NoSpace(f"{path}: no journal can be made: {error.strerror}") from error
        return cls._locked(path, descriptor)

    @classmethod
    def take(cls, path: Path) -> "JournalFile | None":
        """Open a leftover; None if it is in use, or gone."""
        try:
            return cls._locked(path, os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
        except FileNotFoundError:
            return None

    @classmethod
    def _locked(cls, path: Path, descriptor: int) -> "JournalFile | None":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        status = os.fstat(descriptor)
        if not status.st_nlink:  # whoever had the lock before has ended it
            os.close(descriptor)
            return None
        return cls(path, descriptor, status.st_size)

    def append(self, kind: Kind, number: int = 0, body: memoryview | bytes = b"") -> None:
        """Add a record, whole or not at all. Raises NoSpace."""
        head = head_of(kind, self.size_bytes, number, body)
        try:
            written = os.pwritev(self.descriptor, [head, body], self.size_bytes)
            if written < HEAD_BYTES + len(body):  # the disk is full, or nearly: the next call tells
                rest = memoryview(b"".join((head, body)))[written:]
                _write_all(self.descriptor, rest, self.size_bytes + written)
        except OSError as error:
            self.cut(self.size_bytes)
            raise NoSpace(f"{self.path}: the spool takes no more: {error.strerror}") from error
        self._last_at = self.size_bytes
        self.size_bytes += HEAD_BYTES + len(body)
        self.record_count += 1

    def cut_last(self) -> None:
        """Take the last record back."""
        self.cut(self._last_at)
        self.record_count -= 1

    def sync(self) -> None:
        """Have the disk keep what is there. Raises OSError."""
        os.fdatasync(self.descriptor)
        if self._is_new:  # fsync(2): the name of a new file needs an fsync of its own
            _sync_directory(self.path.parent)
            self._is_new = False

    def read_at(self, position: int, length: int) -> bytes:
        """Return bytes, fewer at the end."""
        return os.pread(self.descriptor, length, position)

    def remove(self) -> None:
        """Remove the journal."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the journal, which is a leftover from now on. Harmless if that was done."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def cut(self, size_bytes: int) -> None:
        """Have the journal end there, where a record ends."""
        os.ftruncate(self.descriptor, size_bytes)
        self.size_bytes = self._last_at = size_bytes


def _write_all(descriptor: int, rest: memoryview, position: int) -> None:
    while rest:
        written = os.pwrite(descriptor, rest, position)
        position += written
        rest = rest[written:]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
