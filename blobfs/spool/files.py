"""Journals as files on a disk that may be full, locked by the process that writes them."""

import fcntl
import os
import secrets
from collections import deque
from contextlib import suppress
from pathlib import Path

from blobfs.blocks import MiB
from blobfs.errors import NoSpace
from blobfs.spool.records import HEAD_BYTES, NO_SEAL, Kind, Record, head_of

SUFFIX = ".journal"
KEPT_FILES = 32  # about as many files as are written at once
NEW_FILES = 16  # made at a time
WRITE_BACK_BYTES = 8 * MiB  # after which the disk is told to begin writing, so that little is left to sync


class JournalFile:
    """An open journal, locked for as long as it is open, so that it is no leftover."""

    def __init__(self, path: Path, descriptor: int, size_bytes: int = 0) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size_bytes = size_bytes
        self.record_count = 0  # of those added here
        self._last_at = size_bytes
        self._seals = (NO_SEAL, NO_SEAL)  # of the last record but one, and of the last

    @classmethod
    def create(cls, path: Path) -> "JournalFile | None":
        """Make a journal; None if another process took the new file for an empty leftover. Raises NoSpace."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise NoSpace(f"{path}: no journal can be made: {error.strerror}") from error
        try:
            return cls._locked(path, descriptor)
        except OSError as error:
            path.unlink()
            raise NoSpace(f"{path}: no journal can be locked: {error.strerror}") from error

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
        except OSError:  # not all file systems have locks
            os.close(descriptor)
            raise
        status = os.fstat(descriptor)
        if not status.st_nlink:  # the process that had the lock before has removed it
            os.close(descriptor)
            return None
        return cls(path, descriptor, status.st_size)

    def append(self, kind: Kind, number: int = 0, body: memoryview | bytes = b"") -> Record:
        """Add a record, whole or not at all, and return it without what its body says. Raises NoSpace."""
        head, seal = head_of(kind, self._seals[1], number, body)
        try:
            written = os.pwritev(self.descriptor, [head, body], self.size_bytes)
            if written < HEAD_BYTES + len(body):  # the disk is full, or nearly: the next call tells
                rest = memoryview(b"".join((head, body)))[written:]
                _write_all(self.descriptor, rest, self.size_bytes + written)
        except OSError as error:
            self.cut(self.size_bytes, self._seals[1])
            raise NoSpace(f"{self.path}: the spool takes no more: {error.strerror}") from error
        self._last_at, self._seals = self.size_bytes, (self._seals[1], seal)
        self.size_bytes += HEAD_BYTES + len(body)
        self._write_back()
        self.record_count += 1
        body_at = self._last_at + HEAD_BYTES
        return Record(kind, number, body_at=body_at, body_bytes=len(body), seal=seal)

    def _write_back(self) -> None:
        """Tell the disk to begin writing what was added since the last time."""
        start = self._last_at // WRITE_BACK_BYTES * WRITE_BACK_BYTES
        if self.size_bytes - start >= WRITE_BACK_BYTES:
            # posix_fadvise(2) on Linux: what is dirty is written, without waiting for it.
            os.posix_fadvise(self.descriptor, start, self.size_bytes - start, os.POSIX_FADV_DONTNEED)

    def cut_last(self) -> None:
        """Remove the last record."""
        self.cut(self._last_at, self._seals[0])
        self.record_count -= 1

    def sync(self) -> None:
        """Wait until the disk has what is there. Raises OSError."""
        os.fdatasync(self.descriptor)

    def read_at(self, position: int, length: int) -> bytes:
        """Return bytes, fewer at the end."""
        return os.pread(self.descriptor, length, position)

    def remove(self) -> None:
        """Remove the journal."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the journal, which is a leftover from now on. Harmless when it is closed."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def cut(self, size_bytes: int, seal: int) -> None:
        """Cut the journal to `size_bytes`, where the record with this seal ends."""
        os.ftruncate(self.descriptor, size_bytes)
        self.size_bytes = self._last_at = size_bytes
        self._seals = (seal, seal)


class JournalFiles:
    """The journals that a process has in one directory. Any thread may call.

    They are made several at a time and reused when they are empty, because syncing a new name takes as long
    as syncing what is in it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._free: deque[JournalFile] = deque()  # its operations are atomic

    def take(self) -> JournalFile:
        """Return an empty journal. Raises NoSpace."""
        while True:
            with suppress(IndexError):
                return self._free.pop()
            self._free.extend(self._new_files())

    def give_back(self, file: JournalFile) -> None:
        """Empty a journal that is not needed any more, to be reused. Raises OSError."""
        if len(self._free) < KEPT_FILES:
            file.cut(0, NO_SEAL)
            file.record_count = 0
            self._free.append(file)
        else:
            file.remove()

    def close(self) -> None:
        """Remove the empty ones."""
        while self._free:
            self._free.pop().remove()

    def _new_files(self) -> list[JournalFile]:
        """Make several with one fsync(2) of their directory. Raises NoSpace if there is no room for any."""
        files: list[JournalFile] = []
        while len(files) < NEW_FILES:
            try:
                file = JournalFile.create(self._directory / f"{secrets.token_hex(8)}{SUFFIX}")
            except NoSpace:
                if not files:
                    raise
                break
            if file is not None:
                files.append(file)
        try:
            _sync_directory(self._directory)
        except NoSpace:
            for file in files:
                file.remove()
            raise
        return files


def _write_all(descriptor: int, rest: memoryview, position: int) -> None:
    while rest:
        written = os.pwrite(descriptor, rest, position)
        position += written
        rest = rest[written:]


def _sync_directory(path: Path) -> None:
    """Wait until the disk has the names in a directory. Raises NoSpace."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise NoSpace(f"{path}: no journal can be kept: {error.strerror}") from error
