"""struct stat, on machines whose own differ."""

import ctypes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobfs.filesystem.volume import Stat
from blobfs.format.attributes import Attributes
from blobfs.kernel.stats import stat_filler


class Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_int64), ("tv_nsec", ctypes.c_int64))


TIMES = [(name, Timespec) for name in ("st_atimespec", "st_mtimespec", "st_ctimespec")]


class Amd64(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("st_dev", "st_ino", "st_nlink")),
        *((name, ctypes.c_uint32) for name in ("st_mode", "st_uid", "st_gid")),
        ("__pad0", ctypes.c_int32),
        ("st_rdev", ctypes.c_uint64),
        *((name, ctypes.c_int64) for name in ("st_size", "st_blksize", "st_blocks")),
        *TIMES,
        ("reserved", ctypes.c_int64 * 3),
    )


class Arm64(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("st_dev", "st_ino")),
        *((name, ctypes.c_uint32) for name in ("st_mode", "st_nlink", "st_uid", "st_gid")),
        *((name, ctypes.c_uint64) for name in ("st_rdev", "__pad1")),
        ("st_size", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("st_blksize", "__pad2")),
        ("st_blocks", ctypes.c_int64),
        *TIMES,
    )


times_ns = st.integers(-(2**62), 2**62)
stats = st.builds(
    Stat,
    st.builds(
        Attributes,
        mode=st.integers(0, 0o177777),
        uid=st.integers(0, 2**32 - 2),
        gid=st.integers(0, 2**32 - 2),
        mtime_ns=times_ns,
        ctime_ns=times_ns,
        atime_ns=times_ns,
        rdev=st.integers(0, 2**32 - 1),
    ),
    inode=st.integers(1, 2**63 - 1),
    links=st.integers(0, 2**31),
    size_bytes=st.integers(0, 2**53),
)


@pytest.mark.parametrize("layout", [Amd64, Arm64])
@given(stat=stats)
def test_everything_lands_in_its_place_and_nothing_of_another_file_stays(layout: Any, stat: Stat) -> None:
    filled = layout.from_buffer(bytearray(b"\xff" * ctypes.sizeof(layout)))
    stat_filler(layout)(filled, stat)

    expected, attributes = layout(), stat.attributes
    expected.st_mode, expected.st_uid, expected.st_gid = attributes.mode, attributes.uid, attributes.gid
    expected.st_ino, expected.st_nlink, expected.st_rdev = stat.inode, stat.links, attributes.rdev
    expected.st_size, expected.st_blksize = stat.size_bytes, 65_536
    expected.st_blocks = (stat.size_bytes + 511) // 512
    for name in ("atime", "mtime", "ctime"):
        seconds, nanoseconds = divmod(getattr(attributes, f"{name}_ns"), 10**9)
        setattr(expected, f"st_{name}spec", Timespec(seconds, nanoseconds))
    assert bytes(filled) == bytes(expected)
