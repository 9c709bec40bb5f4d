"""Names and their attributes: what POSIX does by path.

Every method may be called from many threads at once and blocks for the requests it needs.
"""

import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone

from blobfs.content.streams import Stream
from blobfs.errors import Changed, Incomplete, NoAttribute, NotFound, raise_first
from blobfs.filesystem.commits import Commits, Uncommitted, WriteBack
from blobfs.filesystem.deletions import Deletions
from blobfs.filesystem.directories import Directories
from blobfs.filesystem.directory_commits import DirectoryCommits
from blobfs.filesystem.early_opens import EarlyOpens
from blobfs.filesystem.handles import Handles
from blobfs.filesystem.next_files import NextFiles
from blobfs.filesystem.opening import Opener
from blobfs.filesystem.removal import Removal
from blobfs.filesystem.renames import Renames
from blobfs.filesystem.volume import Caller, Stat, Volume
from blobfs.format.attributes import Attributes
from blobfs.format.names import is_hidden_name
from blobfs.store import BlobInfo
from blobfs.tree.copy_detector import nobody

MAX_SYMLINK_BYTES = 4096  # PATH_MAX


class Filesystem:
    """Operations by path; `handles` has those on open files, `directories` those on open directories."""

    def __init__(
        self,
        volume: Volume,
        next_files: NextFiles,
        early_opens: EarlyOpens,
        *,
        open_bytes: int,
        exclusive_create: bool = False,
        write_back: WriteBack | None = None,
    ) -> None:
        self.volume = volume
        self._next_files = next_files
        self._early_opens = early_opens
        self.commits = Commits(volume, write_back)
        most_behind = write_back.files if write_back is not None else 0
        self._deletions = Deletions(volume, most_behind=most_behind)
        self._directory_commits = DirectoryCommits(volume, most_behind=most_behind)
        self._removal = Removal(volume, self._deletions, self._directory_commits)
        self._renames = Renames(volume, self._removal, self._deletions, self.commits, self._directory_commits)
        self.directories = Directories(volume, self._deletions)
        self.handles = Handles(
            volume,
            self._deletions,
            self.commits,
            Opener(volume, next_files, early_opens, open_bytes=open_bytes),
            exclusive_create=exclusive_create,
        )

    # Names…

    def stat(self, path: str, thread: Callable[[], int] = nobody) -> Stat:
        """Return the attributes of a path, to a thread of some program, which is asked for if it matters."""
        if self._deletions.is_gone(path):
            self.volume.copy_detector.missed(thread(), path)
            raise NotFound(f"{path}: no such file or directory")
        self._early_opens.forget()
        return self.volume.stat(path, thread, before_asking=self._early_opens.look_up)

    def stat_open(self, handle: int) -> Stat:
        """Return the attributes of an open file: what its name has now, if it still has one."""
        path = self.handles.path(handle)
        if path is not None:
            with suppress(NotFound):
                stat = self.stat(path)
                if self.handles.path(handle) == path:  # else this may be of what took the name over
                    return stat
        return self.handles.stat(handle)

    def mkdir(self, path: str, mode: int, caller: Caller) -> None:
        """Make a directory: a marker blob, so that it stays when it is empty."""
        volume = self.volume
        volume.check_writable(path)
        self._deletions.carry_out(path)
        with self._directory_commits.given_up(path):  # those of another directory, removed elsewhere
            volume.put_new(path, b"", volume.attributes_for_new(path, stat.S_IFDIR | mode, caller))
        volume.namespace.record_empty(path)

    def mknod(self, path: str, mode: int, rdev: int, caller: Caller) -> None:
        """Make an empty file, fifo, socket or device node; the kernel does what they are for."""
        volume = self.volume
        volume.check_writable(path)
        self._deletions.carry_out(path)
        if not stat.S_IFMT(mode):
            mode |= stat.S_IFREG
        volume.put_new(path, b"", volume.attributes_for_new(path, mode, caller, rdev))

    def symlink(self, target: str, path: str, caller: Caller) -> None:
        """Make a symbolic link: a blob whose body is the target, which is never followed here."""
        volume = self.volume
        volume.check_writable(path)
        self._deletions.carry_out(path)
        body = target.encode("utf-8", "surrogateescape")
        volume.put_new(path, body, volume.attributes_for_new(path, stat.S_IFLNK | 0o777, caller))

    def readlink(self, path: str) -> str:
        """Return the target of a symbolic link, the new one if somebody has replaced it."""
        self._next_files.wait_for(path)
        try:
            return self._target(path)
        except Changed:
            self.volume.namespace.forget(path)
            return self._target(path)

    def _target(self, path: str) -> str:
        blob = self.volume.namespace.node(path).blob
        if blob is None:
            raise NotFound(f"{path}: not a symbolic link")
        target = memoryview(bytearray(min(blob.size_bytes, MAX_SYMLINK_BYTES)))
        count = self.volume.reader.read_into(blob, 0, target, Stream())
        return bytes(target[:count]).decode("utf-8", "surrogateescape")

    def unlink(self, path: str) -> None:
        """Remove a file's name."""
        self._removal.unlink(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._removal.rmdir(path)

    def sync(self, path: str) -> None:
        """Commit a file, or a directory and all below it, and finish the deletions there.

        Everything is tried. Then the first failure is raised, of now or of a file that was lost.
        """
        volume = self.volume
        failures = self._deletions.sync(path)
        prefix = volume.names.directory_prefix(path)
        files = [file for file in volume.files if f"{file.name}/".startswith(prefix)]
        failures += self.commits.commit_all(files)
        failures += self._directory_commits.sync(path)
        failures += [Incomplete(f"{lost}: {why}") for lost, why in volume.lost_changes.below(path)]
        raise_first(failures)

    def sync_directory(self, handle: int) -> None:
        """Have the service hold the names in an open directory, and no others, and its own attributes.

        Everything is tried. Raises a failure.
        """
        path = self.directories.path(handle)
        try:
            self.commits.commit_closed(self.volume.names.directory_prefix(path))
        finally:
            try:
                self._deletions.carry_out_entries(path)
            finally:
                self._directory_commits.commit(path)

    def rename(self, old_path: str, new_path: str, *, replace_target: bool = True) -> None:
        """Move a name; libfuse's hidden names mean that an open file loses its own."""
        if is_hidden_name(new_path):
            self._removal.hide(old_path, new_path)
        else:
            self._renames.rename(old_path, new_path, replace_target=replace_target)
            self.directories.renamed(old_path, new_path)
            self.volume.lost_changes.rename(old_path, new_path)
            self.volume.orphans.rename(old_path, new_path)
            self.volume.appeared(new_path)

    def uncommitted(self) -> Iterator[Uncommitted]:
        """Name what the service does not have: bytes, removals, and attributes of directories."""
        yield from self.commits.uncommitted()
        yield from self._directory_commits.uncommitted()
        for path in self._deletions.certain():
            yield Uncommitted(path, "removed, to be deleted")
        for path, failure in self._deletions.unkept():
            yield Uncommitted(path, f"empty, and no marker keeps it: {failure}", has_failed=True)

    # Attributes…

    def chmod(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        self._change(path, lambda old: old._replace(mode=stat.S_IFMT(old.mode) | stat.S_IMODE(mode)))

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set owner and group; -1 leaves one as it is."""
        self._change(
            path, lambda old: old._replace(uid=old.uid if uid < 0 else uid, gid=old.gid if gid < 0 else gid)
        )

    def set_times(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Set access and modification times; None leaves one as it is."""
        self._change(
            path,
            lambda old: old._replace(
                atime_ns=old.atime_ns if atime_ns is None else atime_ns,
                mtime_ns=old.mtime_ns if mtime_ns is None else mtime_ns,
            ),
        )

    def attributes(self, path: str) -> Attributes:
        """Return the attributes of a path, extended ones included."""
        return self.stat(path).attributes

    def set_xattr(self, path: str, name: str, value: bytes | None) -> None:
        """Set the attribute ``user.NAME``, or remove it. Raises NoSpace beyond 8 KiB for all of a path."""

        def change(old: Attributes) -> Attributes:
            others = {other: old.xattrs[other] for other in old.xattrs if other != name}
            return old._replace(xattrs=others if value is None else {**others, name: value})

        self._change(path, change)

    def blob(self, path: str) -> BlobInfo | None:
        """Ask for the committed blob of a path; None for a directory without one or a file without."""
        known = self._known_blob(path)
        return self.volume.store.head(known.name) if known is not None else None

    def receipt(self, path: str) -> dict[str, str | int]:
        """Return what the service acknowledged of a file, as facts for a record. Two requests.

        Raises NoAttribute while something of the file is uncommitted, and for what has no bytes.
        """
        blob = self.blob(path)
        if blob is None or self.volume.local_file(path) is not None:
            raise NoAttribute(f"{path}: nothing of it is committed, or not all")
        committed = datetime.fromtimestamp(blob.modified_ns / 10**9, timezone.utc)
        return {
            "name": blob.name,
            "etag": blob.etag,
            "size_bytes": blob.size_bytes,
            "md5": blob.content_md5.hex() if blob.content_md5 else "",
            "blocks": len(self.volume.store.committed_blocks(blob.version)),
            "committed": committed.isoformat(),
        }

    def warm(self, path: str, start: int, end: int) -> None:
        """Bring a stretch of a file's committed bytes into the cache. Blocks. Raises NoAttribute, Changed."""
        self.volume.warming.warm(self._committed(path), start, end)

    def cached_bytes(self, path: str) -> int:
        """Return how many of a file's committed bytes are in the cache. Raises NoAttribute."""
        return self.volume.warming.cached_bytes(self._committed(path))

    def _committed(self, path: str) -> BlobInfo:
        """Return the blob that is known under a path. Raises NoAttribute for what has no bytes."""
        blob = self._known_blob(path)
        if blob is None:
            raise NoAttribute(f"{path}: the service has no bytes of it")
        return blob

    def _known_blob(self, path: str) -> BlobInfo | None:
        file = self.volume.local_file(path)
        return file.base if file is not None else self.volume.namespace.node(path).blob

    def hidden(self, path: str) -> dict[str, str]:
        """Return the blobs of a directory that cannot be shown, with the reason for each."""
        self.volume.namespace.entries(path)
        return self.volume.namespace.hidden(path)

    def _change(self, path: str, change: Callable[[Attributes], Attributes]) -> None:
        now_ns = time.time_ns()

        def stamped_change(old: Attributes) -> Attributes:
            return change(old)._replace(ctime_ns=now_ns)

        self.volume.check_writable(path)
        if not self._directory_commits.take(path, stamped_change):
            self.volume.change_attributes(path, stamped_change)
