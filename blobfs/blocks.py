"""The Blob service's limits, and block ids that are checksums. Pure: no I/O, no clock.

An id before base64 is one of these, all ids of one blob having the same length:

=========================================  =====================================================
``bfs1`` + MD5 in hex + XXH3-64 in hex     52 bytes, the checksums of the block's content
``bfs0`` + 48 hex digits                   52 bytes, of a block that the service itself copied: they
                                           tell where from, and nothing of its content
anything else                              of another tool, or as long as the ids of another tool
                                           that were there first: a hash of either of the above
=========================================  =====================================================

Limits: https://learn.microsoft.com/azure/storage/blobs/scalability-targets and
https://learn.microsoft.com/rest/api/storageservices/put-block
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Protocol

import xxhash

KiB = 1024
MiB = 1024 * KiB

MAX_BLOCKS_PER_BLOB = 50_000
MAX_BLOCK_BYTES = 4000 * MiB
MAX_RANGE_WITH_MD5_BYTES = 4 * MiB  # for which a read may ask for a checksum
MAX_BLOB_NAME_CHARACTERS = 1024
MAX_METADATA_BYTES = 8 * KiB
MAX_LIST_RESULTS = 5000
MAX_BATCH_REQUESTS = 256  # https://learn.microsoft.com/rest/api/storageservices/blob-batch

ID_PREFIX = b"bfs1"
COPIED_ID_PREFIX = b"bfs0"  # no checksum follows
ID_BYTES = 52  # prefix, 32 hex digits of MD5, 16 hex digits of XXH3-64


class Md5(Protocol):
    """An MD5 that bytes are still added to."""

    def update(self, data: memoryview | bytes, /) -> None:
        """Add bytes. Releases the interpreter lock if they are many."""
        ...

    def digest(self) -> bytes:
        """Return the MD5 of all bytes until now."""
        ...

    def copy(self) -> "Md5":
        """Return another that goes on from here."""
        ...


@dataclass(frozen=True, slots=True)
class BlockDigest:
    """Both checksums of one block's bytes."""

    md5: bytes
    xxh3: bytes

    def block_id(self, id_bytes: int = ID_BYTES) -> str:
        """Return the base64 id of a block with this content, `id_bytes` long before base64.

        Equal bytes give equal ids. Another length is for blobs that other tools began:
        all ids of one blob must have the same length.
        """
        if id_bytes == ID_BYTES:
            raw = ID_PREFIX + self.md5.hex().encode() + self.xxh3.hex().encode()
        else:
            raw = hashlib.shake_256(self.md5 + self.xxh3).digest(id_bytes)
        return base64.b64encode(raw).decode()


def digest_of(block: memoryview | bytes, md5: Md5 | None = None) -> BlockDigest:
    """Hash one block; its MD5 may be at hand. Releases the interpreter lock while it does."""
    return BlockDigest((md5 or md5_hash(block)).digest(), xxh3_digest(block))


def xxh3_digest(data: memoryview | bytes) -> bytes:
    """Return the XXH3-64 of bytes as block ids carry it. Releases the interpreter lock meanwhile."""
    return xxhash.xxh3_64_digest(data)


def xxh3_hash() -> xxhash.xxh3_64:
    """Return what takes bytes in pieces by ``update`` and has `xxh3_digest` of them all in ``digest``."""
    return xxhash.xxh3_64()


def md5_hash(data: memoryview | bytes) -> Md5:
    """Return what takes more bytes by ``update`` and has the MD5 of them all in ``digest``.

    Releases the interpreter lock while it hashes.
    """
    return hashlib.md5(data, usedforsecurity=False)


def md5_digest(data: memoryview | bytes) -> bytes:
    """Return the MD5 of bytes. Releases the interpreter lock meanwhile."""
    return md5_hash(data).digest()


def xxh3_in_id(block_id: str) -> bytes | None:
    """Return the XXH3-64 that a base64 block id of ours carries; None for any other id."""
    try:
        raw = base64.b64decode(block_id, validate=True)
        is_ours = len(raw) == ID_BYTES and raw.startswith(ID_PREFIX)
        return bytes.fromhex(raw[-16:].decode("ascii")) if is_ours else None
    except ValueError:
        return None


def copied_block_id(name: str, etag: str, start: int, length: int, id_bytes: int = ID_BYTES) -> str:
    """Return the base64 id of a block that is a range of a blob's version, its content not being known.

    Equal ranges of one version give equal ids, so equal ids still mean equal bytes.
    """
    origin = hashlib.shake_256(f"{start} {length} {etag} {name}".encode())
    if id_bytes == ID_BYTES:
        raw = COPIED_ID_PREFIX + origin.hexdigest((ID_BYTES - len(COPIED_ID_PREFIX)) // 2).encode()
    else:
        raw = origin.digest(id_bytes)
    return base64.b64encode(raw).decode()


def id_length(block_id: str) -> int:
    """Return the length in bytes of a base64 block id before base64."""
    return len(block_id) // 4 * 3 - block_id.count("=")


def block_size_at(index: int, first_bytes: int, largest_bytes: int) -> int:
    """Return the size of the block with this index in a file written from start to end.

    The size doubles every 5,000 blocks, so that a file of any size a user can write stays
    under `MAX_BLOCKS_PER_BLOB`, until it reaches `largest_bytes`.
    """
    return min(first_bytes << (index // 5000), largest_bytes, MAX_BLOCK_BYTES)


def block_spans(size_bytes: int, first_bytes: int, largest_bytes: int) -> list[range]:
    """Return the blocks of a file of this size that is written from start to end."""
    spans: list[range] = []
    start = 0
    while start < size_bytes:
        stop = min(size_bytes, start + block_size_at(len(spans), first_bytes, largest_bytes))
        spans.append(range(start, stop))
        start = stop
    return spans
