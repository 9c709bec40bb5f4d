"""Inode numbers and directory times: what POSIX wants of names and the Blob service does not keep.

A number is a hash of the name, so it is the same on every node and after a remount; a renamed
file takes its number along as long as this mount lives. Both tables are bounded.
"""

import itertools
import threading

import cachetools
import xxhash

REMEMBERED = 100_000  # names; older ones fall back to the hash, or to the stored time
ROOT = 1


class InodeNumbers:
    """Numbers by blob name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the map
        self._moved: cachetools.LRUCache[str, int] = cachetools.LRUCache(REMEMBERED)
        self._changes = itertools.count()

    def of(self, name: str) -> int:
        """Return the number of a name."""
        if not name:
            return ROOT
        if name not in self._moved:
            return _hashed(name)
        with self._lock:
            return self._moved.get(name) or _hashed(name)

    def rename(self, old: str, new: str) -> None:
        """Move the number of `old` to `new`. If `old` is used again, it gets another one."""
        number = self.of(old)
        with self._lock:
            self._moved[new] = number
        self.retire(old)

    def retire(self, name: str) -> None:
        """Forget the name's number: if it is used again, it gets another one."""
        with self._lock:
            self._moved[name] = _hashed(f"{name}\0{next(self._changes)}")


class DirectoryTimes:
    """When this mount last changed what is in a directory, by blob name, in nanoseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the map
        self._changed_ns: cachetools.LRUCache[str, int] = cachetools.LRUCache(REMEMBERED)

    def touch(self, name: str, time_ns: int) -> None:
        """Note a change of the directory's entries."""
        with self._lock:
            self._changed_ns[name] = time_ns

    def get(self, name: str) -> int:
        """Return the time of the last change, 0 if there was none."""
        with self._lock:
            return self._changed_ns.get(name, 0)

    def rename(self, old: str, new: str) -> None:
        """Move the times of a directory and all below it to its new name."""
        with self._lock:
            self._changed_ns.pop(new, None)
            for name in [name for name in self._changed_ns if name == old or name.startswith(f"{old}/")]:
                self._changed_ns[new + name[len(old) :]] = self._changed_ns.pop(name)

    def forget(self, name: str, time_ns: int | None = None) -> None:
        """Go back to the times that the marker says, unless the directory changed after `time_ns`."""
        with self._lock:
            if time_ns is None or self._changed_ns.get(name) == time_ns:
                self._changed_ns.pop(name, None)


def _hashed(text: str) -> int:
    return (xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogateescape")) >> 1) | 2
