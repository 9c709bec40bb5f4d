"""Which libfuse this machine has."""

import ctypes
import ctypes.util


def libfuse_versions() -> dict[str, str]:
    """Return the version of each libfuse that can be loaded, by what `--binding` calls it."""
    versions = {}
    if library := _loaded("fuse3"):
        library.fuse_pkgversion.restype = ctypes.c_char_p
        versions["libfuse3"] = library.fuse_pkgversion().decode()
    if library := _loaded("fuse"):
        number = library.fuse_version()
        versions["libfuse2"] = f"{number // 10}.{number % 10}"
    return versions


def _loaded(name: str) -> ctypes.CDLL | None:
    """Return a library; None if it is not installed, or damaged."""
    found = ctypes.util.find_library(name)
    try:
        return ctypes.CDLL(found) if found else None
    except OSError:
        return None


def libfuse3_version() -> tuple[int, ...]:
    """Return the version of libfuse 3, which must be here, as numbers."""
    return tuple(int(part) for part in libfuse_versions()["libfuse3"].split(".")[:2])
