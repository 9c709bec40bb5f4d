"""When files are committed: at close and fsync, or, closed and safe on the local disk, in the background.

A file that was closed and is not committed yet stays in the table of files, and what knows names asks
there first: for this mount, it is as if it were committed.
"""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from blobfs.errors import (
    AccessDenied,
    AlreadyExists,
    Busy,
    Changed,
    Damaged,
    Failure,
    TimedOut,
    Unavailable,
    failure_of,
    raise_first,
)
from blobfs.filesystem.files import File
from blobfs.filesystem.upload_queue import UploadQueue
from blobfs.filesystem.volume import Volume
from blobfs.format.names import is_temporary_name

logger = logging.getLogger(__name__)

RECOMMIT_SECONDS = (5.0, 60.0)  # first and longest wait before a closed file is committed again
CURABLE = (AccessDenied, Busy, Damaged, TimedOut, Unavailable)  # by time, or by a new credential
RENAME_SECONDS = 2.0  # a temporary name that was not renamed by then is committed as it is
OPEN, CLOSED = "still open", "closed, on its way"  # why a file is uncommitted that has not failed


@dataclass(frozen=True, slots=True)
class WriteBack:
    """How much may wait for its upload after its close; what is closed beyond that, close itself sends."""

    files: int
    buffered_bytes: int


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """What the service does not have yet of a file or directory, and why."""

    path: str
    reason: str
    size_bytes: int = 0  # that were written and are not there
    has_failed: bool = False


