"""The file format of a piece of a blob on local disk: a header, padded to whole pages, then the bytes.

The header tells whose bytes they are and has a checksum for each slice of them, and one for itself:
a torn file, another one's, or a disk that lies is noticed at each use, and part can be read alone.
"""

import os
import struct
from typing import BinaryIO

from blobfs.blocks import KiB, xxh3_digest

SLICE_BYTES = 64 * KiB
PAGE_BYTES = 4096
MAGIC = b"blobfs01"  # another number for another format
DIGEST_BYTES = 8

_FIXED = struct.Struct("<8s16sQQ")  # magic, key, offset in the blob, length


class TornPiece(Exception):
    """The file is not what was written."""


def write_piece(file: BinaryIO, key: bytes, start: int, data: memoryview) -> None:
    """Write the bytes of a blob from `start` on; `key` (16 bytes) says which version. Raises OSError."""
    fixed = _FIXED.pack(MAGIC, key, start, len(data))
    slices = range(0, len(data), SLICE_BYTES)
    digests = b"".join(xxh3_digest(data[offset : offset + SLICE_BYTES]) for offset in slices)
    header = fixed + xxh3_digest(fixed + digests) + digests
    file.write(header.ljust(_header_bytes(len(data)), b"\0"))
    file.write(data)


def read_piece(file: int, key: bytes, piece_start: int, start: int, into: memoryview) -> bool:
    """Fill `into` with the blob's bytes from `start` on; False if the piece has not all of them.

    `file` is a descriptor. Raises TornPiece, OSError.
    """
    length, digests = _read_header(file, key, piece_start)
    position = start - piece_start
    stop = position + len(into)
    if position % SLICE_BYTES or stop > length or (stop % SLICE_BYTES and stop != length):
        return False
    if os.preadv(file, [into], _header_bytes(length) + position) != len(into):
        raise TornPiece("it is too short")
    for offset in range(0, len(into), SLICE_BYTES):
        at = (position + offset) // SLICE_BYTES * DIGEST_BYTES
        if xxh3_digest(into[offset : offset + SLICE_BYTES]) != digests[at : at + DIGEST_BYTES]:
            raise TornPiece("its bytes do not match their checksum")
    return True


def piece_bytes(file: int, key: bytes, piece_start: int) -> int:
    """Return how long a piece is, whose bytes may still prove damaged. Raises TornPiece, OSError."""
    return _read_header(file, key, piece_start)[0]


def _read_header(file: int, key: bytes, piece_start: int) -> tuple[int, bytes]:
    """Return the length of the piece and the checksums of its slices."""
    header = os.pread(file, PAGE_BYTES, 0)
    if len(header) < PAGE_BYTES:
        raise TornPiece("it has no whole header")
    magic, found_key, found_start, length = _FIXED.unpack_from(header)
    if (magic, found_key, found_start) != (MAGIC, key, piece_start):
        raise TornPiece("its header is of something else")
    rest_bytes = _header_bytes(length) - PAGE_BYTES
    if rest_bytes > os.fstat(file).st_size:
        raise TornPiece("its header is damaged")
    header += os.pread(file, rest_bytes, PAGE_BYTES)
    first = _FIXED.size + DIGEST_BYTES
    digests = header[first : first + _digests_bytes(length)]
    if xxh3_digest(header[: _FIXED.size] + digests) != header[_FIXED.size : first]:
        raise TornPiece("its header is damaged")
    return length, digests


def _digests_bytes(length: int) -> int:
    return -(-length // SLICE_BYTES) * DIGEST_BYTES


def _header_bytes(length: int) -> int:
    used_bytes = _FIXED.size + DIGEST_BYTES + _digests_bytes(length)
    return -(-used_bytes // PAGE_BYTES) * PAGE_BYTES
