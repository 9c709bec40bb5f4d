"""Renames of directories: their blobs are copied side by side, and then their sources deleted.

If one copy fails, the copies made are taken back and everything is where it was.
"""

import logging
from dataclasses import replace

from blobfs.errors import Failure, InvalidArgument, NotADirectory, raise_first
from blobfs.filesystem.commits import Commits
from blobfs.filesystem.deletions import Deletions
from blobfs.filesystem.directory_commits import DirectoryCommits
from blobfs.filesystem.moves import Move, Moves
from blobfs.filesystem.removal import Removal
from blobfs.filesystem.volume import Volume
from blobfs.store import IF_ABSENT, BlobInfo, replacing
from blobfs.tree.cache import Node

logger = logging.getLogger(__name__)


class DirectoryRenames:
    """Renames directories of a volume."""

    def __init__(
        self,
        volume: Volume,
        moves: Moves,
        removal: Removal,
        deletions: Deletions,
        commits: Commits,
        directory_commits: DirectoryCommits,
    ) -> None:
        self._volume = volume
        self._moves = moves
        self._removal = removal
        self._deletions = deletions
        self._commits = commits
        self._directory_commits = directory_commits

    def rename(self, old_path: str, new_path: str, node: Node, target: Node | None) -> None:
        """Move a directory that is `node`, over `target` if there is one. Blocks for the copies.

        Raises InvalidArgument for a place inside itself, NotADirectory, DirectoryNotEmpty.
        """
        volume, replaced_marker = self._volume, None
        if new_path.startswith(old_path + "/"):
            raise InvalidArgument(f"{new_path}: is inside {old_path}")
        if target is not None:
            if not target.is_directory:
                raise NotADirectory(f"{new_path}: not a directory")
            self._deletions.carry_out_below(new_path)
            replaced_marker = self._removal.check_empty(new_path)
        volume.store.check_may_delete(volume.names.blob_name(old_path))
        self._deletions.carry_out_below(old_path)
        self._directory_commits.commit_below(old_path)
        self._directory_commits.forget_below(new_path)
        self._commit_below(old_path)
        if node.blob is None and target is not None and target.blob is not None:
            # Its marker, left alone, would give the renamed directory its attributes.
            node = self._marked(old_path)
        moves = self._plan(old_path, new_path, node, target, replaced_marker)
        copies = self._copy_all(moves)
        try:
            self._moves.finish_all(list(zip(moves, copies, strict=True)))
        except Failure as failure:
            logger.info("%s is complete, but not all of %s could be deleted: %s", new_path, old_path, failure)
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

    def _plan(
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
            copied = self._moves.copy(move)
            made.append(copied)
            return copied

        # The target's own marker is replaced last: there is nothing to take it back with.
        replacing = [move for move in moves if move.condition.if_match]
        new = [move for move in moves if not move.condition.if_match]
        try:
            return self._volume.transfers.for_each(copy, new) + [copy(move) for move in replacing]
        except Failure:
            self._volume.transfers.for_each(self._moves.take_back, made)
            raise

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
