"""Renames, by POSIX's rules: a copy on the service, verified complete, then the deletion of the source.

A credential that shows that it may not delete is refused before anything is copied: otherwise the target
would be replaced by what fails to go. Renaming what is not yet on the service costs nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from blobfs.errors import AlreadyExists, Changed, Failure, IsADirectory, NotFound
from blobfs.filesystem.commits import Commits
from blobfs.filesystem.deletions import Deletions
from blobfs.filesystem.directory_commits import DirectoryCommits
from blobfs.filesystem.directory_renames import DirectoryRenames
from blobfs.filesystem.files import File
from blobfs.filesystem.moves import Move, Moves, renamed_now
from blobfs.filesystem.removal import Removal
from blobfs.filesystem.volume import Volume
from blobfs.store import replacing
from blobfs.tree.cache import Node
from blobfs.tree.namespace import Lookup


@dataclass(frozen=True, slots=True)
class _Source:
    """What is renamed, and the file of it if this mount knows more of it."""

    path: str
    node: Node
    file: File | None


@dataclass(frozen=True, slots=True)
class _Target:
    """Where to, and what is there."""

    path: str
    node: Node | None
    etag: str  # of the blob that is replaced, empty if there is none


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
        self._moves = Moves(volume)
        self._directories = DirectoryRenames(
            volume, self._moves, removal, deletions, commits, directory_commits
        )
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
        self._deletions.carry_out(old_path)
        self._directory_commits.commit(old_path)
        with (
            self._directory_commits.given_up(new_path),
            self._standing_still(old_path) as file,
            self._standing_still(new_path) as replaced,
        ):
            node = Node(file.base) if file is not None else volume.namespace.node(old_path)
            target = Node(replaced.base) if replaced is not None else self._find(new_path)
            if target is not None and not replace_target:
                raise AlreadyExists(f"{new_path}: exists")
            if node.is_directory:
                self._directories.rename(old_path, new_path, node, target)
            else:
                etag = _etag_in_place(replaced, target) or pending_etag
                self._rename_file(_Source(old_path, node, file), _Target(new_path, target, etag))
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
            if file is not None:
                file.adopt_unanswered_write()
            yield file

    def _find(self, path: str) -> Node | None:
        # The kernel has looked the name up for this very call.
        return self._volume.namespace.find(path, Lookup(believe_absence=lambda: True))

    def _rename_file(self, source: _Source, target: _Target) -> None:
        volume = self._volume
        if target.node is not None and target.node.is_directory:
            raise IsADirectory(f"{target.path}: is a directory")
        if source.file is not None and source.file.can_move_unsent():
            self._move_unsent(source.file, target)
        else:
            volume.store.check_may_delete(volume.names.blob_name(source.path))
            with volume.held(source.path, source.node) as file, file.lock:
                self._move_committed(file, source.path, target)
        volume.namespace.record(source.path, None)

    def _move_unsent(self, file: File, target: _Target) -> None:
        """Give the file its new name; if nobody has it open any more, the rename is its commit."""
        volume = self._volume
        old_name, new_name = file.name, volume.names.blob_name(target.path)
        file.move_unsent(new_name, target.etag)
        try:
            file.set_attributes(renamed_now)
            if not file.handles:
                self._commits.commit_soon(file)
        except Failure:
            file.move_unsent(old_name, "")
            raise
        self._moves.drop_replaced(new_name)
        volume.files.rename_pages(old_name, new_name)
        volume.files.discard(old_name)
        if file.is_uncommitted:
            volume.files.add(file)

    def _move_committed(self, file: File, old_path: str, target: _Target) -> None:
        """Move the blob of a file, which the caller holds so that nobody commits it meanwhile."""
        volume = self._volume
        file.commit()
        volume.note_commit(file)
        assert file.base is not None
        move = Move(file.base, volume.names.blob_name(target.path), replacing(target.etag))
        try:
            moved = self._moves.copy(move)
        except (Changed, AlreadyExists, NotFound):
            # The source or the target is not what was last known: look again, once.
            move = self._moves.fresh(move)
            moved = self._moves.copy(move)
        try:
            moved = self._moves.finish_alone(move, moved, is_new=move.condition.if_absent)
        except Failure:
            volume.namespace.forget(old_path)
            volume.namespace.forget(target.path)
            raise
        volume.namespace.record(target.path, Node(moved))


def _etag_in_place(file: File | None, node: Node | None) -> str:
    """Return the ETag of the blob that has a name; the file may know more of it. Empty if there is none."""
    if file is not None:
        return file.etag_in_place
    return node.blob.etag if node is not None and node.blob is not None else ""
