"""Names that go: unlink, rmdir, and files that are deleted while they are open.

libfuse renames an open file to a hidden name before it is unlinked or replaced. Here that name
exists in memory only.
"""

import time
import weakref
from contextlib import nullcontext
from functools import partial

from blobfs.errors import (
    DirectoryNotEmpty,
    InvalidName,
    IsADirectory,
    NotADirectory,
)
from blobfs.filesystem.deletions import Deletions
from blobfs.filesystem.directory_commits import DirectoryCommits
from blobfs.filesystem.files import File
from blobfs.filesystem.orphans import Orphans
from blobfs.filesystem.volume import Volume
from blobfs.store import ALWAYS, BlobInfo, head_or_none
from blobfs.tree.namespace import DIRECTORY

UNUSED_SECONDS = 5.0  # far longer than an open takes that was under way when its file lost its name


class Removal:
    """Removes names from a volume."""

    def __init__(self, volume: Volume, deletions: Deletions, directory_commits: DirectoryCommits) -> None:
        self._volume = volume
        self._deletions = deletions
        self._directory_commits = directory_commits

    def unlink(self, path: str) -> None:
        """Remove a file's name; handles that have it open keep it."""
        volume = self._volume
        if volume.orphans.remove(path):
            return
        volume.check_writable(path)
        self._deletions.carry_out(path)
        file = volume.files.get(volume.names.blob_name(path))
        if file is not None and file.adopt_unanswered_write():
            volume.note_commit(file)
        if file is None and self._deletions.may_wait:
            self._delete_behind(path)
            return
        if file is not None and not file.etag_in_place and file.permanent_failure is None:
            file.leave_name()
            volume.files.remove(file)
            volume.note_commit(file)
        else:
            self._delete_blob(path)
        volume.namespace.record(path, None)
        volume.lost_changes.forget(path)
        volume.keep_parent_of(path)
        volume.entry_changed(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory. Raises DirectoryNotEmpty."""
        volume = self._volume
        volume.check_writable(path)
        self._deletions.carry_out_below(path)
        with self._directory_commits.given_up(path):
            is_only_here = path in dict(self._deletions.unkept())
            node = DIRECTORY if is_only_here else volume.namespace.node(path)
            if not node.is_directory:
                raise NotADirectory(f"{path}: not a directory")
            for marker in (node.blob, self.check_empty(path)):
                if marker is not None:
                    volume.store.delete(marker.name, ALWAYS)
        self._deletions.forget_unkept(path)
        volume.namespace.forget_below(path)
        volume.directory_times.forget(volume.names.blob_name(path))
        volume.namespace.record(path, None)
        volume.keep_parent_of(path)
        volume.entry_changed(path)

    def check_empty(self, path: str) -> BlobInfo | None:
        """Raise DirectoryNotEmpty if anything is below a directory, here or on the service.

        Returns its marker in the old style, if it has one.
        """
        volume = self._volume
        open_below = volume.files.under(volume.names.directory_prefix(path))
        if any(file.is_unsent for file in open_below):
            raise DirectoryNotEmpty(f"{path}: directory not empty")
        marker, has_entries = volume.namespace.below(path)
        if has_entries:
            volume.namespace.forget_below(path)
            raise DirectoryNotEmpty(f"{path}: directory not empty")
        return marker

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
        self._deletions.carry_out(path)
        file = volume.files.get(name)
        if file is None:
            file = volume.file_of(path, volume.namespace.node(path))
        with file.lock:  # nobody commits it meanwhile
            file.adopt_unanswered_write()
            volume.note_commit(file)
            # Before anything changes, because it may have to ask.
            is_there = file.etag_in_place or file.permanent_failure is not None
            etag = self._etag_now(path) if is_there else ""
            base = file.base
            file.unlink()
            volume.note_commit(file)
        if file.base is not None and file.base is not base:  # to have its bytes, it was committed
            etag = file.base.etag
        file.attributes = file.attributes._replace(ctime_ns=time.time_ns())
        volume.files.remove(file)
        volume.lost_changes.forget(path)
        volume.orphans.add(hidden_path, file)
        volume.transfers.run_after(UNUSED_SECONDS, partial(_forget_unused, volume.orphans, weakref.ref(file)))
        volume.inodes.retire(name)
        volume.entry_changed(path)
        if not etag:
            volume.namespace.record(path, None)
        self._deletions.delete_later(path, etag, file)

    def _delete_blob(self, path: str) -> None:
        volume = self._volume
        name = self._blob(path).name
        file = volume.files.get(name)
        with file.lock if file is not None else nullcontext():  # nobody commits it meanwhile
            volume.store.delete(name, ALWAYS)
            if file is not None:
                file.drop()
                file.unnoted_commit = None  # so that whoever has committed it does not bring its name back
                volume.files.remove(file)

    def _delete_behind(self, path: str) -> None:
        """Remove a name that nobody has open, and leave its blob to be deleted in the background.

        Raises AccessDenied where that is known to be refused.
        """
        volume, blob = self._volume, self._blob(path)
        volume.store.check_may_delete(blob.name)
        volume.namespace.record(path, None)
        volume.lost_changes.forget(path)
        volume.entry_changed(path)
        self._deletions.delete_behind(path, blob.etag)

    def _etag_now(self, path: str) -> str:
        """Return the version under a name, which another client may have replaced; empty if there is none."""
        namespace = self._volume.namespace
        if namespace.close_to_open:
            blob = head_or_none(self._volume.store, self._volume.names.blob_name(path))
        else:
            node = namespace.find(path)
            blob = node.blob if node is not None else None
        return blob.etag if blob is not None else ""

    def _blob(self, path: str) -> BlobInfo:
        namespace = self._volume.namespace
        # The kernel has looked the name up for this very call.
        node = namespace.last_known(path) or namespace.node(path)
        if node.is_directory or node.blob is None:
            raise IsADirectory(f"{path}: is a directory")
        return node.blob


def _forget_unused(orphans: Orphans, ref: "weakref.ref[File]") -> None:
    """Forget a file that has no handle; until then, nothing here keeps it and its bytes alive."""
    file = ref()
    if file is not None:
        orphans.forget_unused(file)
