"""Names that go: unlink, rmdir, and files that are deleted while they are open.

libfuse renames an open file to a hidden name before it is unlinked or replaced. Here that name
exists in memory only. Whether the call was an unlink or the first half of a rename over the
file is not known at that moment, so the blob goes a moment later, or the rename replaces it.
"""

import logging
import threading
import time
from contextlib import nullcontext
from dataclasses import replace

from blobfs.errors import (
    Changed,
    DirectoryNotEmpty,
    Failure,
    InvalidName,
    IsADirectory,
    NotADirectory,
    NotFound,
)
from blobfs.filesystem.volume import Volume
from blobfs.store import ALWAYS, Condition

logger = logging.getLogger(__name__)

GRACE_SECONDS = 0.05  # libfuse's two calls follow each other in microseconds


class Removal:
    """Removes names from a volume."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._settled = threading.Condition()  # guards the two fields below; never held across a request
        self._pending: dict[str, str] = {}  # paths whose blob is to go, with its ETag
        self._going: set[str] = set()  # paths whose blob is being deleted at this moment

    def unlink(self, path: str) -> None:
        """Remove a file's name; handles that have it open keep it."""
        volume = self._volume
        if volume.orphans.pop(path, None) is not None:
            return
        volume.check_writable(path)
        self.settle(path)
        file = volume.files.get(volume.names.blob_name(path))
        if file is not None and file.base is None:
            volume.files.remove(file)
            file.unlink()
            volume.note_commit(file)
        if file is None or file.base is not None:
            self._delete_blob(path)
        volume.namespace.record(path, None)
        volume.keep_directory(path)
        volume.entry_changed(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory. Raises DirectoryNotEmpty."""
        volume = self._volume
        volume.check_writable(path)
        self.settle_below(path)
        node = volume.namespace.node(path)
        if not node.is_directory:
            raise NotADirectory(f"{path}: not a directory")
        self.check_empty(path)
        if node.blob is not None:
            volume.store.delete(node.blob.name, ALWAYS)
        volume.namespace.cache.forget_tree(volume.names.directory_prefix(path))
        volume.directory_times.forget(volume.names.blob_name(path))
        volume.namespace.record(path, None)
        volume.keep_directory(path)
        volume.entry_changed(path)

    def check_empty(self, path: str) -> None:
        """Raise DirectoryNotEmpty if anything is below a directory, here or on the service."""
        volume = self._volume
        open_below = volume.files.under(volume.names.directory_prefix(path))
        if any(file.is_uncommitted for file in open_below):
            raise DirectoryNotEmpty(f"{path}: directory not empty")
        if volume.namespace.has_entries(path):
            volume.namespace.cache.forget_tree(volume.names.directory_prefix(path))
            raise DirectoryNotEmpty(f"{path}: directory not empty")

    def hide(self, path: str, hidden_path: str) -> None:
        """Take an open file off its name; its bytes stay for the handles that have it open.

        Blocks to fetch what only the blob has. The blob itself goes soon after, unless a
        rename takes it over. Raises InvalidName if no file is open under the path: libfuse
        hides open files only, so a program has chosen that name.
        """
        volume = self._volume
        volume.check_writable(path)
        name = volume.names.blob_name(path)
        if not volume.files.was_open(name):
            raise InvalidName(f"{hidden_path}: names like this are for files deleted while open")
        self.settle(path)
        file = volume.files.get(name)
        if file is None:
            file = volume.file_of(path, volume.namespace.node(path))
        file.unlink()
        volume.note_commit(file)
        known = volume.namespace.find(path) if file.base is not None else None
        etag = known.blob.etag if known is not None and known.blob is not None else ""
        file.attributes = replace(file.attributes, ctime_ns=time.time_ns())
        volume.files.remove(file)
        volume.orphans[hidden_path] = file
        volume.inodes.retire(name)
        volume.entry_changed(path)
        if etag:
            with self._settled:
                self._pending[path] = etag
            volume.transfers.after(GRACE_SECONDS, lambda: self._delete_later(path))
        else:
            volume.namespace.record(path, None)

    def is_pending(self, path: str) -> bool:
        """The path is gone for this mount, or about to be replaced, though its blob is still there."""
        return path in self._pending or path in self._going

    def wait(self, path: str) -> None:
        """Block until it is settled whether a path is gone or replaced: the grace and a request at most."""
        if self.is_pending(path):
            with self._settled:
                self._settled.wait_for(lambda: not self.is_pending(path))

    def take_over(self, path: str, *, is_going: bool = False) -> str:
        """Take charge of a blob that was to be deleted: a rename replaces it. Return its ETag or nothing.

        With `is_going` everybody else waits: who looked for the blob now would still find it.
        """
        if not self.is_pending(path):
            return ""
        with self._settled:
            self._settled.wait_for(lambda: path not in self._going)
            etag = self._pending.pop(path, "")
            if etag and is_going:
                self._going.add(path)
            self._settled.notify_all()
            return etag

    def settle(self, path: str) -> None:
        """Delete the blob of a path now, if that is still to be done."""
        etag = self.take_over(path, is_going=True)
        if not etag:
            return
        try:
            self._volume.store.delete(self._volume.names.blob_name(path), Condition(if_match=etag))
            self._volume.namespace.record(path, None)
            self._volume.keep_directory(path)
        finally:
            with self._settled:
                self._going.discard(path)
                self._settled.notify_all()

    def settle_below(self, path: str) -> None:
        """Do all deletions that are still to be done in and below a directory."""
        prefix = path.rstrip("/") + "/"
        for pending in [pending for pending in list(self._pending) if pending.startswith(prefix)]:
            self.settle(pending)

    def _delete_later(self, path: str) -> None:
        try:
            self.settle(path)
        except (NotFound, Changed):
            self._volume.namespace.forget(path)
        except Failure as failure:
            self._volume.namespace.forget(path)
            logger.error("%s was removed while open, but its blob could not be deleted: %s", path, failure)

    def _delete_blob(self, path: str) -> None:
        volume = self._volume
        node = volume.namespace.node(path)
        if node.is_directory:
            raise IsADirectory(f"{path}: is a directory")
        name = volume.names.blob_name(path)
        file = volume.files.get(name)
        with file.lock if file is not None else nullcontext():  # nobody commits it meanwhile
            volume.store.delete(name, ALWAYS)
            if file is not None:
                file.drop()
                volume.files.remove(file)
