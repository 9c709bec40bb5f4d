"""Changes of directories' attributes that the service does not have yet.

Each sets values, whatever they were before, so it can be made again on what another client has stored.
"""

import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from blobfs.format.attributes import Attributes

Change: TypeAlias = Callable[[Attributes], Attributes]


class DirectoryChanges:
    """Changes by the name of the directory's blob, in the order in which they were made. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the map
        self._changes: dict[str, tuple[Change, ...]] = {}

    def __len__(self) -> int:
        return len(self._changes)

    def of(self, name: str) -> Sequence[Change]:
        """Return the changes of one directory."""
        return self._changes.get(name, ())

    def made_on(self, name: str, stored: Attributes) -> Attributes:
        """Return a directory's attributes: what is stored, with its changes made."""
        for change in self._changes.get(name, ()):
            stored = change(stored)
        return stored

    def add(self, name: str, *changes: Change) -> bool:
        """Add changes; tell whether they are the first of this directory."""
        with self._lock:
            known = self._changes.get(name, ())
            self._changes[name] = (*known, *changes)
            return not known

    def remove(self, name: str, stored: Sequence[Change]) -> None:
        """Forget the changes that are stored now, which were the oldest."""
        with self._lock:
            known = self._changes.get(name, ())
            if known[: len(stored)] != stored:
                return
            if left := known[len(stored) :]:
                self._changes[name] = left
            else:
                del self._changes[name]

    def take(self, name: str) -> Sequence[Change]:
        """Forget the changes of one directory and return them."""
        with self._lock:
            return self._changes.pop(name, ())

    def put_back(self, name: str, taken: Sequence[Change]) -> bool:
        """Undo `take`; tell whether no others were made since."""
        with self._lock:
            newer = self._changes.get(name, ())
            self._changes[name] = (*taken, *newer)
            return not newer

    def below(self, prefix: str) -> list[str]:
        """Return the names of changed directories: of that with this prefix and those below it."""
        with self._lock:
            return [name for name in self._changes if f"{name}/".startswith(prefix)]
