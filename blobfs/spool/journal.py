"""The journal of one file: every change is written there before it is made."""

import logging
from collections.abc import Callable
from typing import Protocol

from blobfs.errors import Damaged, NoSpace
from blobfs.spool.files import JournalFile, JournalFiles
from blobfs.spool.image import Image, Piece
from blobfs.spool.records import Kind, Target, body_of_target, records_in
from blobfs.store import ReadBase

logger = logging.getLogger(__name__)


class Journal(Protocol):
    """The notes of a file's changes. If noting one raises, the change must not be made."""

    def write(self, offset: int, data: memoryview) -> None:
        """Note a write. Raises NoSpace, having noted nothing."""
        ...

    def truncate(self, size_bytes: int) -> None:
        """Note a new size. Raises NoSpace, having noted nothing."""
        ...

    def undo(self) -> None:
        """Remove the last note: the change was not made."""
        ...

    def read_into(self, offset: int, target: memoryview, read_base: ReadBase, /) -> bool:
        """Fill `target` with the file's bytes as noted, zeros beyond its end; False if nothing knows them.

        Blocks for the disk. Raises what `read_base` raises.
        """
        ...

    def retarget(self) -> None:
        """Note a new name, base or attributes. Raises nothing: without room, the notes stay as they are."""
        ...

    def request_commit(self) -> bool:
        """Note that close() or fsync() was called; tell whether the disk has all notes. Raises nothing.

        If the machine itself dies, mode, owner, times and attributes may be older ones.
        """
        ...

    def end(self) -> None:
        """Remove the notes: the service has everything, or it is not wanted any more."""
        ...

    def leave(self, conflict: str = "", /) -> str:
        """Leave the notes to `blobfs recover`; return how to get at them. Empty if there are none."""
        ...


class Unspooled:
    """A journal that keeps nothing, for mounts without a spool."""

    def __init__(self, target: Callable[[], Target]) -> None:
        """Ignore the target."""

    def write(self, offset: int, data: memoryview) -> None:
        """See `Journal`; so for the others."""

    def truncate(self, size_bytes: int) -> None: ...

    def undo(self) -> None: ...

    def read_into(self, _offset: int, _target: memoryview, _read_base: ReadBase, /) -> bool:
        return False

    def retarget(self) -> None: ...

    def request_commit(self) -> bool:
        return False

    def end(self) -> None: ...

    def leave(self, _conflict: str = "", /) -> str:
        return ""


class DiskJournal:
    """A journal in a spool directory. The file exists as long as there is something to keep.

    ``target()`` says what the file is to become by its next commit. Not thread-safe: the file has the lock.
    """

    def __init__(self, target: Callable[[], Target], *, files: JournalFiles, cure: str) -> None:
        self._target = target
        self._files = files
        self._cure = cure
        self._file: JournalFile | None = None
        self._is_given_up = False  # until the next commit: a part of it could not be noted
        self._is_requested = False  # and nothing was noted since
        self._noted = Target("")  # what was noted last
        self._kept_name = ""  # the disk keeps all that was written, under this name
        self._image: Image | None = None  # of what was noted until now, made by the first `read_into`

    def write(self, offset: int, data: memoryview) -> None:
        """See `Journal`; so for the others."""
        if not self._is_given_up:
            self._kept_name = ""
            self._note(Kind.WRITE, offset, data)

    def truncate(self, size_bytes: int) -> None:
        if not self._is_given_up:
            self._kept_name = ""
            self._note(Kind.TRUNCATE, size_bytes)

    def undo(self) -> None:
        self._image = None
        if self._file is not None and not self._is_given_up:
            self._file.cut_last()
            if self._file.record_count == 1:
                self.end()

    def read_into(self, offset: int, target: memoryview, read_base: ReadBase) -> bool:
        file = self._file
        if file is None or self._is_given_up:
            return False
        target[:] = bytes(len(target))
        in_base: list[Piece] = []
        try:
            if self._image is None:
                self._image = Image(records_in(file.read_at))
            for piece in self._image.over(offset, offset + len(target)):
                if piece.is_written:
                    _part(target, offset, piece)[:] = file.read_at(piece.position, piece.length)
                elif piece.in_base:
                    in_base.append(piece)
        except (Damaged, OSError) as trouble:
            logger.warning("%s: cannot be read back: %s", file.path, trouble)
            return False
        for piece in in_base:
            read_base(piece.start, _part(target, offset, piece))
        return True

    def retarget(self) -> None:
        if self._file is not None and not self._is_given_up:
            target = self._target()
            try:
                self._note_target(Kind.TARGET, target)
            except NoSpace as full:
                # What a close has accepted is better found by an older name than lost.
                self._is_given_up = _place_of(target) != _place_of(self._noted)
                what = "under its old name" if self._is_given_up else "with older attributes"
                logger.warning("%s: a crash before its commit would leave it %s: %s", target.name, what, full)

    def request_commit(self) -> bool:
        if self._is_given_up:
            return False
        if self._is_requested:
            return True
        target = self._target()
        try:
            file = self._note_target(Kind.COMMIT, target)
            if self._kept_name != target.name:  # metadata is not worth a wait for the disk
                file.sync()
                self._kept_name = target.name
        except (NoSpace, OSError) as trouble:
            # What the service has in a moment needs no spool.
            logger.warning("%s: the spool does not know of its commit: %s", target.name, trouble)
            return False
        self._is_requested = True
        return True

    def end(self) -> None:
        file, self._file = self._file, None
        self._is_given_up, self._is_requested, self._kept_name, self._image = False, False, "", None
        if file is not None:
            try:
                self._files.give_back(file)
            except OSError as error:
                # Recovery finds that the service has it.
                logger.warning("%s: the spool keeps what is committed: %s", self._target().name, error)

    def leave(self, conflict: str = "", /) -> str:
        file, self._file, self._image = self._file, None, None
        if file is None:
            return ""
        try:
            if conflict:
                file.append(Kind.CONFLICT, body=conflict.encode())
        except NoSpace as full:
            logger.warning("%s: a later attempt to commit it will find the conflict: %s", file.path, full)
        file.close()
        return self._cure

    def _note(self, kind: Kind, number: int = 0, body: memoryview | bytes = b"") -> JournalFile:
        self._is_requested = False
        file = self._begun()
        record = file.append(kind, number, body)
        if self._image is not None:
            self._image.add(record)
        return file

    def _note_target(self, kind: Kind, target: Target) -> JournalFile:
        file = self._note(kind, body=body_of_target(target))
        self._noted = target
        return file

    def _begun(self) -> JournalFile:
        if self._file is None:
            file, target = self._files.take(), self._target()
            try:
                file.append(Kind.TARGET, body=body_of_target(target))
            except NoSpace:
                self._files.give_back(file)
                raise
            self._file, self._noted = file, target
        return self._file


def _place_of(target: Target) -> tuple[str, str]:
    """Return the name that a commit is to make, and the version that it is to replace."""
    return target.name, target.expected_etag


def _part(target: memoryview, offset: int, piece: Piece) -> memoryview:
    return target[piece.start - offset : piece.end - offset]
