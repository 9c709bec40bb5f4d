"""The filesystem itself, free of kernel and cloud: paths and handles in, values and failures out.

Every method may be called from many threads at once and blocks for the requests it needs.
"""

import itertools
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blobfs.attributes import Attributes
from blobfs.errors import (
    AlreadyExists,
    BadHandle,
    Changed,
    Failure,
    IsADirectory,
    NotFound,
)
from blobfs.files import File, Handle
from blobfs.names import is_hidden_name, is_temporary_name, join_path, split_path
from blobfs.namespace import DIRECTORY
from blobfs.reader import Stream
from blobfs.removal import Removal
from blobfs.renames import Renames
from blobfs.store import BlobInfo
from blobfs.tree_cache import Node
from blobfs.volume import Caller, Stat, Volume

logger = logging.getLogger(__name__)

MAX_SYMLINK_BYTES = 4096  # PATH_MAX
RENAME_SECONDS = 2.0  # a temporary name that was not renamed by then is committed as it is


@dataclass(frozen=True, slots=True)
class Opened:
    """A new handle, and what the kernel may do with the pages it holds of the file."""

    handle: int
    keep_pages: bool = False
    bypass_pages: bool = False  # another version is open here too: the pages are its
    is_newer: bool = False  # the file changed since the kernel was last told about it


class Entries(Sequence[tuple[str, Stat]]):
    """A finished listing. Each Stat is made when it is asked for: a large directory has many."""

    def __init__(self, volume: Volume, path: str, found: Mapping[str, Node | File | str]) -> None:
        self._volume = volume
        self._path = path
        self._found = list(found.items())

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        entry, found = self._found[index]
        if isinstance(found, File):
            return entry, self._volume.stat_of_file(found)
        if isinstance(found, str):
            return entry, self._volume.stat_of_node(found, DIRECTORY)
        return entry, self._volume.stat_of_node(join_path(self._path, entry), found)


@dataclass(slots=True)
class DirectoryHandle:
    """An open directory and the entries it showed when it was last read from the start."""

    path: str
    entries: Sequence[tuple[str, Stat]] = ()


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """A file whose bytes are not on the service, and why."""

    path: str
    reason: str


