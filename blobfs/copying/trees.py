"""The two kinds of tree that are copied and compared: a directory here, and what is below a name."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from blobfs.copying.entries import Entry, above, entry_of_blob, entry_of_file, virtual_directory
from blobfs.copying.selection import Selection
from blobfs.errors import Changed, Failure, NotADirectory, NotFound
from blobfs.format.attributes import Defaults
from blobfs.format.names import NameMap, normalized_prefix
from blobfs.store import BlobInfo, BlobStore, Condition, ListPage, head_or_none, pages_of


class Tree(Protocol):
    """A directory with everything in it, or a single file."""

    def root(self) -> Entry | None:
        """Return what stands at the root itself, None for nothing. Blocks. Raises Failure, OSError."""
        ...

    def entries(self) -> Iterator[Entry]:
        """Yield everything below the root; of a local tree, a directory before what is in it. Blocks.

        What cannot be looked into has a `problem`. Raises Failure when a listing breaks off.
        """
        ...

    def address(self, path: str) -> str:
        """Return the path here, or the blob name, of what is at a path below the root.

        Raises InvalidName or NameTooLong for one that a blob cannot have. Listed ones that a file
        cannot have (``..``) never get here: they have a `problem`.
        """
        ...

    def remove(self, entry: Entry) -> bool:
        """Remove an entry; return whether it is gone. Blocks. Raises Failure, OSError."""
        ...

    def remove_files(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Remove files as far as one request can; return those for `remove`. Blocks. Raises Failure.

        At most `MAX_BATCH_REQUESTS`.
        """
        ...


class PartedTree(Tree, Protocol):
    """A tree that several processes can list, each some parts of it."""

    def level(self) -> tuple[list[Entry], list[str]]:
        """Return what is directly below the root, and names for the parts that the rest has. Blocks.

        Together with all the parts, that is everything once. Raises Failure when a listing breaks off.
        """
        ...

    def part(self, name: str) -> Iterator[Entry]:
        """Yield what is in a part, as `entries` does."""
        ...


