"""Journals of processes that are gone: what is in them, and what can be done with them."""

import enum
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from blobfs.errors import Damaged
from blobfs.format.attributes import changed_at, written_at
from blobfs.spool.files import JournalFile
from blobfs.spool.image import Image
from blobfs.spool.records import Kind, Record, Target, body_of_target, may_commit_follow, records_in
from blobfs.store import BlobInfo

EDITS = (Kind.WRITE, Kind.TRUNCATE)


class State(enum.Enum):
    """What can be done with a leftover."""

    TO_COMMIT = "to commit"  # a program called close() or fsync()
    NEVER_CLOSED = "never closed"  # none did: committed only when that is asked for
    CONFLICT = "conflict"  # another client has written the name
    DAMAGED = "damaged"  # a record is not what was written; those before it are sound


class Leftover:
    """A journal that no process had open; this one holds it until `close`, `finish` or `discard`."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self.modified_ns = os.fstat(file.descriptor).st_mtime_ns  # when its last record was written
        self._read()

    def _read(self) -> None:
        self._records: list[Record] = []
        self.damage = ""
        self.lost_edits = ""  # why edits are gone that no close() or fsync() came after
        found = ""
        try:
            self._records.extend(records_in(self._file.read_at))
        except Damaged as damage:
            found = str(damage)
        commits = [index for index, record in enumerate(self._records) if record.kind is Kind.COMMIT]
        self._commits = range(commits[0], commits[-1] + 1) if commits else range(0)
        # When the machine dies, the disk may have half of what was written since it was last waited for.
        if commits and not may_commit_follow(
            self._file.read_at, self._records[-1].end, self._records[-1].seal
        ):
            self.lost_edits = found
        else:
            self.damage = found

    @property
    def path(self) -> Path:
        """The journal."""
        return self._file.path

    @property
    def name(self) -> str:
        """The name of the blob."""
        return self.target.name

    @property
    def journal_bytes(self) -> int:
        """The size of the journal."""
        return self._file.size_bytes

    @property
    def is_empty(self) -> bool:
        """It holds no change."""
        return not self.damage and all(record.kind is Kind.TARGET for record in self._records)

    @property
    def state(self) -> State:
        """What can be done with it."""
        if self.damage:
            return State.DAMAGED
        if self.conflict:
            return State.CONFLICT
        return State.TO_COMMIT if self._commits else State.NEVER_CLOSED

    @property
    def conflict(self) -> str:
        """Why it cannot be committed; empty if no such reason was found."""
        return next((record.text for record in self._records if record.kind is Kind.CONFLICT), "")

    @property
    def has_unclosed_edits(self) -> bool:
        """There are edits after the last close() or fsync()."""
        return bool(self._unclosed_edits())

    @property
    def target(self) -> Target:
        """Where the content was to be committed; without a name if even that is damaged."""
        targets = [record.target for record in self._records if record.target is not None]
        return targets[-1] if targets else Target("")

    def image(self) -> Image:
        """Return the file as it was last."""
        return Image(self._records)

    def requested_image(self) -> Image:
        """Return the file as it was at the last close() or fsync()."""
        return Image(self._records[: self._commits.stop])

    def read_into(self, position: int, target: memoryview) -> None:
        """Copy bytes of the journal."""
        target[:] = self._file.read_at(position, len(target))

    def requested_metadata(self) -> Sequence[Mapping[str, str]]:
        """Return the metadata that the blob has after each commit that was begun, the last at the end."""
        since = self._records[self._commits.start :] if self._commits else []
        return [record.target.metadata for record in since if record.target is not None]

    def request_commit(self) -> None:
        """Request a commit of all that is there, as close() would. May be repeated. Raises NoSpace."""
        if self._commits and not self.has_unclosed_edits:
            return
        # Its change time is no earlier request's: by that the blob is known as the one with these edits.
        times = changed_at if self._has_mtime else written_at
        metadata = times(self.target.metadata, self.modified_ns)
        self._append(Kind.COMMIT, body_of_target(replace(self.target, metadata=metadata)))

    def mark_conflict(self, reason: str) -> None:
        """Note that another client has written the name. Raises NoSpace."""
        if not self.conflict:
            self._append(Kind.CONFLICT, reason.encode())

    def finish(self, committed: BlobInfo) -> None:
        """End the journal: the service has its content. Edits after the last request stay, on the new base.

        Raises NoSpace, having changed nothing.
        """
        rest = self._unclosed_edits()
        if not rest:
            self._file.remove()
            return
        base = replace(
            self.target, base_etag=committed.etag, base_bytes=committed.size_bytes, replaced_etag=""
        )
        self._replace(base, rest)
        self.close()

    def discard(self) -> None:
        """Remove the journal, and what it holds with it."""
        self._file.remove()

    def close(self) -> None:
        """Close the journal; it stays a leftover."""
        self._file.close()

    def _unclosed_edits(self) -> Sequence[Record]:
        return [record for record in self._records[self._commits.stop :] if record.kind in EDITS]

    @property
    def _has_mtime(self) -> bool:
        """The target was noted after the last edit, with the time of that edit or one that was set since."""
        after_target = takewhile(lambda record: record.target is None, reversed(self._records))
        return not any(record.kind in EDITS for record in after_target)

    def _replace(self, base: Target, rest: Iterable[Record]) -> None:
        """Replace the journal by one of other records, in one atomic step."""
        path = self.path.with_suffix(".new")
        path.unlink(missing_ok=True)  # of an attempt that was cut short: this one has the lock
        file = JournalFile.create(path)
        assert file is not None
        try:
            file.append(Kind.TARGET, body=body_of_target(base))
            for record in rest:
                file.append(record.kind, record.number, self._file.read_at(record.body_at, record.body_bytes))
            if self._has_mtime:
                file.append(Kind.TARGET, body=body_of_target(base))
            file.sync()
            os.utime(file.descriptor, ns=(self.modified_ns, self.modified_ns))
            path.rename(self.path)
        finally:
            file.close()

    def _append(self, kind: Kind, body: bytes) -> None:
        """Add a record after the last sound one."""
        self._file.cut(self._records[-1].end, self._records[-1].seal)
        self._file.append(kind, body=body)
        self._file.sync()
        self._read()
