"""One blob's way to a new name: copied on the service, then deleted; what is open here follows it."""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from blobfs.blocks import MAX_BATCH_REQUESTS
from blobfs.errors import Changed, Failure, NotFound, raise_first
from blobfs.filesystem.volume import Volume
from blobfs.format.attributes import Attributes, attributes_of, metadata_of
from blobfs.store import IF_ABSENT, BlobInfo, Condition, replacing

logger = logging.getLogger(__name__)

OVERTAKEN_MOVES = 5  # times that a file is written between its copy and its deletion


@dataclass(frozen=True, slots=True)
class Move:
    """One blob's way to its new name."""

    source: BlobInfo
    name: str
    condition: Condition


class Moves:
    """Moves blobs of a volume. All methods block, and may be called side by side for different blobs."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def copy(self, move: Move) -> BlobInfo:
        """Make the copy, renamed now; return it when it is complete.

        Raises NotFound, Changed or AlreadyExists if the source or the target is not what was known.
        """
        attributes = renamed_now(attributes_of(move.source, self._volume.defaults))
        metadata = metadata_of(attributes, move.source.metadata)
        return self._volume.store.copy(move.source, move.name, metadata, move.condition)

    def fresh(self, move: Move) -> Move:
        """Ask again what source and target are. Raises NotFound without a source."""
        try:
            onto = replacing(self._volume.store.head(move.name).etag)
        except NotFound:
            onto = IF_ABSENT
        return Move(self._volume.store.head(move.source.name), move.name, onto)

    def finish(self, move: Move, moved: BlobInfo) -> None:
        """Delete the source of a complete copy, and have what is here follow the blob.

        Raises NotFound or Changed if the source is not what was copied.
        """
        file = self._volume.files.get(move.source.name)
        with file.lock if file is not None else nullcontext():  # who reads it waits for the new name
            self._volume.store.delete(move.source.name, Condition(if_match=move.source.etag))
            self._follow(move.source, moved)

    def finish_all(self, copied: Sequence[tuple[Move, BlobInfo]]) -> None:
        """Finish many moves side by side, by batches where the service takes them.

        All are tried; then the first failure of `finish`, if any, is raised.
        """
        transfers, files = self._volume.transfers, self._volume.files
        alone: list[tuple[Move, BlobInfo]] = []

        def finish_batch(share: Sequence[tuple[Move, BlobInfo]]) -> None:
            closed: list[tuple[Move, BlobInfo]] = []
            for pair in share:  # as it is now: other requests may have come before this one
                is_open = files.get(pair[0].source.name) is not None
                (alone if is_open else closed).append(pair)
            alone.extend(self._finish_batch(closed))

        failures = transfers.failures_of_each(finish_batch, transfers.shares(copied, MAX_BATCH_REQUESTS))
        failures += transfers.failures_of_each(lambda pair: self.finish(*pair), alone)
        raise_first(failures)

    def finish_alone(
        self, move: Move, moved: BlobInfo, *, is_new: bool, attempts: int = OVERTAKEN_MOVES
    ) -> BlobInfo:
        """Finish the move of one file as if it were alone; return what stands under the new name.

        What somebody wrote meanwhile moves, too. If somebody took the source away, who came
        second has failed, and takes a new target back; one that replaced another blob must stay.
        """
        try:
            self.finish(move, moved)
        except NotFound:
            if is_new:
                self.take_back(moved)
                raise
            self._follow(move.source, moved)
        except Changed:
            if not attempts:
                raise
            newer = Move(self._volume.store.head(move.source.name), move.name, replacing(moved.etag))
            return self.finish_alone(newer, self.copy(newer), is_new=is_new, attempts=attempts - 1)
        except Failure as failure:
            logger.info(
                "%s has the bytes, but %s could not be deleted: %s", move.name, move.source.name, failure
            )
            raise
        return moved

    def take_back(self, copied: BlobInfo) -> None:
        """Delete a copy. Raises NotFound or Changed if it is not what was made."""
        self._volume.store.delete(copied.name, Condition(if_match=copied.etag))

    def drop_replaced(self, name: str) -> None:
        """Have the file under a name make way for another blob; its handles keep it. Raises NoSpace."""
        file = self._volume.files.get(name)
        if file is not None:
            if file.is_uncommitted:
                file.leave_name()
            self._volume.files.remove(file)
            file.unnoted_commit = None  # another blob has the name

    def _finish_batch(self, copied: Sequence[tuple[Move, BlobInfo]]) -> list[tuple[Move, BlobInfo]]:
        """Finish moves of what is not open here, as far as one request can; return the others."""
        if len(copied) < 2:
            return list(copied)
        left = set(self._volume.store.delete_batch([move.source.version for move, _ in copied]))
        for move, moved in copied:
            if move.source.version not in left:
                self._follow(move.source, moved)
        return [pair for pair in copied if pair[0].source.version in left]

    def _follow(self, old: BlobInfo, new: BlobInfo) -> None:
        """Have open handles, cached bytes and the kernel's pages follow a blob to its new name."""
        volume = self._volume
        volume.same_bytes(old, new)
        self.drop_replaced(new.name)
        volume.files.rename_pages(old.name, new.name)
        file = volume.files.get(old.name)
        if file is not None and file.version == old.version:
            volume.files.remove(file)
            file.rebase(new, attributes_of(new, volume.defaults))
            volume.files.add(file)
        elif file is not None:
            volume.files.leave_behind(file, new.name)


def renamed_now(attributes: Attributes) -> Attributes:
    """Return the attributes of what is given a new name at this moment."""
    return attributes._replace(ctime_ns=time.time_ns())
