"""Files as this mount has them open: one `File` for all handles of a name, attributes and content.

A file that nobody changed is only its blob's version; the first change gives it a writer.
"""

import copy
import enum
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from blobfs.content.draft import OnlyStaged
from blobfs.content.reader import BlobReader
from blobfs.content.streams import Stream
from blobfs.content.writer import BlobWriter, MakeWriter
from blobfs.errors import AlreadyExists, Changed, Failure, NotFound, Unsupported
from blobfs.filesystem.unanswered_writes import UnansweredWrites
from blobfs.format.attributes import Attributes, check_size, metadata_of
from blobfs.spool.journal import Journal, Unspooled
from blobfs.spool.records import Target
from blobfs.store import BlobInfo, BlobKind, BlobStore, BlobVersion, ContentHeaders, Properties, replacing

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class FileState(enum.Enum):
    """Where a file stands with its name on the service."""

    NAMED = "named"
    UNLINKED = "unlinked"  # only open handles still see it
    FAILED = "failed"  # somebody else changed the blob: our bytes can no longer be committed


class File:
    """One file. All methods may be called from any thread; those that say so block for requests."""

    def __init__(
        self,
        name: str,
        inode: int,
        base: BlobInfo | None,
        attributes: Attributes,
        *,
        store: BlobStore,
        reader: BlobReader,
        make_writer: MakeWriter,
        guess_headers: Callable[[str], ContentHeaders],
        make_journal: Callable[[Callable[[], Target]], Journal] = Unspooled,
    ) -> None:
        # The next two are guarded by the lock of the `FileTable`, which alone changes them.
        self.handles = 0
        self.has_foreign_pages = False  # the kernel's pages of the name are another version's, too
        self.lock = threading.RLock()  # guards everything below; held across this file's requests
        self.name = name
        self.inode = inode
        self.base = base
        self.attributes = attributes
        self.state = FileState.NAMED
        self.permanent_failure: Failure | None = None  # raised by every change from then on
        self.last_commit_failure: Failure | None = None  # why the last commit failed, if it did
        # A close() relies on a commit that is still due; truncation to nothing ends that.
        self.is_requested = False
        self.has_lost_pages = False  # stored to through a memory map, and not taken
        # What the last commit made, until somebody has taken note: reading may have had to commit, too.
        self.unnoted_commit: BlobInfo | None = None
        self._unanswered = UnansweredWrites(store)
        self._replaces_etag = ""  # of the blob that a never committed file was renamed over
        self._store = store
        self._reader = reader
        self._make_writer = make_writer
        self._guess_headers = guess_headers
        self._attributes_changed = base is None
        # A file that nobody needs any more must give back its memory at once, so nothing in it refers to it.
        this = weakref.proxy(self)
        self._journal: Journal = make_journal(lambda: this._target())
        self._writer: BlobWriter | None = None if base is not None else self._new_writer()

    @property
    def size_bytes(self) -> int:
        """The size as handles of this mount see it."""
        if self._writer is not None:
            return self._writer.size_bytes
        assert self.base is not None
        return self.base.size_bytes

    @property
    def buffered_bytes(self) -> int:
        """How much memory its content takes."""
        with self.lock:
            return self._writer.buffered_bytes if self._writer is not None else 0

    @property
    def is_uncommitted(self) -> bool:
        """Something here is not on the service yet."""
        if self.state is FileState.UNLINKED:
            return False
        return self._attributes_changed or (self._writer is not None and self._writer.is_changed)

    @property
    def is_unsent(self) -> bool:
        """Something here is still to be committed: it has not lost its name to somebody else."""
        return self.is_uncommitted and self.permanent_failure is None

    @property
    def uncommitted_bytes(self) -> int:
        """How many bytes were written that the service has not acknowledged as part of the file."""
        writer = self._writer
        return writer.uncommitted_bytes if writer is not None and self.is_uncommitted else 0

    @property
    def version(self) -> BlobVersion | None:
        """The committed version under the handles, None for a file never committed."""
        return self.base.version if self.base is not None else None

    def read_into(self, offset: int, target: memoryview, stream: Stream) -> int:
        """Copy bytes to `target`; return how many there are. Blocks. Raises Changed."""
        while True:
            base, writer = self.base, self._writer
            try:
                if writer is None:
                    assert base is not None
                    return self._reader.read_into(base, offset, target, stream)
                with self.lock:
                    return self._with_bytes(partial(writer.read_into, offset, target, stream))
            except Changed:
                with self.lock:  # which those have who give the blob another name, or other metadata
                    is_same = self.base is base and self._writer is writer
                    if is_same and not self.adopt_unanswered_write():
                        raise

    def write(self, offset: int | None, data: memoryview) -> None:
        """Put bytes at `offset`, or at the end if it is None. Blocks when too much is unsent."""
        with self.lock:
            writer = self._edited()
            start = writer.size_bytes if offset is None else offset
            self._edit(lambda: self._journal.write(start, data), lambda: writer.write(start, data))
            self._note_change()

    def truncate(self, size_bytes: int) -> None:
        """Set the size. Blocks only to read back what is cut in the middle."""
        with self.lock:
            writer = self._edited()
            if not size_bytes:
                # It is being written anew: what is there by its next close counts.
                self.is_requested = self.has_lost_pages = False
            if size_bytes != writer.size_bytes:
                self._edit(lambda: self._journal.truncate(size_bytes), lambda: writer.truncate(size_bytes))
            self._note_change()
            self._journal.retarget()

    def set_attributes(self, change: Callable[[Attributes], Attributes]) -> tuple[BlobInfo, BlobInfo] | None:
        """Change attributes. They travel with the next commit if one is due; else this is a request.

        Returns what the request made the blob of and into; the bytes are the same. Raises
        Changed if the blob is not the one that this file is of.
        """
        with self.lock:
            self._raise_failure()
            attributes = change(self.attributes)
            if self.base is None or self.is_uncommitted or self.state is FileState.UNLINKED:
                check_size(metadata_of(attributes, self._foreign_metadata()))
                self.attributes, self._attributes_changed = attributes, True
                self._journal.retarget()
                return None
            old = self.base
            self._store_attributes(attributes)
            return old, self.base

    def commit(self) -> bool:
        """Send everything and return when the service has acknowledged it; False if nothing was due.

        Blocks. Raises Changed or AlreadyExists, from then on always, if somebody else wrote
        the name; any other failure leaves the bytes here and commit may be tried again.
        """
        with self.lock:
            if self.state is FileState.UNLINKED:
                return False
            self._raise_failure()
            if not self.is_uncommitted:
                return False
            try:
                self._commit_changes()
            except Failure as failure:
                self.last_commit_failure = copy.copy(failure)
                raise
            self.last_commit_failure = None
            return True

    def unlink(self) -> None:
        """Make the file live on in this process alone. Blocks to fetch its bytes. Raises NoSpace.

        Bytes that somebody else has replaced cannot be had: reading them raises Changed.
        """
        with self.lock:
            writer = self._writer or self._new_writer()
            try:
                self._with_bytes(writer.detach)
                self._writer = writer
            except (Changed, AlreadyExists, NotFound) as failure:
                self.permanent_failure = copy.copy(failure)
            self.drop()

    def leave_name(self) -> None:
        """Make the file live on for its handles, if it has any. Blocks and raises as `unlink` does."""
        with self.lock:
            if self.handles:
                self.unlink()
            else:
                self.drop()

    def lose_name(self, reason: str) -> None:
        """Have every later change of an unlinked file fail: its name still stands, with other bytes."""
        with self.lock:
            self.state, self.permanent_failure = FileState.FAILED, Changed(reason)

    @property
    def etag_in_place(self) -> str:
        """The ETag of the blob that the next commit replaces, as far as is known; empty if there is none."""
        return self.base.etag if self.base is not None else self._replaces_etag

    def can_move_unsent(self) -> bool:
        """Nothing stands on the service under the file's name, so a new one costs nothing."""
        with self.lock:
            if self.etag_in_place or self._writer is None or self.state is not FileState.NAMED:
                return False
            return not (self._writer.has_staged or self._unanswered.are_in_doubt)

    def move_unsent(self, name: str, replaces_etag: str) -> None:
        """Give a file that is nowhere on the service a new name; its commit replaces that blob, if any."""
        with self.lock:
            assert self._writer is not None
            self.name = self._writer.name = name
            self._replaces_etag = replaces_etag
            self._journal.retarget()

    def adopt_unanswered_write(self) -> bool:
        """Find out whether a write without a reply was carried out, which then is no conflict.

        Returns whether what it made is news. Blocks for requests if there was such a write. Raises Failure.
        """
        with self.lock:
            done = self._unanswered.find(self.name)
            if done is None or (self.base is not None and self.base.version == done.version):
                return False
            if self._writer is not None:
                self._writer.adopt(done)
            self.base = self.unnoted_commit = done
            self._journal.retarget()
            return True

    def rebase(self, base: BlobInfo, attributes: Attributes) -> None:
        """Take note of a new name or new metadata of the committed blob; its bytes are the same."""
        with self.lock:
            self.name, self.base = base.name, base
            self.unnoted_commit = None  # whoever moved or changed the blob knows
            if not self._attributes_changed:
                self.attributes = attributes
            if self._writer is not None:
                self._writer.rebase(base)
            self._journal.retarget()

    def request_commit(self) -> bool:
        """Have the spool keep what is uncommitted for a commit, even after a crash; tell whether it does."""
        with self.lock:
            self.is_requested = self.is_unsent
            return self.is_requested and self._journal.request_commit()

    def leave_journal(self) -> str:
        """Give the file up; return how to get at what the spool has of it, empty if it has nothing."""
        with self.lock:
            return self._journal.leave()

    def drop(self) -> None:
        """Commit nothing any more, and keep nothing for after a crash: the name is gone."""
        with self.lock:
            self.state = FileState.UNLINKED
            self._journal.end()
            self._journal = Unspooled(self._target)

    def release_memory(self) -> None:
        """Let go of memory if nobody is using the file this moment. Does not wait."""
        writer = self._writer
        if writer is not None and self.lock.acquire(blocking=False):
            try:
                writer.release_memory()
            finally:
                self.lock.release()

    def _edited(self) -> BlobWriter:
        self._raise_failure()
        if self._writer is None:
            assert self.base is not None
            if self.base.kind is not BlobKind.BLOCK:
                raise Unsupported(f"{self.name}: a {self.base.kind.value} can be read, not written")
            self._writer = self._new_writer()
        return self._writer

    def _new_writer(self) -> BlobWriter:
        return self._make_writer(self.name, self.base, self._journal.read_into)

    def _edit(self, note: Callable[[], None], change: Callable[[], None]) -> None:
        """Change the content, noting it in the journal before."""

        def noted_change() -> None:
            note()
            try:
                change()
            except (Failure, OnlyStaged):
                self._journal.undo()
                raise

        self._with_bytes(noted_change)

    def _with_bytes(self, action: Callable[[], Result]) -> Result:
        """Run `action`; if it needs bytes that are staged and gone from memory, commit them first.

        If the blob has changed, look whether a write without a reply has done that.
        """
        try:
            return action()
        except OnlyStaged:
            assert self._writer is not None
            self._commit_content(self._writer)
        except Changed:
            if not self.adopt_unanswered_write():
                raise
        return action()

    def _note_change(self) -> None:
        now = time.time_ns()
        self.attributes = self.attributes._replace(mtime_ns=now, ctime_ns=now)
        self._attributes_changed = True

    def _commit_changes(self) -> None:
        if self._writer is not None and self._writer.is_changed:
            self._commit_content(self._writer)
        else:
            try:
                self._store_attributes(self.attributes)
            except NotFound as failure:
                raise Changed(f"{self.name}: was removed by somebody else: {failure}") from failure
            self.unnoted_commit = self.base
            self._note_committed()

    def _commit_content(self, writer: BlobWriter) -> None:
        self.adopt_unanswered_write()
        try:
            try:
                self._commit_once(writer)
            except (Changed, AlreadyExists):
                if not self.adopt_unanswered_write():  # one that was carried out only after the first look
                    raise
                self._commit_once(writer)
        except (Changed, AlreadyExists) as failure:
            self.state, self.permanent_failure = FileState.FAILED, copy.copy(failure)
            self._leave_conflict(failure)
            raise
        self._note_committed()

    def _commit_once(self, writer: BlobWriter) -> None:
        target = self._target()
        self._journal.request_commit()
        with self._unanswered.noted(target.metadata):
            properties = Properties(target.metadata, target.headers)
            self.base = self.unnoted_commit = writer.commit(properties, replacing(target.expected_etag))

    def _note_committed(self) -> None:
        self._attributes_changed = self.is_requested = False
        self._journal.end()

    def _leave_conflict(self, failure: Failure) -> None:
        cure = self._journal.leave(str(failure))
        if cure:
            logger.error("%s: somebody else wrote it too; ours is kept, see: %s", self.name, cure)

    def _target(self) -> Target:
        """Return what the next commit is to make of the file."""
        base = self.base
        return Target(
            self.name,
            base_etag=base.etag if base is not None else "",
            base_bytes=base.size_bytes if base is not None else 0,
            replaced_etag=self._replaces_etag if base is None else "",
            metadata=metadata_of(self.attributes, self._foreign_metadata()),
            headers=base.headers if base is not None else self._guess_headers(self.name),
        )

    def _store_attributes(self, attributes: Attributes) -> None:
        self.adopt_unanswered_write()
        assert self.base is not None
        metadata = metadata_of(attributes, self._foreign_metadata())
        check_size(metadata)
        with self._unanswered.noted(metadata):
            etag = self._store.set_metadata(self.base.version, metadata)
        self.base = self.base._replace(etag=etag, metadata=metadata)
        if self._writer is not None:
            self._writer.rebase(self.base)
        self.attributes, self._attributes_changed = attributes, False

    def _foreign_metadata(self) -> Mapping[str, str]:
        return self.base.metadata if self.base is not None else {}

    def _raise_failure(self) -> None:
        if self.permanent_failure is not None:
            raise copy.copy(self.permanent_failure)  # raised, an exception refers to all that was there then
