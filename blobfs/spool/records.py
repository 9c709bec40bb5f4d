"""The records of a journal, each way. Pure: no I/O, no clock.

A journal is records one after the other, each a head and a body:

====================  ==========================================================================
``kind``              1 byte, see `Kind`; 3 bytes of zero follow
``body_bytes``        4 bytes, little-endian as all numbers here
``number``            8 bytes: where a write begins, or the new size of a truncated file
``body_checksum``     8 bytes, XXH3-64
``head_checksum``     8 bytes, XXH3-64 of the above, seeded with the record's position in the journal
====================  ==========================================================================

So a record that a crash cut short is told from a damaged one: its head, as far as it is there, is
sound. Nothing but a crash of the machine leaves zeros at the end: they count as cut short, too.
"""

import enum
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

import xxhash

from blobfs.errors import Damaged
from blobfs.store import ContentHeaders

FORMAT = 1
NO_HEADERS = ContentHeaders()

_HEAD = struct.Struct("<B3xIQQ")
_CHECKSUM = struct.Struct("<Q")
HEAD_BYTES = _HEAD.size + _CHECKSUM.size

ReadAt = Callable[[int, int], bytes]  # position and length to bytes, fewer at the end


class Kind(enum.Enum):
    """What a record says."""

    TARGET = 1  # what the next commit is to replace, and by what name; every journal begins with one
    WRITE = 2
    TRUNCATE = 3
    COMMIT = 4  # a target again: from here on somebody counts on it
    CONFLICT = 5  # why nothing here can be committed any more


@dataclass(frozen=True, slots=True)
class Target:
    """Where the content belongs: a blob that it changes or replaces, or a name that is free."""

    name: str
    base_etag: str = ""  # of the blob that has the bytes nobody wrote here; empty if there is none
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

    @property
    def end(self) -> int:
        """The position of the next record."""
        return self.body_at + self.body_bytes


def head_of(kind: Kind, position: int, number: int, body: memoryview | bytes) -> bytes:
    """Return the head for a record of this body at this position."""
    head = _HEAD.pack(kind.value, len(body), number, xxhash.xxh3_64_intdigest(body))
    return head + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(head, seed=position))


def body_of_target(target: Target) -> bytes:
    """Return a target as a body."""
    return json.dumps({"format": FORMAT, **asdict(target)}).encode()


def records_in(read_at: ReadAt) -> Iterator[Record]:
    """Yield the records of a journal up to its end, or to one that was cut short.

    Raises Damaged where a record is not what was written; all before it are sound.
    """
    position = 0
    while (record := _record_at(position, read_at)) is not None:
        yield record
        position = record.end


def _record_at(position: int, read_at: ReadAt) -> Record | None:
    raw = read_at(position, HEAD_BYTES)
    if len(raw) < HEAD_BYTES or not any(raw):
        return None
    packed, checksum = raw[: _HEAD.size], raw[_HEAD.size :]
    if _CHECKSUM.unpack(checksum)[0] != xxhash.xxh3_64_intdigest(packed, seed=position):
        raise Damaged(f"record at byte {position}: its head does not match its checksum")
    number_of_kind, body_bytes, number, body_checksum = _HEAD.unpack(packed)
    body_at = position + HEAD_BYTES
    body = read_at(body_at, body_bytes)
    if len(body) < body_bytes:
        return None
    if xxhash.xxh3_64_intdigest(body) != body_checksum:
        raise Damaged(f"record at byte {position}: its {body_bytes} bytes do not match their checksum")
    try:
        record = Record(Kind(number_of_kind), number, body_at=body_at, body_bytes=body_bytes)
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
