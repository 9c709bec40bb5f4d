"""struct stat as a binding declares it for this machine, filled in one go: it is what is asked for most."""

import ctypes
from collections.abc import Callable
from operator import itemgetter
from struct import Struct
from typing import Any

from blobfs.blocks import KiB
from blobfs.filesystem.volume import Stat

# st_blksize: how much Python's open() reads and writes at a time, and C's stdio up to 8 KiB. Each write(2) is
# two requests of the kernel's. Random reads fetch this much anyway (`settings.fragment_bytes`).
BLOCK_BYTES = 64 * KiB
SECTOR_BYTES = 512  # what st_blocks counts (stat(3type))
NS = 10**9

# In the order in which `fill` has their values; the ones that may be negative are apart.
_UNSIGNED = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_rdev")
_SIGNED = ("st_size", "st_blksize", "st_blocks")
_TIMES = ("st_atimespec", "st_mtimespec", "st_ctimespec")
_UNSIGNED_CODES = {2: "H", 4: "I", 8: "Q"}
_SIGNED_CODES = {4: "i", 8: "q"}


def stat_filler(c_stat: Any) -> Callable[[Any, Stat], None]:
    """Return a function that writes a Stat over all of a ``c_stat``; fields that a Stat lacks become zero."""
    places: list[tuple[int, str]] = []
    for name in (*_UNSIGNED, *_SIGNED):
        field = getattr(c_stat, name)
        places.append((field.offset, (_SIGNED_CODES if name in _SIGNED else _UNSIGNED_CODES)[field.size]))
    for name in _TIMES:
        field = getattr(c_stat, name)
        half = field.size // 2  # seconds, then nanoseconds: both a long (timespec(3type))
        places += [(field.offset, _SIGNED_CODES[half]), (field.offset + half, _SIGNED_CODES[half])]
    by_offset = sorted(range(len(places)), key=lambda index: places[index][0])
    layout = Struct(_format([places[index] for index in by_offset], ctypes.sizeof(c_stat)))
    in_order = itemgetter(*by_offset)

    def fill(target: Any, stat: Stat) -> None:
        attributes, size_bytes = stat.attributes, stat.size_bytes
        values = (
            *(attributes.mode, stat.inode, stat.links, attributes.uid, attributes.gid, attributes.rdev),
            *(size_bytes, BLOCK_BYTES, -(-size_bytes // SECTOR_BYTES)),
            *divmod(attributes.atime_ns, NS),
            *divmod(attributes.mtime_ns, NS),
            *divmod(attributes.ctime_ns, NS),
        )
        layout.pack_into(target, 0, *in_order(values))

    return fill


def _format(places: list[tuple[int, str]], size_bytes: int) -> str:
    """Return the format (see `struct`) of codes at offsets, with zeros in between, `size_bytes` long."""
    text, end = "=", 0
    for offset, code in places:
        text += f"{offset - end}x{code}"
        end = offset + Struct(f"={code}").size
    return f"{text}{size_bytes - end}x"
