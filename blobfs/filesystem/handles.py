"""Open files: handles to read and write by, and the commits they cause."""

import itertools
import math
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from blobfs.content.streams import Stream
from blobfs.counters import Counters
from blobfs.errors import (
    AlreadyExists,
    BadHandle,
    Changed,
    Damaged,
    Failure,
    IsADirectory,
    NotFound,
)
from blobfs.filesystem.commits import Commits
from blobfs.filesystem.deletions import Deletions
from blobfs.filesystem.early_opens import EarlyOpens
from blobfs.filesystem.files import File, FileState
from blobfs.filesystem.next_files import NextFiles
from blobfs.filesystem.volume import Answer, Caller, Stat, Volume
from blobfs.format.names import is_hidden_name
from blobfs.store import BlobInfo
from blobfs.tree.cache import Node

LONG_AGO = -math.inf  # the time of an answer that is only believed: it must not count as new


class Opened(NamedTuple):
    """A new handle, and what the kernel may do with the pages it holds of the file."""

    handle: int
    keep_pages: bool = False
    bypass_pages: bool = False  # they may be of another version that is open here, too
    is_newer: bool = False  # the kernel may believe the size of an older version


@dataclass(slots=True, eq=False)
class Handle:
    """One open descriptor's worth: the file, how it was opened, how it reads."""

    file: File
    writable: bool
    append: bool
    stream: Stream = field(default_factory=Stream)