class Commits:
    """Commits files of a volume. Without `write_back` none waits, but for rsync's temporary ones."""

    def __init__(self, volume: Volume, write_back: WriteBack | None) -> None:
        self._volume = volume
        limits = write_back or WriteBack(files=0, buffered_bytes=0)
        self._queue = UploadQueue(files=limits.files, buffered_bytes=limits.buffered_bytes)
        self._lock = threading.Lock()  # guards the field below
        self._waits_seconds: dict[File, float] = {}  # before those that failed are committed again

    def close(self, file: File) -> None:
        """Commit what a descriptor that is being closed may have written, or see that it will be committed.

        Blocks. Raises what `File.commit` raises.
        """
        if _awaits_rename(file):
            file.request_commit()
        elif self._volume.files.has(file):
            self.commit_soon(file)
        else:  # in the background only the one that has the name is found again
            self.commit(file)

    def commit_soon(self, file: File) -> None:
        """Have the file committed now, or in the background if that is as safe. Raises what `commit` does."""
        if not self._commit_behind(file):
            self.commit(file)

    def commit(self, file: File) -> None:
        """Commit what the file has, and return when the service has acknowledged it. Raises Failure."""
        volume, path = self._volume, self._volume.path_of(file.name)
        try:
            committed = file.commit()
        except (Changed, AlreadyExists):
            volume.namespace.forget(path)  # somebody else has made it something we have not seen
            raise
        if committed:
            volume.note_commit(file)
            if not file.has_lost_pages:
                volume.lost_changes.forget(path)
        if self._forget(file):
            logger.warning("%s is committed after all", file.name)
        volume.files.forget_committed(file)

    def commit_all(self, files: Iterable[File]) -> list[Failure]:
        """Commit files side by side, those that wait as well; return what failed. Blocks."""
        return self._volume.transfers.failures_of_each(self.commit, files)

    def commit_closed(self, prefix: str) -> None:
        """Commit the files directly below a prefix that somebody has closed. Raises the first failure."""
        files = [file for file in self._volume.files.under(prefix) if _is_closed(file)]
        raise_first(self.commit_all(file for file in files if "/" not in file.name[len(prefix) :]))

    def release(self, file: File) -> None:
        """Have a file committed after its last handle is gone.

        If the service is away or refuses the credential, the bytes stay here and are tried again from
        time to time, and by `commit_all`. After other failures they are lost, and named.
        """
        if _awaits_rename(file):
            # By its name: once it has another one, nobody needs its bytes here.
            self._volume.transfers.run_after(RENAME_SECONDS, partial(self._commit_unrenamed, file.name))
        # Bytes stored through a memory map come after the last flush, and a plain mknod has no flush.
        elif not self._volume.files.has(file) or not self._commit_behind(file):
            self._commit_released(file)

    def uncommitted(self) -> Iterable[Uncommitted]:
        """Name the files whose bytes the service does not have."""
        for file in self._volume.files:
            if file.is_uncommitted:
                failure = file.permanent_failure or file.last_commit_failure
                reason = str(failure) if failure else OPEN if file.handles else CLOSED
                path, size_bytes = self._volume.path_of(file.name), file.uncommitted_bytes
                yield Uncommitted(path, reason, size_bytes, has_failed=failure is not None)
        for path, reason in self._volume.lost_changes.below("/"):
            yield Uncommitted(path, reason, has_failed=True)

    def _commit_behind(self, file: File) -> bool:
        """Have the file committed in the background, unless that is not safe or too much waits already."""
        queue, buffered_bytes = self._queue, file.buffered_bytes
        if not queue.has_room(file, buffered_bytes) or not file.request_commit():
            return False
        queue.add(file, buffered_bytes)
        self._send_due()
        return True

    def _send_due(self) -> None:
        for file in self._queue.take_due():
            self._volume.transfers.run_in_background(partial(self._commit_later, file))
        seconds = self._queue.seconds_to_next()
        if seconds is not None:
            self._volume.transfers.run_after(seconds, self._send_due)

    def _commit_unrenamed(self, name: str) -> None:
        file = self._volume.files.get(name)
        if file is not None:
            self._commit_later(file)

    def _commit_later(self, file: File) -> None:
        """Commit a closed file as it is, unless it is gone, or being written anew: then its close does."""
        with file.lock:
            if self._volume.files.get(file.name) is file and _is_closed(file):
                self._commit_released(file)
            else:
                self._forget(file)

    def _commit_released(self, file: File) -> None:
        failure = failure_of(self.commit, file)
        if isinstance(failure, CURABLE) and self._volume.files.has(file):  # else it is not found again
            self._keep(file, failure)
        elif failure is not None:
            self._forget(file)
            if not file.handles:  # otherwise they are told
                self._lose(file, failure)

    def _forget(self, file: File) -> bool:
        """Count a file no longer among those to be committed; tell whether that had failed before."""
        self._queue.discard(file)
        with self._lock:
            return self._waits_seconds.pop(file, None) is not None

    def _lose(self, file: File, failure: Failure) -> None:
        self._volume.lost_changes.note(self._volume.path_of(file.name), str(failure))
        logger.error("%s was closed without being committed: %s", file.name, failure)
        if cure := file.leave_journal():
            logger.error("%s is in the spool; see: %s", file.name, cure)
        self._volume.files.forget_unused(file)

    def _keep(self, file: File, failure: Failure) -> None:
        """Keep what could not be sent, and try again later."""
        first_seconds, longest_seconds = RECOMMIT_SECONDS
        with self._lock:
            last_seconds = self._waits_seconds.get(file, 0.0)
            wait_seconds = min(2 * last_seconds or first_seconds, longest_seconds)
            self._waits_seconds[file] = wait_seconds
        if not last_seconds:
            logger.error("%s was closed and is not committed yet, but kept: %s", file.name, failure)
        self._volume.transfers.run_after(wait_seconds, lambda: self._commit_later(file))


def _is_closed(file: File) -> bool:
    """Tell whether a close relies on its commit, whoever else has it open, or has edited it since."""
    return file.is_uncommitted and (file.is_requested or not file.handles)


def _awaits_rename(file: File) -> bool:
    """rsync writes to a temporary name: while all of the file is in memory, the rename can be its commit."""
    return is_temporary_name(file.name) and file.can_move_unsent()
