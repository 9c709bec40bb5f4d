"""Makes a blob, or a local file, of what a crash left."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from blobfs.blocks import MiB
from blobfs.content.draft import OnlyStaged
from blobfs.content.memory import BufferPool
from blobfs.content.reader import BlobReader
from blobfs.content.streams import Stream
from blobfs.content.thread_writers import ThreadWriters
from blobfs.content.writer import BlobWriter, MakeWriter
from blobfs.errors import AlreadyExists, Changed, Damaged, NoSpace, NotFound
from blobfs.spool.image import Piece
from blobfs.spool.leftovers import Leftover
from blobfs.store import BlobInfo, BlobStore, Properties, head_or_none, replacing, same_metadata

logger = logging.getLogger(__name__)

STEP_BYTES = 1 * MiB  # as much as the kernel writes at a time


class Recovery:
    """Commits and saves leftovers. All methods block; any thread may call, with its own leftover."""

    def __init__(
        self, store: BlobStore, *, make_writer: MakeWriter, reader: BlobReader, pool: BufferPool
    ) -> None:
        self._store = store
        self._reader = reader
        self._writers = ThreadWriters(make_writer, pool)

    def commit(self, leftover: Leftover) -> BlobInfo:
        """Commit it, replacing the version that it was begun on, and end the journal.

        What came after the last close() or fsync() stays a leftover, on the new version.
        Raises Changed, which the journal notes, if another client has written the name since; any
        other failure leaves everything as it is.
        """
        try:
            info = self._carried_out(leftover) or self._send(leftover)
        except (Changed, AlreadyExists) as failure:
            leftover.mark_conflict(str(failure))
            raise Changed(str(failure)) from failure
        leftover.finish(info)
        return info

    def commit_named(self, leftover: Leftover) -> BlobInfo:
        """Commit all of it, edits that were never closed included: the user has named it.

        Raises what `commit` does, and Damaged: half a journal is no file.
        """
        if leftover.damage:
            raise Damaged(f"{leftover.damage}; save it, and see what is in it")
        leftover.request_commit()
        return self.commit(leftover)

    def save(self, leftover: Leftover, path: Path) -> list[tuple[int, int]]:
        """Write the file, as it was last, to a new local one; return the ranges (start, end) that are gone.

        If another client has replaced the blob, the bytes that only it had are gone. After a failure
        there is no file. Raises OSError, Failure.
        """
        base = self._readable_base(leftover) if leftover.target.base_etag else None
        with ExitStack() as undo, open(path, "xb", opener=_private) as file:
            undo.callback(path.unlink)
            missing = self._write_to(file, leftover, base)
            file.flush()
            os.fsync(file.fileno())
            undo.pop_all()
        return _joined(missing)

    def _write_to(self, file: BinaryIO, leftover: Leftover, base: BlobInfo | None) -> list[tuple[int, int]]:
        missing: list[tuple[int, int]] = []
        for part in _steps(leftover.image()):
            target = memoryview(bytearray(part.length))
            if part.is_written:
                leftover.read_into(part.position, target)
            elif part.in_base and not self._read_base(base, part.start, target):
                missing.append((part.start, part.end))
            file.write(target)
        return missing

    def _readable_base(self, leftover: Leftover) -> BlobInfo | None:
        try:
            return self._base_of(leftover)
        except Changed:
            return None

    def _read_base(self, base: BlobInfo | None, offset: int, target: memoryview) -> bool:
        """Read what the blob has. Returns False if it is no longer that blob."""
        if base is None:
            return False
        try:
            self._reader.read_into(base, offset, target, Stream())
        except (Changed, NotFound):
            return False
        return True

    def _carried_out(self, leftover: Leftover) -> BlobInfo | None:
        """Return the blob if the last commit was done and only its reply was lost in the crash."""
        found = head_or_none(self._store, leftover.target.name)
        if found is None or found.etag == leftover.target.expected_etag:
            return None
        return found if _is_made_by(found, leftover.requested_metadata()[-1:]) else None

    def _send(self, leftover: Leftover) -> BlobInfo:
        try:
            return self._put(leftover, resumes=True)
        except Changed:
            # Raised, too, when blocks from before the crash have gone meanwhile; else it comes again.
            return self._put(leftover, resumes=False)

    def _put(self, leftover: Leftover, *, resumes: bool) -> BlobInfo:
        target, base = leftover.target, self._base_of(leftover)
        etag = base.etag if base is not None else target.replaced_etag
        try:
            with self._writers.writer(target.name, base) as writer:
                self._fill(writer, leftover, resumes=resumes)
                return writer.commit(Properties(target.metadata, target.headers), replacing(etag))
        except OnlyStaged:
            raise NoSpace(f"{target.name}: cannot be put together in this --memory; give it more") from None

    def _base_of(self, leftover: Leftover) -> BlobInfo | None:
        """Return the blob that has the bytes missing in the journal. Raises Changed."""
        target = leftover.target
        found = head_or_none(self._store, target.name)
        if found is not None and _is_made_by(found, leftover.requested_metadata()):
            return found
        if (found.etag if found is not None else "") != target.expected_etag:
            what = "was written by somebody else" if found is not None else "was removed"
            raise Changed(f"{target.name}: {what} since the version that this file was begun on")
        return found if target.base_etag else None

    def _fill(self, writer: BlobWriter, leftover: Leftover, *, resumes: bool) -> None:
        image = leftover.requested_image()
        if image.kept_bytes < writer.size_bytes:
            writer.truncate(image.kept_bytes)
        if resumes:
            writer.resume()
        buffer = memoryview(bytearray(STEP_BYTES))
        for part in _steps(image):
            if part.is_written:
                leftover.read_into(part.position, buffer[: part.length])
                writer.write(part.start, buffer[: part.length])
        writer.truncate(image.size_bytes)


def _steps(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield the same stretches in pieces that can be read at once."""
    for piece in pieces:
        for start in range(piece.start, piece.end, STEP_BYTES):
            yield piece.part(start, start + STEP_BYTES)


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_made_by(found: BlobInfo, requested: Sequence[Mapping[str, str]]) -> bool:
    """Tell whether a commit of ours made the blob: it holds the time of the change in nanoseconds."""
    return any(same_metadata(found.metadata, metadata) for metadata in requested)
