"""What a tree has at a path, here or in a container, as a small value that can travel between processes."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from blobfs.format.attributes import Attributes, Defaults, attributes_of
from blobfs.store import BlobInfo, Condition, replacing


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory, link or node of a tree."""

    path: str  # below the root of the tree, without slashes at its ends; empty for the root
    attributes: Attributes
    size_bytes: int
    blob: BlobInfo | None = None  # what it is on the service; None here, and for a mere prefix there
    problem: str = ""  # why it cannot be copied, if it cannot

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.attributes.is_directory

    @property
    def kind(self) -> int:
        """Its type, as in st_mode."""
        return stat.S_IFMT(self.attributes.mode)

    def has_content_of(self, other: "Entry") -> bool:
        """Tell whether this was not written since it was `other`.

        Not by the time of the status: that changes when another link to the file goes.
        """
        mine = self.kind, self.size_bytes, self.attributes.mtime_ns
        return mine == (other.kind, other.size_bytes, other.attributes.mtime_ns)


@dataclass(frozen=True, slots=True)
class Work:
    """One entry to be copied, or compared: all that a worker needs to know."""

    source: Entry
    origin: str  # its path here, or the name of its blob
    target: str  # likewise
    replaces: Entry | None = None  # what stands there

    @property
    def condition(self) -> Condition:
        """When the copy may take its place on the service: while that is as it was seen.

        What was seen may have another name: `d/` marks a directory, whose copy is called `d`.
        """
        there = self.replaces.blob if self.replaces is not None else None
        return replacing(there.etag if there is not None and there.name == self.target else "")


def entry_of_blob(path: str, blob: BlobInfo, defaults: Defaults) -> Entry:
    """Return what a blob is at a path."""
    attributes = attributes_of(blob, defaults)
    has_bytes = attributes.is_regular or attributes.is_symlink
    return Entry(path, attributes, blob.size_bytes if has_bytes else 0, blob)


def entry_of_file(path: str, status: os.stat_result) -> Entry:
    """Return what a file here is at a path, but for its extended attributes."""
    attributes = Attributes(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        atime_ns=status.st_atime_ns,
        rdev=status.st_rdev,
    )
    has_bytes = attributes.is_regular or attributes.is_symlink
    return Entry(path, attributes, status.st_size if has_bytes else 0)


def virtual_directory(path: str) -> Entry:
    """Return a directory that is only part of the names of blobs."""
    return Entry(path, Attributes(stat.S_IFDIR | 0o777, 0, 0, 0, 0, 0), 0)


def above(path: str) -> Iterator[str]:
    """Yield the directories that a path is in, the nearest first, but for the root."""
    while path := path.rpartition("/")[0]:
        yield path


def with_xattrs(attributes: Attributes, file: int | str) -> Attributes:
    """Return the attributes with the ``user.*`` ones of an open file, or of a directory. Raises OSError."""
    try:
        names = os.listxattr(file)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return attributes
        raise
    found = {
        name.removeprefix("user."): os.getxattr(file, name)
        for name in names
        # A mount's own facts about the blob are not the file's.
        if name.startswith("user.") and not name.startswith("user.blobfs.")
    }
    return attributes._replace(xattrs=found) if found else attributes
