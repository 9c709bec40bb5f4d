"""The files that this mount has open, or has closed and not committed yet, by blob name."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain

import cachetools

from blobfs.filesystem.files import File, FileState

CLOSED_SECONDS = 10.0  # libfuse takes a file for open a little longer than we do


class FileTable:
    """One `File` under a name, shared by all who have it open and kept until it is committed. Never waits."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()  # guards the maps, and counts of handles in files
        self._files: dict[str, File] = {}
        # Open files whose name another one has, by the name whose pages in the kernel they share with it.
        self._displaced: dict[str, set[File]] = {}
        self._closed: cachetools.TTLCache[str, bool] = cachetools.TTLCache(10_000, CLOSED_SECONDS, timer=now)

    def __iter__(self) -> Iterator[File]:
        """Iterate over all files, those whose name another one has by now included."""
        with self._lock:
            return iter([*self._files.values(), *chain.from_iterable(self._displaced.values())])

    def get(self, name: str) -> File | None:
        """Return the file under a name, None if there is none."""
        return self._files.get(name)

    def has(self, file: File) -> bool:
        """Tell whether a file is the one under its name."""
        return self._files.get(file.name) is file

    def under(self, prefix: str) -> list[File]:
        """Return the files whose names start with `prefix`."""
        with self._lock:
            return [file for name, file in self._files.items() if name.startswith(prefix)]

    def was_open(self, name: str) -> bool:
        """Tell whether a file is here under a name, or was a moment ago."""
        with self._lock:
            return any(name in names for names in (self._files, self._displaced, self._closed))

    def enter(self, file: File) -> File:
        """Count one more handle of the file under its name and return that file; if there is none, this one.

        The one under the name counts if it is of the same version, or has changes that are
        still to be committed. Otherwise it stays with its own handles only.
        """
        entered = self.enter_unless(file, is_outdated=lambda: False)
        assert entered is not None
        return entered

    def enter_known(self, name: str) -> File | None:
        """Count one more handle of the file that new handles of a name may share, if there is one."""
        with self._lock:
            known = self._files.get(name)
            if known is None or known.state is not FileState.NAMED or known.permanent_failure is not None:
                return None
            known.handles += 1
            return known

    def enter_unless(self, file: File, *, is_outdated: Callable[[], bool]) -> File | None:
        """Like `enter`, but return None rather than put an outdated file in the place of another one."""
        with self._lock:
            known = self._shareable(file)
            if known is not None and (known.version == file.version or known.is_uncommitted):
                file = known
            elif is_outdated():
                return None
            elif file.state is FileState.NAMED:
                self._displace(file)
            file.handles += 1
            return file

    def _shareable(self, file: File) -> File | None:
        """Return the file that already has the name of this one, if new handles may share it."""
        known = self._files.get(file.name)
        if known is None or known.state is not file.state or known.permanent_failure is not None:
            return None
        return known

    def leave(self, file: File) -> None:
        """Count one handle less; forget the file when nobody needs it any more."""
        with self._lock:
            file.handles -= 1
            if not file.handles:
                self._forget_displaced(file)
            self._forget_committed(file)

    def forget_committed(self, file: File) -> None:
        """Forget a file that has no handles, unless it was written since it was committed."""
        with self._lock:
            self._forget_committed(file)

    def forget_unused(self, file: File) -> None:
        """Forget a file that has no handles, whatever it has not committed."""
        with self._lock:
            self._forget_unused(file)

    def add(self, file: File) -> None:
        """Make a file the one under its name; an earlier one stays with its own handles only."""
        with self._lock:
            self._displace(file)

    def remove(self, file: File) -> None:
        """Forget a file, unless another one has taken its name."""
        with self._lock:
            self._remove(file)

    def rename_pages(self, old_name: str, new_name: str) -> None:
        """Have the open files that share the kernel's pages of a name share those of its new name.

        They keep their own name: it is that of the blob whose version they are.
        """
        with self._lock:
            others = self._displaced.pop(old_name, set()) | self._displaced.pop(new_name, set())
            if others:
                self._displaced[new_name] = others

    def leave_behind(self, file: File, new_name: str) -> None:
        """Leave an open file to its own handles: a newer version has taken its name, and pages, elsewhere."""
        with self._lock:
            self._remove(file)
            if file.handles:
                self._displaced.setdefault(new_name, set()).add(file)

    def is_displaced(self, file: File) -> bool:
        """Tell whether another version of an open file was entered under its name, or has taken it."""
        with self._lock:
            return any(file in others for others in self._displaced.values())

    def name_of_pages(self, file: File) -> str:
        """Return the name whose pages in the kernel an open file's handles share."""
        with self._lock:
            return next((name for name, others in self._displaced.items() if file in others), file.name)

    def discard(self, name: str) -> None:
        """Forget whatever file is under a name."""
        with self._lock:
            self._files.pop(name, None)

    def release_memory(self, _size_bytes: int) -> None:
        """Ask every file to let go of memory it can do without."""
        for file in self:
            file.release_memory()

    def _displace(self, file: File) -> None:
        """Put a file under its name. An open one that was there still shares the kernel's pages of it."""
        other = self._files.get(file.name)
        if other is not None and other is not file and other.handles:
            self._displaced.setdefault(file.name, set()).add(other)
        file.has_foreign_pages |= file.name in self._displaced
        self._files[file.name] = file

    def _forget_displaced(self, file: File) -> None:
        for name in [name for name, others in self._displaced.items() if file in others]:
            self._displaced[name].discard(file)
            if not self._displaced[name]:
                del self._displaced[name]

    def _forget_committed(self, file: File) -> None:
        """Forget a file that has no handles, nothing to commit, and no commit that nobody has noted yet."""
        if not file.is_uncommitted and file.unnoted_commit is None:
            self._forget_unused(file)

    def _forget_unused(self, file: File) -> None:
        if not file.handles:
            self._remove(file)

    def _remove(self, file: File) -> None:
        if self.has(file):
            del self._files[file.name]
            self._closed[file.name] = True
