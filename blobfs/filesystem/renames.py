"""Renames: a copy on the service, verified complete, then the deletion of the source.

Renaming what is not yet on the service costs nothing. A directory's blobs are copied side by
side; if one copy fails, the copies made are taken back and everything is where it was.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

from blobfs.errors import (
    AlreadyExists,
    Changed,
    Failure,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotFound,
    raise_first,
)
from blobfs.filesystem.commits import Commits
from blobfs.filesystem.deletions import Deletions
from blobfs.filesystem.directory_commits import DirectoryCommits
from blobfs.filesystem.files import File
from blobfs.filesystem.removal import Removal
from blobfs.filesystem.volume import Volume
from blobfs.format.attributes import Attributes, attributes_of, metadata_of
from blobfs.store import IF_ABSENT, BlobInfo, Condition, replacing
from blobfs.tree.cache import Node

OVERTAKEN_MOVES = 5  # times that a file is written between its copy and its deletion


@dataclass(frozen=True, slots=True)
class Move:
    """One blob's way to its new name."""

    source: BlobInfo
    name: str
    condition: Condition


class Renames:
    """Renames files and directories of a volume."""

    def __init__(
        self,
        volume: Volume,
        removal: Removal,
        deletions: Deletions,
        commits: Commits,
        directory_commits: DirectoryCommits,
    ) -> None:
        self._volume = volume
        self._removal = removal
        self._deletions = deletions
        self._commits = commits
        self._directory_commits = directory_commits

    def rename(self, old_path: str, new_path: str, *, replace_target: bool = True) -> None:
        """Move a name, by POSIX's rules for what it may replace. Blocks for the copies.

        Raises AlreadyExists if there is a target and `replace_target` is false.
        """
        volume = self._volume
        volume.check_writable(old_path)
        volume.names.blob_name(new_path)
        if old_path == new_path:
            return
        taken = self._deletions.take_over(new_path)
        try:
            self._replace(old_path, new_path, taken.etag, replace_target=replace_target)
        except Failure:
            if taken.file is not None:
                # libfuse has given it a hidden name, and nobody can give it back its own.
                taken.file.lose_name(f"{new_path}: a rename over it failed, and took it off its name")
            raise

    def _replace(self, old_path: str, new_path: str, pending_etag: str, *, replace_target: bool) -> None:
        volume = self._volume
        self._deletions.settle(old_path)
        self._directory_commits.settle(old_path)
        with (
            self._directory_commits.given_up(new_path),
            self._standing_still(old_path) as source,
            self._standing_still(new_path) as replaced,
        ):
            node = Node(source.base) if source is not None else volume.namespace.node(old_path)
            target = Node(replaced.base) if replaced is not None else self._find(new_path)
            if target is not None and not replace_target:
                raise AlreadyExists(f"{new_path}: exists")
            if node.is_directory:
                self._rename_directory(old_path, new_path, node, target)
            else:
                replaced_etag = _etag_in_place(replaced, target) or pending_etag
                self._rename_file(old_path, new_path, source, node, target, replaced_etag)
        volume.inodes.rename(volume.names.blob_name(old_path), volume.names.blob_name(new_path))
        volume.keep_parent_of(old_path)
        volume.entry_changed(old_path)

    @contextmanager
    def _standing_still(self, path: str) -> Iterator[File | None]:
        """Give the file of a path, if this mount knows more of it; nobody commits it meanwhile.

        The kernel makes one rename at a time, so two that wait for each other's files do not happen.
        """
        file = self._volume.local_file(path)
        with file.lock if file is not None else nullcontext():
            yield file

    def _find(self, path: str) -> Node | None:
        # The kernel has looked the name up for this very call.
        return self._volume.namespace.find(path, believe_absence=lambda: True)

    # Files…

    def _rename_file(
        self,
        old_path: str,
        new_path: str,
        source: File | None,
        node: Node,
        target: Node | None,
        replaced_etag: str,
    ) -> None:
        volume = self._volume
        if target is not None and target.is_directory:
            raise IsADirectory(f"{new_path}: is a directory")
        if source is not None and source.can_move_unsent():
            self._move_unsent(source, new_path, replaced_etag)
        else:
            with volume.held(old_path, node) as file, file.lock:
                self._move_committed(file, old_path, new_path, replaced_etag)
        volume.namespace.record(old_path, None)

    def _move_unsent(self, file: File, new_path: str, replaced_etag: str) -> None:
        """Give the file its new name; if nobody has it open any more, the rename is its commit."""
        volume = self._volume
        old_name, new_name = file.name, volume.names.blob_name(new_path)
        file.move_unsent(new_name, replaced_etag)
        try:
            file.set_attributes(_renamed_now)
            if not file.handles:
                self._commits.settle(file)
        except Failure:
            file.move_unsent(old_name, "")
            raise
        self._drop_replaced(new_name)
        volume.files.rename_pages(old_name, new_name)
        volume.files.discard(old_name)
        if file.is_uncommitted:
            volume.files.add(file)

    def _move_committed(self, file: File, old_path: str, new_path: str, replaced_etag: str) -> None:
        """Move the blob of a file, which the caller holds so that nobody commits it meanwhile."""
        volume = self._volume
        file.commit()
        volume.note_commit(file)
        assert file.base is not None
        move = Move(file.base, volume.names.blob_name(new_path), replacing(replaced_etag))
        try:
            moved = self._copy(move)
        except (Changed, AlreadyExists, NotFound):
            # The source or the target is not what was last known: look again, once.
            move = self._fresh(move)
            moved = self._copy(move)
        try:
            moved = self._finish_alone(move, moved, is_new=move.condition.if_absent)
        except Failure:
            volume.namespace.forget(old_path)
            volume.namespace.forget(new_path)
            raise
        volume.namespace.record(new_path, Node(moved))

    def _finish_alone(
        self, move: Move, moved: BlobInfo, *, is_new: bool, attempts: int = OVERTAKEN_MOVES
    ) -> BlobInfo:
        """Finish the move of one file as if it were alone; return what stands under the new name.

        What somebody wrote meanwhile moves, too. If somebody took the source away, who came
        second has failed, and takes a new target back; one that replaced another blob must stay.
        """
        try:
            self._finish_move((move, moved))
        except NotFound:
            if is_new:
                self._take_back(moved)
                raise
            self._settle_move(move.source, moved)
        except Changed:
            if not attempts:
                raise
            newer = Move(self._volume.store.head(move.source.name), move.name, replacing(moved.etag))
            return self._finish_alone(newer, self._copy(newer), is_new=is_new, attempts=attempts - 1)
        return moved

    def _fresh(self, move: Move) -> Move:
        try:
            onto = replacing(self._volume.store.head(move.name).etag)
        except NotFound:
            onto = IF_ABSENT
        return Move(self._volume.store.head(move.source.name), move.name, onto)

    def _copy(self, move: Move) -> BlobInfo:
        attributes = _renamed_now(attributes_of(move.source, self._volume.defaults))
        metadata = metadata_of(attributes, move.source.metadata)
        return self._volume.store.copy(move.source, move.name, metadata, move.condition)

    def _settle_move(self, old: BlobInfo, new: BlobInfo) -> None:
        """Have open handles, cached bytes and the kernel's pages follow a blob to its new name."""
        volume = self._volume
        volume.same_bytes(old, new)
        self._drop_replaced(new.name)
        volume.files.rename_pages(old.name, new.name)
        file = volume.files.get(old.name)
        if file is not None and file.version == old.version:
            volume.files.remove(file)
            file.rebase(new, attributes_of(new, volume.defaults))
            volume.files.add(file)
        elif file is not None:
            volume.files.leave_behind(file, new.name)

    def _drop_replaced(self, name: str) -> None:
        file = self._volume.files.get(name)
        if file is not None:
            if file.is_uncommitted:
                file.leave_name()
            self._volume.files.remove(file)
            file.unnoted_commit = None  # another blob has the name

    # Directories…

    def _rename_directory(self, old_path: str, new_path: str, node: Node, target: Node | None) -> None:
        volume, replaced_marker = self._volume, None
        if new_path.startswith(old_path + "/"):
            raise InvalidArgument(f"{new_path}: is inside {old_path}")
        if target is not None:
            if not target.is_directory:
                raise NotADirectory(f"{new_path}: not a directory")
            self._deletions.settle_below(new_path)
            replaced_marker = self._removal.check_empty(new_path)
        self._deletions.settle_below(old_path)
        self._directory_commits.settle_below(old_path)
        self._directory_commits.forget_below(new_path)
        self._commit_below(old_path)
        if node.blob is None and target is not None and target.blob is not None:
            # Its marker, left alone, would give the renamed directory its attributes.
            node = self._marked(old_path)
        moves = self._moves(old_path, new_path, node, target, replaced_marker)
        copies = self._copy_all(moves)
        try:
            volume.transfers.for_each(self._finish_move, zip(moves, copies, strict=True))
        except Failure:
            # The new tree is complete, and what could not be deleted is left of the old one.
            self._forget_directory(old_path)
            self._forget_directory(new_path)
            raise
        for move in moves:
            if move.name != volume.names.blob_name(new_path):
                volume.inodes.rename(move.source.name, move.name)
        self._record_directory(old_path, new_path, copies)

    def _commit_below(self, path: str) -> None:
        below = self._volume.files.under(self._volume.names.directory_prefix(path))
        files = [file for file in below if file.is_unsent]
        raise_first(self._commits.commit_all(files))

    def _marked(self, path: str) -> Node:
        """Give a virtual directory a marker, with the attributes that it has."""
        self._volume.change_attributes(path, lambda attributes: attributes)
        return self._volume.namespace.node(path)

    def _moves(
        self,
        old_path: str,
        new_path: str,
        node: Node,
        target: Node | None,
        replaced_marker: BlobInfo | None,
    ) -> list[Move]:
        """Return what is to be moved; the target is empty, but it may have markers, one in the old style."""
        names = self._volume.names
        old_prefix, new_prefix = names.directory_prefix(old_path), names.directory_prefix(new_path)
        moves = [
            Move(blob, new_prefix + blob.name[len(old_prefix) :], IF_ABSENT)
            for blob in self._volume.namespace.descendants(old_path)
        ]
        if replaced_marker is not None:
            onto = replacing(replaced_marker.etag)
            moves = [
                replace(move, condition=onto) if move.name == replaced_marker.name else move for move in moves
            ]
        if node.blob is not None:
            marker = target.blob.etag if target is not None and target.blob is not None else ""
            moves.append(Move(self._volume.store.head(node.blob.name), new_prefix[:-1], replacing(marker)))
        return moves

    def _copy_all(self, moves: list[Move]) -> list[BlobInfo]:
        made: list[BlobInfo] = []

        def copy(move: Move) -> BlobInfo:
            copied = self._copy(move)
            made.append(copied)
            return copied

        # The target's own marker is replaced last: there is nothing to take it back with.
        replacing = [move for move in moves if move.condition.if_match]
        new = [move for move in moves if not move.condition.if_match]
        try:
            return self._volume.transfers.for_each(copy, new) + [copy(move) for move in replacing]
        except Failure:
            self._volume.transfers.for_each(self._take_back, made)
            raise

    def _take_back(self, copied: BlobInfo) -> None:
        self._volume.store.delete(copied.name, Condition(if_match=copied.etag))

    def _finish_move(self, copied: tuple[Move, BlobInfo]) -> None:
        """Delete the source of a complete copy, and have what is here follow the blob."""
        move, moved = copied
        file = self._volume.files.get(move.source.name)
        with file.lock if file is not None else nullcontext():  # who reads it waits for the new name
            self._volume.store.delete(move.source.name, Condition(if_match=move.source.etag))
            self._settle_move(move.source, moved)

    def _forget_directory(self, path: str) -> None:
        self._volume.namespace.forget_below(path)
        self._volume.namespace.forget(path)

    def _record_directory(self, old_path: str, new_path: str, copies: list[BlobInfo]) -> None:
        volume = self._volume
        name = volume.names.blob_name(new_path)
        marker = next((info for info in copies if info.name == name), None)
        volume.namespace.forget_below(old_path)
        volume.namespace.forget_below(new_path)
        volume.namespace.record(old_path, None)
        volume.namespace.record(new_path, Node(marker, is_directory=True))
        volume.directory_times.rename(volume.names.blob_name(old_path), name)


def _etag_in_place(file: File | None, node: Node | None) -> str:
    """Return the ETag of the blob that has a name; the file may know more of it. Empty if there is none."""
    if file is not None:
        return file.etag_in_place
    return node.blob.etag if node is not None and node.blob is not None else ""


def _renamed_now(attributes: Attributes) -> Attributes:
    return attributes._replace(ctime_ns=time.time_ns())
