"""Open files that have lost their name, by the hidden names that libfuse gives them.

libfuse removes a hidden name after the last close it knows of. An open by that name may be under way
then, and its handle goes on using the name. A file that is closed while it loses its name
may never have its hidden name removed, so one that has no handle is not kept for long.
"""

import threading

import cachetools

from blobfs.errors import Changed, NotFound
from blobfs.filesystem.file_table import FileTable
from blobfs.filesystem.files import File
from blobfs.format.names import is_within

REMEMBERED_NAMES = 10_000  # far more than can be given while one call is on its way


class Orphans:
    """Files without a name, each known while it has a handle, or an open may be under way. Never waits."""

    def __init__(self, files: FileTable) -> None:
        self._files = files
        self._lock = threading.Lock()  # guards the maps below, and handles that come by a hidden name
        self._orphans: dict[str, File] = {}
        self._removed: dict[File, str] = {}  # hidden names that are gone, of files with handles
        self._given: cachetools.LRUCache[str, bool] = cachetools.LRUCache(REMEMBERED_NAMES)

    def add(self, hidden_path: str, file: File) -> None:
        """Have a file found by a hidden name."""
        with self._lock:
            self._orphans[hidden_path] = file
            self._given[hidden_path] = True

    def get(self, hidden_path: str) -> File:
        """Return the file of a hidden name.

        Raises Changed for one that is gone: the kernel then looks for what has the file's old name
        now. Raises NotFound for one that never was: libfuse asks for a name before it gives it.
        """
        with self._lock:
            return self._get(hidden_path)

    def enter(self, hidden_path: str) -> File:
        """Count one more handle of the file of a hidden name, and return the file. Raises as `get` does."""
        with self._lock:
            return self._files.enter(self._get(hidden_path))

    def leave(self, file: File) -> None:
        """Forget a file that has just lost its last handle, if its hidden name was removed before."""
        with self._lock:
            if file in self._removed and not file.handles:
                del self._orphans[self._removed.pop(file)]

    def remove(self, hidden_path: str) -> bool:
        """Forget a hidden name as soon as its file has no handle; tell whether there was such a name."""
        with self._lock:
            file = self._orphans.get(hidden_path)
            if file is not None and file.handles:
                self._removed[file] = hidden_path
            elif file is not None:
                del self._orphans[hidden_path]
            return hidden_path in self._given

    def forget_unused(self, file: File) -> None:
        """Forget a file that has no handle, whether or not its hidden name was removed."""
        with self._lock:
            if not file.handles:
                self._removed.pop(file, None)
                for path in [path for path, orphan in self._orphans.items() if orphan is file]:
                    del self._orphans[path]

    def rename(self, old_path: str, new_path: str) -> None:
        """Have the hidden names in a directory, and in those below it, follow it to its new name."""
        with self._lock:
            for path in [path for path in self._orphans if is_within(path, old_path)]:
                moved = new_path + path[len(old_path) :]
                file = self._orphans[moved] = self._orphans.pop(path)
                self._given[moved] = True
                if file in self._removed:
                    self._removed[file] = moved

    def _get(self, hidden_path: str) -> File:
        file = self._orphans.get(hidden_path)
        if file is not None:
            return file
        if hidden_path in self._given:
            raise Changed(f"{hidden_path}: the file was removed meanwhile")
        raise NotFound(f"{hidden_path}: no such file or directory")
