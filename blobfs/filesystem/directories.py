"""Open directories. A listing is complete before its first entry is given, uncommitted files included."""

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blobfs.errors import BadHandle
from blobfs.filesystem.deletions import Deletions
from blobfs.filesystem.files import File, FileState
from blobfs.filesystem.volume import Stat, Volume
from blobfs.format.names import is_within, split_path
from blobfs.tree.cache import Node
from blobfs.tree.namespace import DIRECTORY


class Entries(Sequence[tuple[str, Stat]]):
    """A finished listing. Each Stat is made when it is asked for: a large directory has many."""

    def __init__(self, volume: Volume, path: str, found: Mapping[str, Node | File | str]) -> None:
        self._volume = volume
        self._prefix = volume.names.directory_prefix(path)
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
            return entry, self._volume.stat_of_node(self._volume.names.blob_name(found), DIRECTORY)
        return entry, self._volume.stat_of_node(self._prefix + entry, found)


@dataclass(slots=True)
class DirectoryHandle:
    """An open directory and the entries it showed when it was last read from the start."""

    path: str
    entries: Sequence[tuple[str, Stat]] = ()


class Directories:
    """Handles of directories, and what is in one."""

    def __init__(self, volume: Volume, deletions: Deletions) -> None:
        self._volume = volume
        self._deletions = deletions
        self._lock = threading.Lock()  # guards the table
        self._numbers = itertools.count(1)
        self._handles: dict[int, DirectoryHandle] = {}

    def open(self, path: str) -> int:
        """Return a handle to read a directory with."""
        with self._lock:
            number = next(self._numbers)
            self._handles[number] = DirectoryHandle(path)
            return number

    def read(self, handle: int, *, restart: bool) -> Sequence[tuple[str, Stat]]:
        """Return ``.``, ``..`` and all entries; the same list again unless it is to `restart`."""
        directory = self._directory(handle)
        if restart:
            parent = split_path(directory.path)[0]
            found = {".": directory.path, "..": parent, **self._found(directory.path)}
            directory.entries = Entries(self._volume, directory.path, found)
        return directory.entries

    def entries(self, path: str) -> Sequence[tuple[str, Stat]]:
        """Return a directory's entries, files that are not committed yet included."""
        return Entries(self._volume, path, self._found(path))

    def _directory(self, handle: int) -> DirectoryHandle:
        try:
            return self._handles[handle]
        except KeyError:
            raise BadHandle(f"directory handle {handle} is not open") from None

    def _found(self, path: str) -> dict[str, Node | File]:
        volume = self._volume
        prefix = volume.names.directory_prefix(path)
        # Before the listing: what is committed while that is made may be missing there.
        uncommitted = [file for file in volume.files.under(prefix) if file.is_unsent]
        for file in volume.files.under(prefix):
            volume.note_commit(file)
        # Also before: what is deleted while the listing is made may still be there.
        gone = self._deletions.entries_due(path)
        found: dict[str, Node | File] = {**volume.namespace.entries(path)}
        for entry in gone | self._deletions.entries_due(path):
            found.pop(entry, None)
        uncommitted += [file for file in volume.files.under(prefix) if file.is_unsent]
        for file in uncommitted:
            entry = file.name.removeprefix(prefix)
            if file.state is not FileState.UNLINKED and file.name == prefix + entry and "/" not in entry:
                found[entry] = file
        return found

    def path(self, handle: int) -> str:
        """Return the path of an open directory."""
        return self._directory(handle).path

    def renamed(self, old_path: str, new_path: str) -> None:
        """Have the handles of a directory, and of those below it, follow it to its new name."""
        with self._lock:
            for directory in self._handles.values():
                if is_within(directory.path, old_path):
                    directory.path = new_path + directory.path[len(old_path) :]

    def close(self, handle: int) -> None:
        """Forget a directory handle."""
        with self._lock:
            self._handles.pop(handle, None)
