"""Bytes of blobs on local disk, shared by mounts and remounts. Losing them costs only time.

A piece is what one fetch brought, in a file of its own. It is written under another name and
then renamed, so processes that share a directory never see half of one and need no lock. The
time of a file is that of its last use; a clean-up removes the oldest, whoever wrote them.
"""

import contextlib
import errno
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blobfs.blocks import md5_digest
from blobfs.content.memory import Buffer
from blobfs.content.piece_file import TornPiece, piece_bytes, read_piece, write_piece
from blobfs.own_directory import make_own
from blobfs.store import BlobVersion
from blobfs.transfers import Transfers

logger = logging.getLogger(__name__)

SUBDIRECTORY = "blobfs-pieces"  # nothing else in the user's directory is ever touched
FORBIDDEN_BITS = 0o022  # others may read what is there, if its owner lets them
SWEEP_SHARE = 1 / 16  # so much is written between two clean-ups, and freed by one
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_SHARE = 1 / 4  # so much of what is there goes when the disk is full


@dataclass(frozen=True, slots=True, order=True)
class CachedPiece:
    """A file of the cache."""

    used_ns: int
    size_bytes: int
    path: str


class DiskCache:
    """Pieces of one container's blobs in a directory that may hold `capacity_bytes`.

    `owner` names the container among all others. Raises InvalidArgument if the directory is not
    a private place.
    """

    def __init__(
        self, directory: Path, owner: str, transfers: Transfers, *, capacity_bytes: int, waiting_pieces: int
    ) -> None:
        self._directory = place_in(directory)
        self._owner = owner
        self._transfers = transfers
        self.capacity_bytes = capacity_bytes
        self._room = threading.Semaphore(waiting_pieces)
        self._unswept_bytes = capacity_bytes  # written since the last clean-up; the first is due at once
        self._swept_bytes: int | None = None  # what the last one left
        self._has_warned = False

    @property
    def held_bytes(self) -> int | None:
        """How much was there at the last clean-up and was put there since; None before the first write."""
        swept_bytes = self._swept_bytes
        return None if swept_bytes is None else swept_bytes + self._unswept_bytes

    def holds(self, version: BlobVersion, start: int) -> bool:
        """Tell whether there is a piece that starts there. It may prove torn."""
        return os.path.exists(self._path(self._key(version), start))

    def bytes_at(self, version: BlobVersion, start: int) -> int:
        """Return how long the piece is that starts there; 0 if there is none that can be used."""
        key = self._key(version)
        try:
            file = os.open(self._path(key, start), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # nearly always: there is none
            return 0
        try:
            return piece_bytes(file, key, start)
        except (TornPiece, OSError):
            return 0  # whoever reads it removes it
        finally:
            os.close(file)

    def read(self, version: BlobVersion, unit_start: int, start: int, into: memoryview) -> bool:
        """Fill `into` from a piece that starts at `unit_start` or at `start`; tell whether there is one.

        Never fails: a piece with anything wrong is removed, as if there had been none.
        """
        key = self._key(version)
        return any(self._read_piece(key, at, start, into) for at in {unit_start, start})

    def keep(self, version: BlobVersion, start: int, buffer: Buffer, size_bytes: int) -> None:
        """Have a piece written in the background, or not at all if the disk is behind. Does not wait."""
        if self._room.acquire(blocking=False):
            self._transfers.submit_disk(self._write, version, start, buffer, size_bytes)

    def keep_surely(self, version: BlobVersion, start: int, buffer: Buffer, size_bytes: int) -> None:
        """Have a piece written unless it is there, and wait until that is done or proved impossible."""
        self._room.acquire()
        self._transfers.submit_disk(self._write_missing, version, start, buffer, size_bytes).result()

    def discard(self, version: BlobVersion, start: int) -> None:
        """Remove a piece that proved wrong."""
        _remove(self._path(self._key(version), start))

    def _key(self, version: BlobVersion) -> bytes:
        return md5_digest(f"{self._owner}\n{version.etag}\n{version.name}".encode("utf-8", "surrogateescape"))

    def _path(self, key: bytes, start: int) -> str:
        digits = key.hex()
        return f"{self._directory}/{digits[:2]}/{digits[2:]}-{start:x}"

    def _read_piece(self, key: bytes, piece_start: int, start: int, into: memoryview) -> bool:
        path = self._path(key, piece_start)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # nearly always: there is none
            return False
        try:
            found = read_piece(file, key, piece_start, start, into)
            os.utime(file)
        except (TornPiece, OSError) as error:
            logger.warning("removing a cache file that is of no use, %s: %s", path, error)
            _remove(path)
            return False
        finally:
            os.close(file)
        return found

    # In the background, one at a time

    def _write_missing(self, version: BlobVersion, start: int, buffer: Buffer, size_bytes: int) -> None:
        if self.bytes_at(version, start) < size_bytes:
            self._write(version, start, buffer, size_bytes)
        else:
            self._room.release()

    def _write(self, version: BlobVersion, start: int, buffer: Buffer, size_bytes: int) -> None:
        key = self._key(version)
        try:
            self._make_room(size_bytes)
            self._write_piece(key, start, buffer.view[:size_bytes])
        except FileNotFoundError:
            logger.info("somebody is emptying the cache in %s", self._directory)
        except OSError as error:
            self._do_without(error)
        finally:
            self._room.release()

    def _write_piece(self, key: bytes, start: int, data: memoryview) -> None:
        path = self._path(key, start)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=self._directory)
        try:
            with open(handle, "wb") as file:
                write_piece(file, key, start, data)
            os.rename(unfinished, path)
        except OSError:
            _remove(unfinished)
            raise

    def _make_room(self, size_bytes: int) -> None:
        self._unswept_bytes += size_bytes
        if self._unswept_bytes >= self.capacity_bytes * SWEEP_SHARE:
            self._sweep(int(self.capacity_bytes * (1 - SWEEP_SHARE)))
            self._unswept_bytes = size_bytes

    def _do_without(self, error: OSError) -> None:
        """Go on without a piece; if the disk is full, make the cache smaller. Warns once."""
        is_full = error.errno in FULL
        if not self._has_warned:
            self._has_warned = True
            what = "is made smaller" if is_full else "lacks pieces"
            logger.warning("the cache in %s %s: %s", self._directory, what, error.strerror)
        if is_full:
            used_bytes = sum(entry.size_bytes for entry in self._entries())
            self._sweep(int(used_bytes * (1 - FULL_SHARE)))

    def _sweep(self, allowed_bytes: int) -> None:
        """Remove the files used least recently, until the rest fits."""
        entries = sorted(self._entries())
        excess_bytes = sum(entry.size_bytes for entry in entries) - allowed_bytes
        for entry in entries:
            if excess_bytes <= 0:
                break
            _remove(entry.path)
            excess_bytes -= entry.size_bytes
        self._swept_bytes, self._unswept_bytes = allowed_bytes + excess_bytes, 0

    def _entries(self) -> Iterator[CachedPiece]:
        for folder, _, names in os.walk(self._directory):
            for name in names:
                path = f"{folder}/{name}"
                with contextlib.suppress(OSError):  # another mount has removed it
                    found = os.stat(path)
                    yield CachedPiece(found.st_mtime_ns, found.st_size, path)


def place_in(directory: Path) -> Path:
    """Return the directory of the pieces. Both are made, or checked that only their owner can change them.

    Raises InvalidArgument, naming the cure.
    """
    make_own(directory, "cache", forbidden_bits=FORBIDDEN_BITS, parents=True)
    return make_own(directory / SUBDIRECTORY, "cache", forbidden_bits=FORBIDDEN_BITS)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # it is gone already, or the next clean-up tries again
        os.unlink(path)
