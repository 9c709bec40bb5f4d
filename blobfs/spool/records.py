"""The records of a journal, each way. Pure: no I/O, no clock.

A journal is records one after the other, each a head and a body:

====================  ==========================================================================
``kind``              1 byte, see `Kind`; 3 bytes of zero follow
``body_bytes``        4 bytes, little-endian as all numbers here
``number``            8 bytes: where a write begins, or the new size of a truncated file
``body_checksum``     8 bytes, XXH3-64
``seal``              8 bytes, XXH3-64 of the above, seeded with the seal of the record before
====================  ==========================================================================

So a record that a crash cut short differs from a damaged one: its head, as far as it is there, is
sound. Only a crash of the machine leaves zeros at the end: they count as cut short, too. And a
record of an earlier use of the same file, which such a crash may bring back, cannot follow those of this one.
"""

import enum
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import xxhash

from blobfs.errors import Damaged
from blobfs.store import ContentHeaders

FORMAT = 1
NO_HEADERS = ContentHeaders()

_HEAD = struct.Struct("<B3xIQQ")
_SEAL = struct.Struct("<Q")
HEAD_BYTES = _HEAD.size + _SEAL.size
NO_SEAL = 0  # in front of the first record

ReadAt = Callable[[int, int], bytes]  # position and length to bytes, fewer at the end


class Kind(enum.Enum):
    """What a record says."""

    TARGET = 1  # what the next commit is to replace, and by what name; every journal begins with one
    WRITE = 2
    TRUNCATE = 3
    COMMIT = 4  # a target again: close() or fsync() was called here
    CONFLICT = 5  # why nothing here can be committed any more


@dataclass(frozen=True, slots=True)
class Target:
    """Where the content belongs: a blob that it changes or replaces, or a name that is free."""

    name: str
    base_etag: str = ""  # of the blob that has the bytes not written here; empty if there is none
    base_bytes: int = 0
    replaced_etag: str = ""  # of a blob that a file without a base was renamed over
    metadata: Mapping[str, str] = field(default_factory=dict)  # to commit
    headers: ContentHeaders = NO_HEADERS  # to commit

    @property
    def expected_etag(self) -> str:
        """The ETag that the name must have for a commit; empty if there must be no blob."""
        return self.base_etag or self.replaced_etag


@dataclass(frozen=True, slots=True)
class Record:
    """One record, and where in the journal the bytes of its body are."""

    kind: Kind
    number: int = 0
    target: Target | None = None  # of TARGET and COMMIT
    text: str = ""  # of CONFLICT
    body_at: int = 0
    body_bytes: int = 0
    seal: int = NO_SEAL

    @property
    def end(self) -> int:
        """The position of the next record."""
        return self.body_at + self.body_bytes


class _Head(NamedTuple):
    """A record without its body."""

    kind_number: int
    body_bytes: int
    number: int
    body_checksum: int
    seal: int


def head_of(kind: Kind, seal_before: int, number: int, body: memoryview | bytes) -> tuple[bytes, int]:
    """Return the head of a record with this body after the record with that seal, and its own seal."""
    head = _HEAD.pack(kind.value, len(body), number, xxhash.xxh3_64_intdigest(body))
    seal = xxhash.xxh3_64_intdigest(head, seed=seal_before)
    return head + _SEAL.pack(seal), seal


def body_of_target(target: Target) -> bytes:
    """Return a target as a body."""
    # Not `asdict`, which takes five times as long: there are several for each small file.
    fields = {"format": FORMAT, **_fields_of(target), "headers": _fields_of(target.headers)}
    return json.dumps(fields).encode()


def records_in(read_at: ReadAt) -> Iterator[Record]:
    """Yield the records of a journal up to its end, or to one that was cut short.

    Raises Damaged where a record is not what was written; all before it are sound.
    """
    position, seal = 0, NO_SEAL
    while (record := _record_at(position, seal, read_at)) is not None:
        yield record
        position, seal = record.end, record.seal


def may_commit_follow(read_at: ReadAt, position: int, seal_before: int) -> bool:
    """Tell whether a commit is noted behind a damaged record, as far as that can be known.

    Heads have checksums of their own, so they can be followed past damaged bodies. Where that ends
    before the journal does, a commit may follow.
    """
    try:
        while (head := _head_at(position, seal_before, read_at)) is not None:
            if head.kind_number == Kind.COMMIT.value:
                return True
            position, seal_before = position + HEAD_BYTES + head.body_bytes, head.seal
    except Damaged:
        return True
    return False


def _fields_of(value: Target | ContentHeaders) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__slots__}


def _head_at(position: int, seal_before: int, read_at: ReadAt) -> _Head | None:
    """Return the head there, None at the end. Raises Damaged."""
    raw = read_at(position, HEAD_BYTES)
    if len(raw) < HEAD_BYTES or not any(raw):
        return None
    packed, (seal,) = raw[: _HEAD.size], _SEAL.unpack(raw[_HEAD.size :])
    if seal != xxhash.xxh3_64_intdigest(packed, seed=seal_before):
        raise Damaged(f"record at byte {position}: its head does not match its checksum")
    kind_number, body_bytes, number, body_checksum = _HEAD.unpack(packed)
    return _Head(kind_number, body_bytes, number, body_checksum, seal)


def _record_at(position: int, seal_before: int, read_at: ReadAt) -> Record | None:
    head = _head_at(position, seal_before, read_at)
    if head is None:
        return None
    body_at, body_bytes = position + HEAD_BYTES, head.body_bytes
    body = read_at(body_at, body_bytes)
    if len(body) < body_bytes:
        return None
    if xxhash.xxh3_64_intdigest(body) != head.body_checksum:
        raise Damaged(f"record at byte {position}: its {body_bytes} bytes do not match their checksum")
    try:
        kind = Kind(head.kind_number)
        record = Record(kind, head.number, body_at=body_at, body_bytes=body_bytes, seal=head.seal)
        return _with_body(record, body)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"record at byte {position}: written by another program? {error!r}") from error


def _with_body(record: Record, body: bytes) -> Record:
    if record.kind in (Kind.TARGET, Kind.COMMIT):
        return replace(record, target=_target_from(dict(json.loads(body))))
    if record.kind is Kind.CONFLICT:
        return replace(record, text=body.decode())
    return record


def _target_from(fields: dict[str, object]) -> Target:
    made_by = fields.pop("format")
    if made_by != FORMAT:
        raise Damaged(f"a journal of format {made_by}: this blobfs reads format {FORMAT}")
    headers = fields.pop("headers")
    return Target(**fields, headers=ContentHeaders(**headers))  # type: ignore[arg-type]
