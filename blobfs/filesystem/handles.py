"""Open files: handles to read and write by, and the commits they cause."""

import itertools
import logging
import os
import resource
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from blobfs.blocks import MiB
from blobfs.content.streams import Stream
from blobfs.counters import Counters
from blobfs.errors import AlreadyExists, BadHandle, Changed, Damaged, Failure
from blobfs.filesystem.commits import Commits
from blobfs.filesystem.deletions import Deletions
from blobfs.filesystem.files import File, FileState
from blobfs.filesystem.opening import Entered, Opener, is_writable
from blobfs.filesystem.volume import Caller, Stat, Volume

logger = logging.getLogger(__name__)

PAGE_BYTES = resource.getpagesize()
ZEROS_BYTES = 1 * MiB  # written at a time to clear a range
LOST_PAGES = "what was stored through a memory map is lost"


class Opened(NamedTuple):
    """A new handle; for the rest see `Entered`."""

    handle: int
    keep_pages: bool = False
    bypass_pages: bool = False  # they may be of another version that is open here, too
    is_newer: bool = False  # the kernel may believe the size of an older version


@dataclass(slots=True, eq=False)
class Handle:
    """One open of a file: how it was opened, and how it reads."""

    file: File
    writable: bool
    append: bool
    reads_pages: bool  # of the kernel's cache
    stream: Stream = field(default_factory=Stream)


class Handles:
    """Handles of files, by number."""

    def __init__(
        self,
        volume: Volume,
        deletions: Deletions,
        commits: Commits,
        opener: Opener,
        *,
        exclusive_create: bool,
    ) -> None:
        self._volume = volume
        self._deletions = deletions
        self._commits = commits
        self._opener = opener
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
        self._deletions.carry_out(path)
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
        entered = Entered(volume.files.enter(file), bypass_pages=file.has_foreign_pages)
        return self._new_handle(entered, flags)

    def open(self, path: str, flags: int) -> Opened:
        """Open a file as the service has it at this moment (close-to-open).

        Raises Changed for one that is gone: it was there when the kernel looked.
        """
        opened = self._new_handle(self._opener.open(path, flags), flags)
        if flags & os.O_TRUNC:
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
        if count < len(target) and self._goes_on(opened, offset + len(target)):
            raise Changed(
                f"{opened.file.name}: another client has written more, which is not of this version"
            )
        self.counts.add("read_bytes", count)
        return count

    def write(self, handle: int, offset: int, data: memoryview) -> None:
        """Write at `offset`; with O_APPEND at the end, wherever another handle has moved it."""
        self._change(handle, lambda opened: opened.file.write(None if opened.append else offset, data))
        self.counts.add("written_bytes", len(data))

    def write_page(self, handle: int, offset: int, data: memoryview) -> None:
        """Write what was stored through a memory map; it has its place, by whichever handle it comes.

        What is behind the end is left out: the kernel drops such pages only after the file was truncated.
        If it fails, those who sync are told, because the program may have unmapped the file, or be gone.
        """

        def write(opened: Handle) -> None:
            with opened.file.lock:
                inside = data[: max(opened.file.size_bytes - offset, 0)]
                if inside:
                    opened.file.write(offset, inside)

        try:
            self._change(handle, write)
        except Failure as failure:
            self._lose_pages(handle, failure)
            raise
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
                size_bytes, end = opened.file.size_bytes, offset + length
                if zero:
                    for start in range(offset, min(end, size_bytes), ZEROS_BYTES):
                        stop = min(start + ZEROS_BYTES, end, size_bytes)
                        opened.file.write(start, memoryview(bytes(stop - start)))
                if not keep_size and end > size_bytes:
                    opened.file.truncate(end)

        self._change(handle, allocate)

    def flush(self, handle: int) -> None:
        """Commit what the file of a writable handle has, or make it safe. Called for every close(2).

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
        """Forget a handle. After the last one, see that what is uncommitted is committed."""
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

    def _goes_on(self, opened: Handle, end: int) -> bool:
        """Tell whether the kernel, which has asked for bytes up to `end`, believes in more than there are."""
        file = opened.file
        if self._volume.size_told(file) > file.size_bytes:
            return True
        # Another version that was open for a moment may be forgotten here, but not by the kernel: it asks
        # for no page behind the one in which it believes that the file ends.
        last_page_end = -(-file.size_bytes // PAGE_BYTES) * PAGE_BYTES
        return end > last_page_end and opened.reads_pages and self._volume.files.is_displaced(file)

    def _change(self, handle: int, change: Callable[[Handle], None]) -> None:
        """Change a file by a handle. The kernel's pages of it are of no version until it is committed."""
        opened = self._handle(handle)
        if not opened.writable:
            raise BadHandle(f"{opened.file.name}: not open for writing")
        try:
            change(opened)
        finally:  # not before: a commit that ends meanwhile would trust them again
            self._volume.pages.distrust(opened.file.name)

    def _lose_pages(self, handle: int, failure: Failure) -> None:
        path = self.path(handle)
        if path is not None:
            self._handle(handle).file.has_lost_pages = True
            self._volume.lost_changes.note(path, f"{LOST_PAGES}: {failure}")
            logger.error("%s: %s: %s", path, LOST_PAGES, failure)

    def _new_handle(self, entered: Entered, flags: int) -> Opened:
        """Make a handle of a file that was entered in the table of files for it."""
        handle = Handle(
            entered.file,
            is_writable(flags),
            append=bool(flags & os.O_APPEND),
            reads_pages=not (entered.bypass_pages or flags & os.O_DIRECT),
        )
        with self._lock:
            number = next(self._numbers)
            self._handles[number] = handle
        return Opened(number, entered.keep_pages, entered.bypass_pages, entered.is_newer)

    def _handle(self, handle: int) -> Handle:
        try:
            return self._handles[handle]
        except KeyError:
            raise BadHandle(f"handle {handle} is not open") from None