class Handles:
    """Handles of files, by number."""

    def __init__(
        self,
        volume: Volume,
        deletions: Deletions,
        commits: Commits,
        next_files: NextFiles,
        early_opens: EarlyOpens,
        *,
        open_bytes: int,
        exclusive_create: bool,
    ) -> None:
        self._volume = volume
        self._deletions = deletions
        self._commits = commits
        self._next_files = next_files
        self._early_opens = early_opens
        self._open_bytes = open_bytes
        self._exclusive_create = exclusive_create
        self._lock = threading.Lock()  # guards the table
        self._numbers = itertools.count(1)
        self._handles: dict[int, Handle] = {}
        self.counts = Counters()  # read_bytes and written_bytes, by programs

    def path(self, handle: int) -> str | None:
        """Return the path of an open file, None if its name was taken away."""
        file = self._handle(handle).file
        return None if file.state is FileState.UNLINKED else self._volume.path_of(file.name)

    def stat(self, handle: int) -> Stat:
        """Return the attributes of an open file."""
        return self._volume.stat_of_file(self._handle(handle).file)

    def create(self, path: str, mode: int, flags: int, caller: Caller) -> Opened:
        """Make a file and open it. Nothing is sent before its first commit.

        But with `exclusive_create` and O_EXCL the empty blob is made now, so that of several
        nodes only one succeeds. Raises AlreadyExists.
        """
        volume = self._volume
        volume.check_writable(path)
        self._deletions.settle(path)
        file = volume.files.get(volume.names.blob_name(path))
        if file is not None and file.is_unsent:
            if flags & os.O_EXCL:
                raise AlreadyExists(f"{path}: exists")
            return self.open(path, flags)
        attributes = volume.attributes_for_new(path, stat.S_IFREG | stat.S_IMODE(mode), caller)
        if self._exclusive_create and flags & os.O_EXCL:
            volume.put_new(path, b"", attributes)
            return self.open(path, flags)
        file = volume.make_file(path, attributes)
        volume.files.add(file)
        volume.appeared(path)
        handle = self._new_handle(volume.files.enter(file), flags)
        return Opened(handle, bypass_pages=file.has_foreign_pages)

    def open(self, path: str, flags: int) -> Opened:
        """Open a file as the service has it at this moment (close-to-open).

        Raises Changed for one that is gone: it was there when the kernel looked.
        """
        volume = self._volume
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        if writable:
            volume.check_writable(path)
        if is_hidden_name(path):
            opened = self._opened_here(volume.orphans.enter(path), flags)
        elif (file := volume.local_file(path)) is not None:
            opened = self._opened_here(volume.files.enter(file), flags)
        else:
            opened = self._open_committed(path, flags)
        if flags & os.O_TRUNC and writable:
            try:
                self.truncate(opened.handle, 0)
            except Failure:
                self.release(opened.handle)  # of which the kernel hears nothing
                raise
        return opened

    def read_into(self, handle: int, offset: int, target: memoryview) -> int:
        """Fill `target` from `offset` on; return how many bytes there were before the end."""
        opened = self._handle(handle)
        try:
            count = opened.file.read_into(offset, target, opened.stream)
        except Damaged:
            self._volume.pages.distrust(opened.file.name)
            raise
        except Changed:
            self._volume.namespace.forget(self._volume.path_of(opened.file.name))
            raise
        if count < len(target) and self._volume.size_told(opened.file) > opened.file.size_bytes:
            raise Changed(
                f"{opened.file.name}: another client has written more, which is not of this version"
            )
        self.counts.add("read_bytes", count)
        return count

    def write(self, handle: int, offset: int, data: memoryview, *, is_page: bool = False) -> None:
        """Write at `offset`; with O_APPEND at the end, wherever another handle has moved it.

        But a page that was stored to through a memory map has its place, by whichever handle it comes.
        """

        def write(opened: Handle) -> None:
            opened.file.write(None if opened.append and not is_page else offset, data)

        self._change(handle, write)
        self.counts.add("written_bytes", len(data))

    def truncate_path(self, path: str, size_bytes: int) -> None:
        """Set a file's size by its path, as somebody would who opened and closed it."""
        opened = self.open(path, os.O_WRONLY)
        try:
            self.truncate(opened.handle, size_bytes)
            self.flush(opened.handle)
        finally:
            self.release(opened.handle)

    def truncate(self, handle: int, size_bytes: int) -> None:
        """Set the size of an open file."""
        self._change(handle, lambda opened: opened.file.truncate(size_bytes))

    def allocate(self, handle: int, offset: int, length: int, *, keep_size: bool, zero: bool) -> None:
        """Make room, which a blob always has: grow the file unless `keep_size`, clear the range if `zero`."""

        def allocate(opened: Handle) -> None:
            with opened.file.lock:
                size_bytes = opened.file.size_bytes
                if zero:
                    opened.file.clear(offset, min(length, max(0, size_bytes - offset)))
                if not keep_size and offset + length > size_bytes:
                    opened.file.truncate(offset + length)

        self._change(handle, allocate)

    def flush(self, handle: int) -> None:
        """Commit what a writable handle's file has, or know it safe. Called for every close(2).

        Raises Changed to a reader who may have met the end of another client's version.
        """
        opened = self._handle(handle)
        # A file may be created by a descriptor that can only read it.
        if opened.writable or opened.file.base is None:
            self._commits.close(opened.file)
        elif self._volume.size_told(opened.file) < opened.file.size_bytes:
            raise Changed(
                f"{opened.file.name}: another client has made it shorter; what was read may end there"
            )

    def fsync(self, handle: int) -> None:
        """Commit what the file has, and return when the service has acknowledged it."""
        self._commits.commit(self._handle(handle).file)

    def release(self, handle: int) -> None:
        """Forget a handle. After the last one, what is uncommitted is committed or known to be."""
        with self._lock:
            opened = self._handles.pop(handle, None)
            if opened is None:
                return
        file = opened.file
        self._volume.note_commit(file)
        self._volume.files.leave(file)
        self._volume.orphans.leave(file)
        if not file.handles and file.is_uncommitted:
            self._commits.release(file)

    def _change(self, handle: int, change: Callable[[Handle], None]) -> None:
        """Change a file by a handle. The kernel's pages of it are of no version until it is committed."""
        opened = self._handle(handle)
        if not opened.writable:
            raise BadHandle(f"{opened.file.name}: not open for writing")
        try:
            change(opened)
        finally:  # not before: a commit that ends meanwhile would trust them again
            self._volume.pages.distrust(opened.file.name)

    def _open_committed(self, path: str, flags: int) -> Opened:
        """Open the version that the service has, unless this mount writes the name meanwhile: then again."""
        volume = self._volume
        known = volume.namespace.find(path)
        if known is not None and known.is_directory:
            raise IsADirectory(f"{path}: is a directory")
        at_hand = self._asked_ahead(path) if flags & os.O_ACCMODE == os.O_RDONLY else None
        at_hand = at_hand or self._believed(path)
        file, answer = volume.enter_current(path, lambda: self._current_blob(path, known, flags), at_hand)
        if answer is None:
            # The open that has the kernel drop older pages may not have reached it yet: so does this one.
            return Opened(self._new_handle(file, flags), bypass_pages=file.has_foreign_pages, is_newer=True)
        info = answer.info
        volume.namespace.record_answer(path, Node(info), answer.asked_at)
        if file.has_foreign_pages:
            volume.pages.distrust(info.name)
        keep_pages = not file.has_foreign_pages and volume.pages.note_version(info.name, info.etag)
        # What this mount knows by now, from a listing say, is not what the kernel was told.
        return Opened(
            self._new_handle(file, flags), keep_pages, file.has_foreign_pages, is_newer=not keep_pages
        )

    def _asked_ahead(self, path: str) -> Answer | None:
        """Return what was asked for this open before it came to us."""
        from_walk = self._next_files.come_to(path)
        return self._early_opens.come_to(path) or from_walk

    def _believed(self, path: str) -> Answer | None:
        """Return what opens may believe of a file without asking, if that is allowed."""
        volume = self._volume
        if volume.namespace.close_to_open:
            return None
        name = volume.names.blob_name(path)
        last_write = volume.store.last_write(name)  # first: what is written after it will be met
        file = volume.files.get(name)
        if file is not None:
            with file.lock:  # what is being committed now is what will be known
                volume.note_commit(file)
        blob = volume.namespace.believed(path)
        return Answer(blob, last_write, LONG_AGO) if blob is not None else None

    def _opened_here(self, file: File, flags: int) -> Opened:
        """Return one more handle of a file that is open here already, and so are the kernel's pages of it."""
        foreign = file.has_foreign_pages
        # All that ever happened to a file without a blob, the kernel was asked for.
        is_newer = foreign or file.base is not None
        return Opened(self._new_handle(file, flags), not foreign, foreign, is_newer)

    def _current_blob(self, path: str, known: Node | None, flags: int) -> BlobInfo:
        """Ask the service what the blob is now, and take its first bytes along if they may be wanted."""
        volume = self._volume
        blob = known.blob if known is not None else None
        name = volume.names.blob_name(path)
        try:
            if (
                flags & os.O_TRUNC
                or flags & os.O_ACCMODE == os.O_WRONLY
                or blob is None
                or not blob.size_bytes
            ):
                info = volume.store.head(name)
            else:
                info = volume.reader.refresh(blob, self._open_bytes)
        except NotFound as failure:
            # The kernel believes that it is there. It looks again, and makes a new file for who wants that.
            volume.namespace.forget(path)
            raise Changed(f"{path}: was removed meanwhile: {failure}") from failure
        return info

    def _new_handle(self, file: File, flags: int) -> int:
        """Make a handle of a file that was entered in the table for it."""
        access = flags & os.O_ACCMODE
        handle = Handle(file, access != os.O_RDONLY, bool(flags & os.O_APPEND))
        with self._lock:
            number = next(self._numbers)
            self._handles[number] = handle
            return number

    def _handle(self, handle: int) -> Handle:
        try:
            return self._handles[handle]
        except KeyError:
            raise BadHandle(f"handle {handle} is not open") from None
