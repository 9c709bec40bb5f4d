"""What stands at the destination, by path: on disk, because it may be millions of entries.

Looking up, and not merging two sorted listings, because accounts differ in how they sort.
"""

import os
import pickle
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing

from blobfs.copying.entries import Entry, above, virtual_directory
from blobfs.errors import NoSpace

CACHE_KIB = 16 * 1024  # of the temporary database; what is more goes to the disk


class Catalogue:
    """Entries by path, and the directories that they are in. For one thread; close it.

    All methods raise NoSpace, which names the directory, if the disk has no room for it.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Blocks until all entries are in. Raises what making them raises."""
        self._database = sqlite3.connect("", isolation_level=None)  # temporary and private
        self._last_directory = ""  # above which a file was looked for last
        self._last_file: str | None = None  # what was found
        with ExitStack() as undoing:
            undoing.callback(self._database.close)
            self._execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._execute(
                "CREATE TABLE entry (path BLOB PRIMARY KEY, value BLOB, taken DEFAULT FALSE) WITHOUT ROWID"
            )
            self._execute("BEGIN")
            self._fill(entries)
            undoing.pop_all()

    def close(self) -> None:
        """Remove it."""
        self._database.close()

    def take(self, path: str) -> Entry | None:
        """Return what stands at a path, the first time; None otherwise."""
        key = (_key(path),)
        row = self._execute("SELECT value FROM entry WHERE path = ? AND NOT taken", key).fetchone()
        if row is None:
            return None
        self._execute("UPDATE entry SET taken = TRUE WHERE path = ?", key)
        return _entry(row[0])

    def file_above(self, path: str) -> str | None:
        """Return the path of the file that a path is below, None if there is none. Taken ones count.

        What has something in it is a directory, whatever else has its name.
        """
        directory = path.rpartition("/")[0]
        if directory != self._last_directory:  # one after the other, as in a tree's order
            self._last_directory, self._last_file = directory, self._look_above(path)
        return self._last_file

    def _look_above(self, path: str) -> str | None:
        for directory in above(path):
            key = _key(directory)
            row = self._execute("SELECT value FROM entry WHERE path = ?", (key,)).fetchone()
            if row is not None:
                inside = (key + b"/", key + b"0")  # the byte after a slash
                query = "SELECT 1 FROM entry WHERE path > ? AND path < ?"
                is_directory = _entry(row[0]).is_directory or self._execute(query, inside).fetchone()
                return None if is_directory else directory
        return None

    def rest(self) -> Iterator[Entry]:
        """Yield what was not taken, everything below a directory before the directory.

        Of two blobs that have one path, `x` and `x/`, one cannot be taken. A directory stands before a file.
        """
        query = "SELECT value FROM entry WHERE NOT taken ORDER BY path DESC"
        with closing(self._execute(query)) as rows:
            for (value,) in rows:
                yield _entry(value)

    def _execute(self, query: str, values: tuple[bytes, ...] = ()) -> sqlite3.Cursor:
        """Have the database do something. Raises NoSpace."""
        try:
            return self._database.execute(query, values)
        except sqlite3.OperationalError as error:
            raise NoSpace(
                f"{_directory()}: no room for the list of what is there: {error}. Name a directory with more "
                "in TMPDIR"
            ) from error

    def _fill(self, entries: Iterable[Entry]) -> None:
        last = ""
        for entry in entries:
            parent = entry.path.rpartition("/")[0]
            if parent != last:
                virtual = [(_key(path), pickle.dumps(virtual_directory(path))) for path in above(entry.path)]
                for row in virtual:
                    self._execute("INSERT OR IGNORE INTO entry (path, value) VALUES (?, ?)", row)
                last = parent
            row = (_key(entry.path), pickle.dumps(entry))
            query = "INSERT OR IGNORE INTO entry (path, value) VALUES (?, ?)"
            if not self._execute(query, row).rowcount:
                self._add_to(entry)

    def _add_to(self, entry: Entry) -> None:
        """Add an entry to one that has its path."""
        key = _key(entry.path)
        (value,) = self._execute("SELECT value FROM entry WHERE path = ?", (key,)).fetchone()
        found = _entry(value)
        first, second = sorted((found, entry), key=_precedence)
        rows = [(key, pickle.dumps(first))]
        if second.blob is not None and found.blob != entry.blob:
            rows.append((key + b"\0", pickle.dumps(second)))  # a byte that no path has
        for row in rows:
            self._execute("INSERT OR REPLACE INTO entry (path, value) VALUES (?, ?)", row)


def _directory() -> str:
    """Return where the database is: as SQLite chooses it."""
    named = [os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp"]
    usable = (path for path in named if path and os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK))
    return next(usable, ".")


def _precedence(entry: Entry) -> tuple[bool, bool, bool]:
    """Return by what entries of one path are sorted, the one that stands there first."""
    has_slash = entry.blob is not None and entry.blob.name.endswith("/")
    return entry.blob is None, not entry.is_directory, has_slash


def _key(path: str) -> bytes:
    return path.encode(errors="surrogateescape")


def _entry(value: bytes) -> Entry:
    entry: Entry = pickle.loads(value)  # from this process's own file
    return entry
