"""POSIX paths and blob names, each way. Pure: no I/O, no clock.

A path starts with ``/`` and is relative to the mountpoint; a name does not, and carries the
mount's prefix. A name that would not come back unchanged is refused on the way in and not
shown on the way out, by the one rule in `refusal`.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from blobfs.errors import InvalidName, NameTooLong

MAX_ENTRY_BYTES = 255  # NAME_MAX

# The names libfuse gives to files that are deleted while open. They live in memory only.
_HIDDEN = ".fuse_hidden"
HIDDEN_NAME = re.compile(r"^\.fuse_hidden[0-9a-f]{16}\Z")

_TEMPORARY_NAME = re.compile(r"\..+\.[A-Za-z0-9]{6}")

# The common case in one match: printable ASCII, no backslash, and no dot in front, where the
# reserved names have theirs. Whatever does not match gets the long look of `refusal`.
_ORDINARY = r"(?!\.)[ -.0-\[\]-~]{1,255}"
_ORDINARY_ENTRY = re.compile(_ORDINARY)
_ORDINARY_PATH = re.compile(f"(?:/{_ORDINARY})+")

_TOO_LONG = f"longer than {MAX_ENTRY_BYTES} bytes"
_REFUSED = (
    (re.compile(r"\A\Z"), "empty"),
    (re.compile(r"\A\.\.?\Z"), "reserved for the directory itself and its parent"),
    (re.compile("/"), "more than one component"),
    (re.compile(r"[\x00-\x1f\x7f]"), "contains a control character"),
    (re.compile(r"\\"), "contains a backslash, which some services and tools turn into a slash"),
    (re.compile(r"[\ud800-\udfff]"), "not UTF-8"),
    # Listings are XML, which has no U+FFFE and U+FFFF; U+FFFD stands there for what it cannot carry.
    (re.compile(r"[\ufffd-\uffff]"), "contains a character that listings cannot carry"),
    (HIDDEN_NAME, "reserved for files that are deleted while open"),
)


def refusal(entry: str) -> str:
    """Return why one path component cannot be a POSIX name that reads back unchanged; empty if it can."""
    if _ORDINARY_ENTRY.fullmatch(entry):
        return ""
    for pattern, reason in _REFUSED:
        if pattern.search(entry):
            return reason
    return _TOO_LONG if len(entry.encode()) > MAX_ENTRY_BYTES else ""


def is_within(path: str, directory: str) -> bool:
    """Tell whether a path is that of a directory or of something below it."""
    return f"{path}/".startswith(directory.rstrip("/") + "/")


def is_hidden_name(path_or_entry: str) -> bool:
    """Tell whether the last component is one that libfuse made for a file deleted while open."""
    # Nearly no path has the word in it, which is found out much sooner than all of this.
    return _HIDDEN in path_or_entry and HIDDEN_NAME.match(path_or_entry.rpartition("/")[2]) is not None


def is_temporary_name(path_or_entry: str) -> bool:
    """Tell whether the last component is one that rsync writes before it renames: ``.NAME.XXXXXX``."""
    return _TEMPORARY_NAME.fullmatch(path_or_entry.rpartition("/")[2]) is not None


def split_path(path: str) -> tuple[str, str]:
    """Return the parent and the last component: ``("/a", "b")`` for ``/a/b``, ``("/", "a")`` for ``/a``."""
    parent, _, entry = path.rpartition("/")
    return parent or "/", entry


def normalized_prefix(text: str) -> str:
    """Return the subtree to mount, as users write it, in the form `NameMap` wants.

    Slashes at either end do not matter; nothing but slashes means the whole container.
    Raises InvalidName or NameTooLong for a component that no path could have.
    """
    trimmed = text.strip("/")
    if not trimmed:
        return ""
    _check_components(trimmed)
    return f"{trimmed}/"


@dataclass(frozen=True, slots=True)
class NameMap:
    """Where the mounted subtree lies in the container, and how long its names may be."""

    prefix: str = ""  # empty, or ends with "/"
    max_name_characters: int | None = None  # of the whole name, prefix included

    def blob_name(self, path: str) -> str:
        """Return the name for a path. The root is the prefix without its slash: empty for a whole container.

        Raises InvalidName or NameTooLong.
        """
        return _blob_name(path, self.prefix, self.max_name_characters)

    def directory_prefix(self, path: str) -> str:
        """Return what the names below a directory start with. Raises InvalidName or NameTooLong."""
        return self.prefix if path == "/" else f"{self.blob_name(path)}/"

    @staticmethod
    def entry_of(name: str, directory_prefix: str) -> str | None:
        """Return the entry that a listed blob name, or a prefix ending in ``/``, is in its directory.

        None if it lies elsewhere, is the directory's own marker, or cannot be shown (see `refusal`).
        """
        if not name.startswith(directory_prefix):
            return None
        entry = name[len(directory_prefix) :].removesuffix("/")
        return None if refusal(entry) else entry


@lru_cache(1000)  # each call of the kernel's asks for the same name many times
def _blob_name(path: str, prefix: str, most_characters: int | None) -> str:
    if path == "/":
        return prefix[:-1]
    name = prefix + path[1:]
    if not _ORDINARY_PATH.fullmatch(path):
        _check_components(path[1:])
    if most_characters is not None and len(name) > most_characters:
        raise NameTooLong(f"{path!r}: over {most_characters} characters as a blob name")
    return name


def _check_components(relative_path: str) -> None:
    for entry in relative_path.split("/"):
        reason = refusal(entry)
        if reason == _TOO_LONG:
            raise NameTooLong(f"{entry!r}: {reason}")
        if reason:
            raise InvalidName(f"{entry!r} in {relative_path!r}: {reason}")
