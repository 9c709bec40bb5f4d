"""Blobs whose names are gone here and that are still to be deleted.

There are two kinds. A file that was open when its name was taken away: whether that was an unlink or
the first half of a rename over it is not known at that moment, so its blob goes a moment later, or
the rename replaces it. And, with write-back, a name that was removed: its blob goes in the background.

libfuse makes both halves of a rename by one thread, one right after the other. But on a machine with
more to do than processors that thread may not run for long, so the moment lasts while it seems to lack
a processor or a lock. It is over when the thread asks for the name, or for the kernel's next request.
"""

import copy
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from blobfs.blocks import MAX_BATCH_REQUESTS
from blobfs.errors import Changed, Failure, NotFound, raise_first
from blobfs.filesystem.files import File
from blobfs.filesystem.volume import Volume
from blobfs.format.names import is_within, split_path
from blobfs.proc import is_reading, lacks_processor_or_lock, own_task
from blobfs.store import BlobVersion, Condition

logger = logging.getLogger(__name__)

GRACE_SECONDS = 0.05  # libfuse's two calls of a rename follow each other in microseconds
MOST_GRACES = 6  # for a thread that is busy with something else

GATHERING_SECONDS = 0.02  # in which more names are removed that can go by the same request
FEWEST_TOGETHER = 2  # a request of its own can do the same for one, and tells why it failed

GLANCE_SECONDS = 0.001  # after which somebody who waits looks again what that thread does

_CURE = "it is there again, to be removed again or written anew"

_KERNEL = "/dev/fuse"


class Taken(NamedTuple):
    """What a rename takes over: the blob that it replaces, and who had that open."""

    etag: str
    file: File | None


NOTHING = Taken("", None)


@dataclass(slots=True)
class _Deletion:
    """One blob that is to go, if it is still the version that was removed."""

    etag: str  # empty for a file that was never committed: nothing is to go but its name
    is_certain: bool  # the name was removed; otherwise a rename may replace the blob
    thread_id: int  # of who began it
    file: File | None  # that still has handles
    is_under_way: bool = False


