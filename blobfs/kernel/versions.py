"""Which libfuse this machine has."""

import ctypes
import ctypes.util


def libfuse_versions() -> dict[str, str]:
    """Return the version of each libfuse that can be loaded, by what `--binding` calls it."""
    versions = {}
    if name := ctypes.util.find_library("fuse3"):
        pkgversion = ctypes.CDLL(name).fuse_pkgversion
        pkgversion.restype = ctypes.c_char_p
        versions["libfuse3"] = pkgversion().decode()
    if name := ctypes.util.find_library("fuse"):
        number = ctypes.CDLL(name).fuse_version()
        versions["libfuse2"] = f"{number // 10}.{number % 10}"
    return versions


def libfuse3_version() -> tuple[int, ...]:
    """Return the version of libfuse 3, which must be here, as numbers."""
    return tuple(int(part) for part in libfuse_versions()["libfuse3"].split(".")[:2])
