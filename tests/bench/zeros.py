"""A mount without a service: every file is zeros, and what is written is forgotten.

``python -m bench.zeros MOUNTPOINT BINDING NAME=BYTES…``. What remains is what FUSE, libfuse and
this project's binding cost.
"""

import stat
import sys
from collections.abc import Sequence

from blobfs.assembly import KERNEL_THREADS
from blobfs.callers import Callers
from blobfs.errors import NotFound
from blobfs.filesystem.handles import Opened
from blobfs.filesystem.volume import Stat
from blobfs.format.attributes import Attributes
from blobfs.kernel import binding
from blobfs.kernel.operations import Operations

_ZEROS = bytes(1 << 20)  # the largest request of libfuse 3


class Zeros(Operations):
    """Files of one flat directory, by their sizes."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self._sizes = sizes

    def init(self, _path: str) -> None:
        """Nothing to start."""

    def getattr(self, path: str | None, handle: int | None = None) -> Stat:
        """stat(2)."""
        if path == "/":
            return Stat(Attributes(stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0), 0, 2, 0)
        if path not in self._sizes:
            raise NotFound(f"{path}, {handle}")
        return Stat(Attributes(stat.S_IFREG | 0o644, 0, 0, 0, 0, 0), 0, 1, self._sizes[path])

    def open(self, path: str, flags: int) -> Opened:
        """open(2)."""
        return Opened(0)

    def create(self, path: str, mode: int, flags: int) -> Opened:
        """open(2) of a new file, which stays empty."""
        self._sizes[path] = 0
        return Opened(0)

    def truncate(self, path: str, size_bytes: int) -> None:
        """truncate(2)."""
        self._sizes[path] = size_bytes

    def read_into(self, handle: int, offset: int, target: memoryview) -> int:
        """pread(2); the kernel does not ask beyond the end."""
        target[:] = memoryview(_ZEROS)[: len(target)]
        return len(target)

    def write_from(self, handle: int, offset: int, data: memoryview, *, is_page: bool = False) -> int:
        """pwrite(2), into nothing."""
        return len(data)

    def flush(self, _path: str, handle: int) -> None:
        """Nothing is kept."""

    def release(self, _path: str, handle: int) -> None:
        """Nothing is kept."""


def main(mountpoint: str, kind: str, files: Sequence[str]) -> None:
    """Serve until it is unmounted."""
    sizes = {f"/{name}": int(size) for name, _, size in (file.partition("=") for file in files)}
    binding.serve(
        binding.load(kind),
        Zeros(sizes),
        mountpoint,
        {"fsname": "zeros"},
        Callers(lambda: 0, lambda: False),
        timeout_seconds=1.0,
        kernel_threads=KERNEL_THREADS,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