class Deletions:
    """Deletions of a volume that are still to be done, by path; `most_behind` of them may be certain."""

    def __init__(self, volume: Volume, *, most_behind: int) -> None:
        self._volume = volume
        self._most_behind = most_behind
        self._changed = threading.Condition()  # guards the fields below; never held across a request
        self._due: dict[str, _Deletion] = {}
        self._behind: list[tuple[str, _Deletion]] = []  # certain ones that nobody has begun
        self._left: Counter[str] = Counter()  # blobs that are due and still there, by directory
        self._failed: dict[str, Failure] = {}  # certain ones, until a barrier has told
        self._unkept: dict[str, Failure] = {}  # last names of directories that have no marker yet, and why

    @property
    def may_wait(self) -> bool:
        """Tell whether one more blob may be deleted in the background."""
        return len(self._due) < self._most_behind

    def delete_behind(self, path: str, etag: str) -> None:
        """Have a blob deleted in the background, with those that follow. From now on its name is gone."""
        deletion = self._add(path, etag, None)
        with self._changed:
            self._behind.append((path, deletion))
            is_first = len(self._behind) == 1
        if is_first:
            self._volume.transfers.run_after(GATHERING_SECONDS, self._carry_out_behind)

    def delete_later(self, path: str, etag: str, file: File) -> None:
        """Have an open file's blob deleted soon, unless a rename takes it over: the calling thread's next.

        Without an ETag the file has none, and is only known to a rename.
        """
        self._await(path, self._add(path, etag, file), MOST_GRACES)

    def is_gone(self, path: str) -> bool:
        """Tell whether a name is gone though its blob is there.

        Blocks until that is known, for the graces and a request at most.
        """
        if path not in self._due:
            return False
        with self._changed:
            while (deletion := self._due.get(path)) is not None and not deletion.is_certain:
                own_id = threading.get_native_id()
                if deletion.thread_id == own_id or is_at_rest(own_task(deletion.thread_id)):
                    deletion.is_certain = True
                    self._changed.notify_all()
                else:
                    self._changed.wait(GLANCE_SECONDS)
            return deletion is not None

    def entries_due(self, path: str) -> set[str]:
        """Return the entries of a directory whose blobs are still to be deleted."""
        prefix = path.rstrip("/") + "/"
        return {due[len(prefix) :] for due in self._due_below(path) if "/" not in due[len(prefix) :]}

    def certain(self) -> list[str]:
        """Return the paths that were removed and whose blobs are still to be deleted."""
        with self._changed:
            return [path for path, deletion in self._due.items() if deletion.is_certain and deletion.etag]

    def unkept(self) -> list[tuple[str, Failure]]:
        """Return the directories that have lost their last blob and got no marker, and why."""
        with self._changed:
            found = [(split_path(path)[0], failure) for path, failure in self._unkept.items()]
        return [(path, failure) for path, failure in found if self._volume.namespace.is_known_empty(path)]

    def forget_unkept(self, path: str) -> None:
        """Make no marker for a directory any more: it is gone."""
        with self._changed:
            for entry in [entry for entry in self._unkept if split_path(entry)[0] == path]:
                del self._unkept[entry]

    def take_over(self, path: str) -> Taken:
        """Leave a blob to a rename that replaces it, if one is due.

        What was removed for certain is deleted first: the rename may fail. Raises Failure.
        """
        if path not in self._due:
            return NOTHING
        with self._changed:
            self._changed.wait_for(lambda: not self._is_under_way(path))
            deletion = self._due.get(path)
            if deletion is not None and not deletion.is_certain:
                self._count_down(path)
                self._remove(path)
                return Taken(deletion.etag, deletion.file)
        self.carry_out(path)
        return NOTHING

    def carry_out(self, path: str) -> None:
        """Delete the blob of a path now, if that is still to be done. Raises Failure: the name is back.

        What replaced an open file's blob since it lost its name stays, for that came later.
        """
        deletion = self._begin(path)
        if deletion is None:
            return
        try:
            self._delete(path, deletion.etag)
        except Failure as failure:
            self._volume.namespace.forget(path)
            if deletion.file is not None and isinstance(failure, Changed):
                return
            self._report(path, deletion, failure)
            raise
        finally:
            with self._changed:
                self._remove(path)

    def carry_out_below(self, path: str) -> None:
        """Do all that is still to be done below a directory. Raises the first failure."""
        raise_first(self._carry_out_all(self._due_below(path)))

    def carry_out_entries(self, path: str) -> None:
        """Do all that is still to be done in a directory. Raises the first failure, of earlier ones too."""
        prefix = path.rstrip("/") + "/"
        self._carry_out_all(prefix + entry for entry in self.entries_due(path))
        with self._changed:
            failed = [failed for failed in self._failed if split_path(failed)[0] == path]
            failures = [self._failed.pop(path) for path in failed]
        raise_first(failures + self._keep_all(lambda directory: directory == path))

    def sync(self, path: str) -> list[Failure]:
        """Do all that is still to be done in and below a path; return what failed."""
        failures = self._carry_out_all([path, *self._due_below(path)])
        return failures + self._keep_all(lambda directory: is_within(directory, path))

    def _add(self, path: str, etag: str, file: File | None) -> _Deletion:
        deletion = _Deletion(etag, file is None, threading.get_native_id(), file)
        with self._changed:
            self._due[path] = deletion
            self._left[split_path(path)[0]] += 1
            self._failed.pop(path, None)
        return deletion

    def _remove(self, path: str) -> None:
        del self._due[path]
        self._changed.notify_all()

    def _begin(self, path: str) -> _Deletion | None:
        """Return what the caller has to do now; None if it is done."""
        if path not in self._due:
            return None
        with self._changed:
            self._changed.wait_for(lambda: not self._is_under_way(path))
            deletion = self._due.get(path)
            if deletion is not None:
                deletion.is_under_way = True
            return deletion

    def _begin_batch(self, paths: Iterable[str]) -> dict[BlobVersion, str]:
        """Return what one request may do of this, by version; the caller has to do it now."""
        with self._changed:
            due = [(path, self._due[path]) for path in paths if path in self._due]
            ready = [(path, one) for path, one in due if one.is_certain and one.etag and not one.is_under_way]
            if len(ready) < FEWEST_TOGETHER:
                return {}
            for _, deletion in ready:
                deletion.is_under_way = True
        return {BlobVersion(self._volume.names.blob_name(path), one.etag): path for path, one in ready}

    def _put_back(self, paths: Iterable[str]) -> None:
        """Leave what was begun to others."""
        with self._changed:
            for path in paths:
                self._due[path].is_under_way = False
            self._changed.notify_all()

    def _delete(self, path: str, etag: str) -> None:
        """Delete a blob. Raises Failure; the directory has lost the name, or will have it again.

        Without an ETag there is no blob, or not any more.
        """
        try:
            if etag:
                with suppress(NotFound):
                    self._volume.store.delete(self._volume.names.blob_name(path), Condition(if_match=etag))
            self._volume.namespace.record(path, None)
        finally:
            self._leave_directory(path)

    def _note_deleted(self, path: str) -> None:
        """End the deletion of a blob that went with others."""
        try:
            self._delete(path, etag="")
        finally:
            with self._changed:
                self._remove(path)

    def _leave_directory(self, path: str) -> None:
        """Count one blob less that is due in a directory; without any, the directory may need a marker."""
        with self._changed:
            is_last = self._count_down(path)
        if is_last:
            with suppress(Failure):  # the name is gone all the same, and the next barrier tells
                self._keep_directory(path)

    def _keep_directory(self, path: str) -> None:
        """Have the directory of a name stay that may have been its last. Raises Failure: try again then."""
        try:
            self._volume.keep_parent_of(path)
        except Failure as failure:
            if path not in self._unkept:
                directory = split_path(path)[0]
                logger.error("%s is empty, and no marker could be made to keep it: %s", directory, failure)
            with self._changed:
                self._unkept[path] = copy.copy(failure)
            raise
        with self._changed:
            self._unkept.pop(path, None)

    def _keep_all(self, is_wanted: Callable[[str], bool]) -> list[Failure]:
        """Try again to keep those directories that are wanted; return what failed."""
        with self._changed:
            paths = [path for path in self._unkept if is_wanted(split_path(path)[0])]
        return self._volume.transfers.failures_of_each(self._keep_directory, paths)

    def _count_down(self, path: str) -> bool:
        """Count one blob less that is due in a directory; tell whether none is left."""
        parent = split_path(path)[0]
        self._left[parent] -= 1
        if self._left[parent]:
            return False
        del self._left[parent]
        return True

    def _is_under_way(self, path: str) -> bool:
        return path in self._due and self._due[path].is_under_way

    def _due_below(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        return [due for due in list(self._due) if due.startswith(prefix)]

    def _carry_out_all(self, paths: Iterable[str]) -> list[Failure]:
        transfers = self._volume.transfers
        due = [path for path in paths if path in self._due]
        left = transfers.for_each(self._carry_out_batch, transfers.shares(due, MAX_BATCH_REQUESTS))
        return transfers.failures_of_each(self.carry_out, chain.from_iterable(left))

    def _carry_out_batch(self, paths: Sequence[str]) -> list[str]:
        """Carry out as much of this as one request can do; return the others."""
        begun = self._begin_batch(paths)
        try:
            left = set(begun)
            if begun:
                with suppress(Failure):  # each is carried out alone, and tells
                    left = set(self._volume.store.delete_batch(list(begun)))
            for version in [version for version in begun if version not in left]:
                self._note_deleted(begun.pop(version))
        finally:
            self._put_back(begun.values())
        return [path for path in paths if path in self._due]

    def _carry_out_behind(self) -> None:
        """Carry out what was removed meanwhile, or have it carried out; failures are reported."""
        with self._changed:
            behind, self._behind = self._behind, []
        run_in_background = self._volume.transfers.run_in_background
        for start in range(0, len(behind), MAX_BATCH_REQUESTS):
            share = behind[start : start + MAX_BATCH_REQUESTS]
            self._carry_out_batch([path for path, _ in share])
            for path, deletion in share:
                if self._due.get(path) is deletion:
                    run_in_background(partial(self._carry_out_unasked, path, deletion))

    def _await(self, path: str, deletion: _Deletion, graces: int) -> None:
        again = partial(self._carry_out_after_grace, path, deletion, graces - 1)
        self._volume.transfers.run_after(GRACE_SECONDS, again)

    def _carry_out_after_grace(self, path: str, deletion: _Deletion, graces: int) -> None:
        is_awaited = self._due.get(path) is deletion and not deletion.is_certain
        if graces and is_awaited and lacks_processor_or_lock(own_task(deletion.thread_id)):
            self._await(path, deletion, graces)
        else:
            self._carry_out_unasked(path, deletion)

    def _carry_out_unasked(self, path: str, deletion: _Deletion) -> None:
        """Carry out what the caller was told of; a later removal of the same name has its own time."""
        if self._due.get(path) is deletion:
            with suppress(Failure):  # reported by then
                self.carry_out(path)

    def _report(self, path: str, deletion: _Deletion, failure: Failure) -> None:
        """Say that a name is back."""
        if deletion.is_certain:
            logger.error("%s was removed, but that could not be carried out: %s", path, failure)
            reason = f"removed, but that could not be carried out: {failure}; {_CURE}"
            self._volume.lost_changes.note(path, reason)
            with self._changed:
                self._failed[path] = copy.copy(failure)  # raised, it refers to the file and all its bytes
        else:
            logger.error("%s was removed while open, but could not be deleted: %s", path, failure)


def is_at_rest(task: Path) -> bool:
    """Tell whether a thread, by its directory in /proc, waits for the kernel to ask for something."""
    return is_reading(task, _KERNEL)