@dataclass(frozen=True, slots=True)
class LocalTree:
    """A directory or file of this machine."""

    path: Path
    selection: Selection
    symlinks: str = "keep"  # keep, follow or skip
    follow_root: bool = False  # a link given as a source, as cp(1) without -r

    def root(self) -> Entry | None:
        """See `Tree.root`."""
        try:
            follows = self.follow_root or self.symlinks == "follow"
            return entry_of_file("", os.stat(self.path, follow_symlinks=follows))
        except FileNotFoundError:
            return None

    def entries(self) -> Iterator[Entry]:
        """See `Tree.entries`."""
        return self.part("")

    def part(self, name: str) -> Iterator[Entry]:
        """See `PartedTree.part`. Does not notice followed links that lead to above the part."""
        try:
            root = os.stat(self.path / name)
        except OSError as error:
            yield _problem(name, error)
            return
        waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(name, ((root.st_dev, root.st_ino),))]
        while waiting:
            directory, above = waiting.pop()
            entered = []
            for entry, identity in self._children(directory):
                if entry.is_directory and identity in above:
                    yield replace(entry, problem="a link to a directory that it is in, without end")
                    continue
                if self._is_wanted(entry):
                    yield entry
                if entry.is_directory and not entry.problem and self.selection.enters(entry.path):
                    entered.append((entry.path, (*above, identity)))
            waiting += reversed(entered)

    def level(self) -> tuple[list[Entry], list[str]]:
        """See `PartedTree.level`."""
        children = [entry for entry, _ in self._children("")]
        entered = [
            entry.path
            for entry in children
            if entry.is_directory and not entry.problem and self.selection.enters(entry.path)
        ]
        return [entry for entry in children if self._is_wanted(entry)], entered

    def address(self, path: str) -> str:
        """See `Tree.address`."""
        return str(self.path / path)

    def remove(self, entry: Entry) -> bool:
        """See `Tree.remove`. A directory that still has something in it stays.

        Raises Changed for what was written since it was listed.
        """
        path = self.path / entry.path
        if not entry.is_directory:
            with suppress(FileNotFoundError):
                if not entry_of_file(entry.path, path.lstat()).has_content_of(entry):
                    raise Changed(f"{path}: was written meanwhile, and is not deleted")
                path.unlink()
            return True
        try:
            path.rmdir()
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return False
        return True

    def remove_files(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See `Tree.remove_files`: none here."""
        return entries

    def _is_wanted(self, entry: Entry) -> bool:
        return bool(entry.problem) or self.selection.takes(entry.path, is_directory=entry.is_directory)

    def _children(self, directory: str) -> Iterator[tuple[Entry, tuple[int, int]]]:
        try:
            with os.scandir(self.path / directory) as found:
                children = sorted(found, key=lambda child: child.name)
        except OSError as error:
            yield _problem(directory, error), (0, 0)
            return
        for child in children:
            path = f"{directory}/{child.name}" if directory else child.name
            if self.symlinks == "skip" and child.is_symlink():
                continue
            try:
                status = child.stat(follow_symlinks=self.symlinks == "follow")
            except OSError as error:
                yield _problem(path, error), (0, 0)
            else:
                yield entry_of_file(path, status), (status.st_dev, status.st_ino)


@dataclass(frozen=True, slots=True)
class RemoteTree:
    """What is below a name in a container, or the blob of that name."""

    store: BlobStore
    path: str  # empty for the whole container
    defaults: Defaults
    selection: Selection
    symlinks: str = "keep"
    max_name_characters: int | None = None

    def root(self) -> Entry | None:
        """See `Tree.root`. Where there is a blob, and blobs below it, the directory is meant."""
        if not self.path:
            return virtual_directory("")
        found = self.blob()
        if found is not None and found.is_directory:
            return found
        return virtual_directory("") if self.has_names_below() else found

    def blob(self) -> Entry | None:
        """Return the blob of this very name, None if there is none. Blocks for a request. Raises Failure."""
        blob = head_or_none(self.store, self.path)
        return entry_of_blob("", blob, self.defaults) if blob is not None else None

    def has_names_below(self) -> bool:
        """Tell whether there is a blob below the name. Blocks for a request. Raises Failure."""
        return any(page.blobs for page in pages_of(self.store, normalized_prefix(self.path), max_results=1))

    def require_place(self) -> None:
        """Raise NotADirectory if the root would be below a file. Blocks: a request for each name above it."""
        for path in above(self.path):
            tree = replace(self, path=path)
            found = tree.blob()
            if found is not None and not found.is_directory and not tree.has_names_below():
                raise NotADirectory(f"{path} is no directory")

    def entries(self) -> Iterator[Entry]:
        """See `Tree.entries`. A directory that no blob stands for is not among them."""
        return self.part("")

    def part(self, name: str) -> Iterator[Entry]:
        """See `PartedTree.part`."""
        prefix = normalized_prefix(self.path)
        for page in pages_of(self.store, prefix + name):
            yield from self._wanted(page, prefix)

    def level(self) -> tuple[list[Entry], list[str]]:
        """See `PartedTree.level`."""
        prefix = normalized_prefix(self.path)
        entries: list[Entry] = []
        entered: list[str] = []
        for page in pages_of(self.store, prefix, delimiter="/"):
            entries += self._wanted(page, prefix)
            entered += [name[len(prefix) :] for name in page.prefixes]
        return entries, entered

    def address(self, path: str) -> str:
        """See `Tree.address`."""
        return self._names.blob_name(f"/{path}" if path else "/")

    def remove(self, entry: Entry) -> bool:
        """See `Tree.remove`. Only the version that was listed goes, and no marker of what has names below."""
        if entry.blob is None or (entry.is_directory and self._has_others_below(entry.blob.name)):
            return False
        with suppress(NotFound):
            self.store.delete(entry.blob.name, Condition(if_match=entry.blob.etag))
        return True

    def remove_files(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See `Tree.remove_files`."""
        versions = {entry.blob.version: entry for entry in entries if entry.blob is not None}
        return [versions[version] for version in self.store.delete_batch(list(versions))]

    @property
    def _names(self) -> NameMap:
        return NameMap(normalized_prefix(self.path), self.max_name_characters)

    def _wanted(self, page: ListPage, prefix: str) -> Iterator[Entry]:
        for blob in page.blobs:
            if path := blob.name[len(prefix) :].removesuffix("/"):
                entry = self._entry(path, blob)
                if self._is_wanted(entry):
                    yield entry

    def _is_wanted(self, entry: Entry) -> bool:
        if self.symlinks == "skip" and entry.attributes.is_symlink:
            return False
        parts = entry.path.split("/")
        inside = all(self.selection.enters("/".join(parts[:depth])) for depth in range(1, len(parts)))
        return inside and self.selection.takes(entry.path, is_directory=entry.is_directory)

    def _entry(self, path: str, blob: BlobInfo) -> Entry:
        entry = entry_of_blob(path, blob, self.defaults)
        try:
            self._names.blob_name(f"/{path}")
        except Failure as failure:
            return Entry(path, entry.attributes, entry.size_bytes, blob, problem=str(failure))
        return entry

    def _has_others_below(self, marker: str) -> bool:
        pages = pages_of(self.store, marker.removesuffix("/") + "/", max_results=2)
        return any(blob.name != marker for page in pages for blob in page.blobs)


def _problem(path: str, error: OSError) -> Entry:
    entry = virtual_directory(path)
    return Entry(path, entry.attributes, 0, problem=error.strerror or str(error))