class Filesystem:
    """Operations on a volume by path and by handle."""

    def __init__(self, volume: Volume, *, open_bytes: int, exclusive_create: bool = False) -> None:
        self.volume = volume
        self._open_bytes = open_bytes
        self._exclusive_create = exclusive_create
        self._removal = Removal(volume)
        self._renames = Renames(volume, self._removal)
        self._lock = threading.Lock()  # guards the two tables, and counts of handles in files
        self._numbers = itertools.count(1)
        self._handles: dict[int, Handle] = {}
        self._directories: dict[int, DirectoryHandle] = {}
        self._lost: dict[str, str] = {}

    # Names…

    def stat(self, path: str) -> Stat:
        """Return the attributes of a path."""
        self._removal.wait(path)
        return self.volume.stat(path)

    def stat_handle(self, handle: int) -> Stat:
        """Return the attributes of an open file."""
        return self.volume.stat_of_file(self._handle(handle).file)

    def open_directory(self, path: str) -> int:
        """Return a handle to read a directory with."""
        with self._lock:
            number = next(self._numbers)
            self._directories[number] = DirectoryHandle(path)
            return number

    def read_directory(self, handle: int, *, restart: bool) -> Sequence[tuple[str, Stat]]:
        """Return ``.``, ``..`` and all entries; the same list again unless it is to `restart`."""
        directory = self._directories.get(handle)
        if directory is None:
            raise BadHandle(f"directory handle {handle} is not open")
        if restart:
            parent = split_path(directory.path)[0]
            found = {".": directory.path, "..": parent, **self._found(directory.path)}
            directory.entries = Entries(self.volume, directory.path, found)
        return directory.entries

    def list(self, path: str) -> Sequence[tuple[str, Stat]]:
        """Return a directory's entries, files that are not committed yet included."""
        return Entries(self.volume, path, self._found(path))

    def _found(self, path: str) -> dict[str, Node | File]:
        volume = self.volume
        prefix = volume.names.directory_prefix(path)
        for file in volume.files.under(prefix):
            volume.note_commit(file)
        found: dict[str, Node | File] = {
            entry: node
            for entry, node in volume.namespace.entries(path).items()
            if not self._removal.is_pending(join_path(path, entry))
        }
        for file in volume.files.under(prefix):
            entry = file.name[len(prefix) :]
            if file.is_uncommitted and "/" not in entry:
                found[entry] = file
        return found

    def close_directory(self, handle: int) -> None:
        """Forget a directory handle."""
        with self._lock:
            self._directories.pop(handle, None)

    def mkdir(self, path: str, mode: int, caller: Caller) -> None:
        """Make a directory: a marker blob, so that it stays when it is empty."""
        volume = self.volume
        volume.check_writable(path)
        self._removal.settle(path)
        volume.put_new(path, b"", volume.attributes_for_new(path, stat.S_IFDIR | mode, caller))
        volume.namespace.cache.record_empty(volume.names.directory_prefix(path))

    def mknod(self, path: str, mode: int, rdev: int, caller: Caller) -> None:
        """Make an empty file, fifo, socket or device node; the kernel does what they are for."""
        volume = self.volume
        volume.check_writable(path)
        self._removal.settle(path)
        if not stat.S_IFMT(mode):
            mode |= stat.S_IFREG
        volume.put_new(path, b"", volume.attributes_for_new(path, mode, caller, rdev))

    def symlink(self, target: str, path: str, caller: Caller) -> None:
        """Make a symbolic link: a blob whose body is the target, which is never followed here."""
        volume = self.volume
        volume.check_writable(path)
        self._removal.settle(path)
        body = target.encode("utf-8", "surrogateescape")
        volume.put_new(path, body, volume.attributes_for_new(path, stat.S_IFLNK | 0o777, caller))

    def readlink(self, path: str) -> str:
        """Return the target of a symbolic link."""
        blob = self.volume.namespace.node(path).blob
        if blob is None:
            raise NotFound(f"{path}: not a symbolic link")
        target = memoryview(bytearray(min(blob.size_bytes, MAX_SYMLINK_BYTES)))
        count = self.volume.reader.read_into(blob.version, blob.size_bytes, 0, target, Stream())
        return bytes(target[:count]).decode("utf-8", "surrogateescape")

    def unlink(self, path: str) -> None:
        """Remove a file's name."""
        self._removal.unlink(path)
        self._lost.pop(path, None)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._removal.rmdir(path)

    def rename(self, old_path: str, new_path: str, *, replace_target: bool = True) -> None:
        """Move a name; libfuse's hidden names mean that an open file loses its own."""
        if is_hidden_name(new_path):
            self._removal.hide(old_path, new_path)
        else:
            self._renames.rename(old_path, new_path, replace_target=replace_target)

    # Attributes…

    def chmod(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        self._change(path, lambda old: replace(old, mode=stat.S_IFMT(old.mode) | stat.S_IMODE(mode)))

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set owner and group; -1 leaves one as it is."""
        self._change(
            path, lambda old: replace(old, uid=old.uid if uid < 0 else uid, gid=old.gid if gid < 0 else gid)
        )

    def set_times(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Set access and modification times; None leaves one as it is."""
        self._change(
            path,
            lambda old: replace(
                old,
                atime_ns=old.atime_ns if atime_ns is None else atime_ns,
                mtime_ns=old.mtime_ns if mtime_ns is None else mtime_ns,
            ),
        )

    def attributes(self, path: str) -> Attributes:
        """Return the attributes of a path, extended ones included."""
        return self.stat(path).attributes

    def set_xattrs(self, path: str, xattrs: dict[str, bytes]) -> None:
        """Replace all ``user.*`` attributes. Raises NoSpace beyond the service's 8 KiB."""
        self._change(path, lambda old: replace(old, xattrs=xattrs))

    def blob(self, path: str) -> BlobInfo | None:
        """Ask for the committed blob of a path; None for a directory without one or a file without."""
        file = self.volume.local_file(path)
        known = file.base if file is not None else self.volume.namespace.node(path).blob
        return self.volume.store.head(known.name) if known is not None else None

    def hidden(self, path: str) -> dict[str, str]:
        """Return the blobs of a directory that cannot be shown, with the reason for each."""
        self.volume.namespace.entries(path)
        return self.volume.namespace.hidden(path)

    def _change(self, path: str, change: Callable[[Attributes], Attributes]) -> None:
        self.volume.change_attributes(path, lambda old: replace(change(old), ctime_ns=time.time_ns()))

    # Files…

    def create(self, path: str, mode: int, flags: int, caller: Caller) -> Opened:
        """Make a file and open it. Nothing is sent before its first commit.

        But with `exclusive_create` and O_EXCL the empty blob is made now, so that of several
        nodes only one succeeds. Raises AlreadyExists.
        """
        volume = self.volume
        volume.check_writable(path)
        self._removal.settle(path)
        file = volume.files.get(volume.names.blob_name(path))
        if file is not None and file.is_uncommitted:
            if flags & os.O_EXCL:
                raise AlreadyExists(f"{path}: exists")
            return self.open(path, flags)
        attributes = volume.attributes_for_new(path, stat.S_IFREG | stat.S_IMODE(mode), caller)
        if self._exclusive_create and flags & os.O_EXCL:
            volume.put_new(path, b"", attributes)
            return self.open(path, flags)
        file = volume.new_file(path, attributes)
        volume.entry_changed(path)
        return Opened(self._new_handle(file, flags))

    def open(self, path: str, flags: int) -> Opened:
        """Open a file as the service has it at this moment (close-to-open)."""
        volume = self.volume
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        if writable:
            volume.check_writable(path)
        try:
            file = volume.local_file(path)
        except NotFound as gone:
            # Only hidden names raise this. After ESTALE the kernel looks up what has the name now.
            raise Changed(f"{path}: removed while it was being opened") from gone
        if file is not None:
            opened = Opened(self._new_handle(file, flags), keep_pages=True)
        else:
            opened = self._open_committed(path, flags)
        if flags & os.O_TRUNC and writable:
            self._handles[opened.handle].file.truncate(0)
        return opened

    def read_into(self, handle: int, offset: int, target: memoryview) -> int:
        """Fill `target` from `offset` on; return how many bytes there were before the end."""
        opened = self._handle(handle)
        return opened.file.read_into(offset, target, opened.stream)

    def write(self, handle: int, offset: int, data: memoryview) -> None:
        """Write at `offset`; with O_APPEND at the end, wherever another handle has moved it."""
        opened = self._handle(handle)
        if not opened.writable:
            raise BadHandle(f"{opened.file.name}: not open for writing")
        opened.file.write(None if opened.append else offset, data)

    def truncate(self, path: str, size_bytes: int) -> None:
        """Set a file's size by its path; the commit happens before this returns."""
        opened = self.open(path, os.O_WRONLY)
        try:
            self._handles[opened.handle].file.truncate(size_bytes)
            if self._handles[opened.handle].file.handles == 1:
                self.flush(opened.handle)
        finally:
            self.release(opened.handle)

    def truncate_handle(self, handle: int, size_bytes: int) -> None:
        """Set the size of an open file."""
        opened = self._handle(handle)
        if not opened.writable:
            raise BadHandle(f"{opened.file.name}: not open for writing")
        opened.file.truncate(size_bytes)

    def allocate(self, handle: int, offset: int, length: int, *, keep_size: bool, zero: bool) -> None:
        """Make room, which a blob always has: grow the file unless `keep_size`, clear the range if `zero`."""
        opened = self._handle(handle)
        if not opened.writable:
            raise BadHandle(f"{opened.file.name}: not open for writing")
        with opened.file.lock:
            size_bytes = opened.file.size_bytes
            if zero:
                opened.file.clear(offset, min(length, max(0, size_bytes - offset)))
            if not keep_size and offset + length > size_bytes:
                opened.file.truncate(offset + length)

    def flush(self, handle: int) -> None:
        """Commit what a writable handle's file has. Called for every close(2) of a descriptor."""
        opened = self._handle(handle)
        # A file may be created by a descriptor that can only read it.
        if (opened.writable or opened.file.base is None) and not _awaits_rename(opened.file):
            self._commit(opened.file)

    def fsync(self, handle: int) -> None:
        """Commit what the file has, and return when the service has acknowledged it."""
        self._commit(self._handle(handle).file)

    def sync(self) -> None:
        """Commit every file and finish every deletion; the first failure is raised after all were tried."""
        self._removal.settle_below("/")
        failures = [failure for file in self.volume.files if (failure := self._failure_to_commit(file))]
        if failures:
            raise failures[0]

    def release(self, handle: int) -> None:
        """Forget a handle. What is uncommitted after the last one is committed now, or lost, and named."""
        with self._lock:
            opened = self._handles.pop(handle, None)
            if opened is None:
                return
            file = opened.file
            file.handles -= 1
            if file.handles or file in self.volume.orphans.values():
                return
            if not file.is_uncommitted:
                self.volume.files.remove(file)
                return
        if _awaits_rename(file):
            self.volume.transfers.after(RENAME_SECONDS, lambda: self._commit_unrenamed(file))
        else:
            # Bytes stored through a memory map come after the last flush, and a plain mknod has no flush.
            self._commit_released(file)

    def uncommitted(self) -> Iterable[Uncommitted]:
        """Name the files whose bytes the service does not have."""
        for file in self.volume.files:
            if file.is_uncommitted:
                yield Uncommitted(self.volume.path_of(file.name), str(file.failure or "still open"))
        for path, reason in list(self._lost.items()):
            yield Uncommitted(path, reason)

    def _open_committed(self, path: str, flags: int) -> Opened:
        volume = self.volume
        known = volume.namespace.find(path)
        if known is not None and known.is_directory:
            raise IsADirectory(f"{path}: is a directory")
        info = self._current_blob(path, known, flags)
        file = volume.files.get(info.name)
        is_other_version = file is not None and file.base is not None and file.base.etag != info.etag
        if file is None or is_other_version:
            attributes = volume.attributes_of_node(info.name, Node(info))
            file = volume.new_file(path, attributes, info)
        keep_pages = volume.pages_are_valid(info.name, info.etag)
        return Opened(
            self._new_handle(file, flags),
            keep_pages=keep_pages,
            bypass_pages=is_other_version,
            is_newer=known is None or known.blob is None or known.blob.etag != info.etag,
        )

    def _current_blob(self, path: str, known: Node | None, flags: int) -> BlobInfo:
        """Ask the service what the blob is now, and take its first bytes along if they may be wanted."""
        volume = self.volume
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
                info = self._first_bytes(blob)
        except NotFound:
            volume.namespace.forget(path)
            raise
        volume.namespace.record(path, Node(info), changed_here=False)
        return info

    def _first_bytes(self, blob: BlobInfo) -> BlobInfo:
        volume = self.volume
        cached_etag = blob.etag if volume.ranges.holds(blob.version, 0) else ""
        length = min(blob.size_bytes, self._open_bytes)
        buffer = volume.ranges.buffer_for(length)
        received, info = volume.store.read_range(
            blob.name, 0, buffer.view[:length], if_none_match=cached_etag
        )
        if info is None:
            return blob
        step = volume.ranges.fragment_bytes
        whole_bytes = received if received == info.size_bytes else received // step * step
        volume.ranges.add(info.version, 0, buffer, whole_bytes)
        return info

    def _new_handle(self, file: File, flags: int) -> int:
        access = flags & os.O_ACCMODE
        handle = Handle(file, access != os.O_WRONLY, access != os.O_RDONLY, bool(flags & os.O_APPEND))
        with self._lock:
            handle.file = self.volume.files.enter(file)
            handle.file.handles += 1
            number = next(self._numbers)
            self._handles[number] = handle
            return number

    def _handle(self, handle: int) -> Handle:
        try:
            return self._handles[handle]
        except KeyError:
            raise BadHandle(f"handle {handle} is not open") from None

    def _commit(self, file: File) -> None:
        if file.commit():
            self.volume.note_commit(file)
            self._lost.pop(self.volume.path_of(file.name), None)

    def _failure_to_commit(self, file: File) -> Failure | None:
        try:
            self._commit(file)
        except Failure as failure:
            return failure
        return None

    def _commit_unrenamed(self, file: File) -> None:
        """Commit a file under its temporary name after all, when nobody renamed it."""
        if not file.handles and file.is_uncommitted:
            self._commit_released(file)

    def _commit_released(self, file: File) -> None:
        failure = self._failure_to_commit(file)
        if failure is not None:
            self._lost[self.volume.path_of(file.name)] = str(failure)
            logger.error("%s was closed without being committed: %s", file.name, failure)
        with self._lock:
            if not file.handles:
                self.volume.files.remove(file)


def _awaits_rename(file: File) -> bool:
    """rsync writes to a temporary name: while all of the file is in memory, the rename can be its commit."""
    return is_temporary_name(file.name) and file.can_move_unsent()
