"""The one module that knows libfuse: which library, which Python binding, and what each does not pass on.

mfusepy drives libfuse 3, fusepy libfuse 2. Their stock methods drop what READDIRPLUS and renameat2 carry;
those methods are our own here, and what both have in common is in `calls`.
"""

import ctypes
import ctypes.util
import importlib
import logging
import os
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

from blobfs.callers import Callers
from blobfs.errors import CannotRun
from blobfs.kernel.calls import Calls
from blobfs.kernel.kernel_attributes import KernelAttributes
from blobfs.kernel.notifier import Notifier
from blobfs.kernel.operations import Operations
from blobfs.kernel.stats import stat_filler
from blobfs.kernel.versions import libfuse3_version

logger = logging.getLogger(__name__)

READDIR_PLUS = 1  # enum fuse_readdir_flags: the kernel takes attributes along
FILL_DIR_PLUS = 2  # enum fuse_fill_dir_flags
CAP_AUTO_INVAL_DATA = 1 << 12  # <fuse_common.h>
CAP_READDIRPLUS_AUTO = 1 << 14
CAP_HANDLE_KILLPRIV = 1 << 20
FIXED_THREADS_VERSION = (3, 12)  # ChangeLog.rst of libfuse: "max_threads"
MOMENT_SECONDS = 0.01  # in which a program asks for a file and the directories above it several times
LOOP_INTERRUPTED = 8  # fuse_main(3)'s code when a signal ended its loop: it has mounted, served and unmounted


class Library(NamedTuple):
    """A Python binding, and which libfuse it drives."""

    kind: str  # "libfuse3" or "libfuse2"
    module: ModuleType


def load(binding: str) -> Library:
    """Import the binding asked for: "libfuse3", "libfuse2", or "auto" for the best there is.

    Raises CannotRun if no libfuse of that kind is installed, or if it cannot be loaded.
    """
    libfuse3 = ctypes.util.find_library("fuse3")
    if binding in ("auto", "libfuse3") and libfuse3:
        _require_sound(libfuse3)
        # mfusepy loads libfuse 2 if it finds one, unless it is told otherwise before the import.
        os.environ["FUSE_LIBRARY_PATH"] = libfuse3
        return Library("libfuse3", importlib.import_module("mfusepy"))
    libfuse2 = ctypes.util.find_library("fuse")
    if binding in ("auto", "libfuse2") and libfuse2:
        _require_sound(libfuse2)
        os.environ["FUSE_LIBRARY_PATH"] = libfuse2
        return Library("libfuse2", importlib.import_module("fuse"))
    wanted = "libfuse" if binding == "auto" else binding
    raise CannotRun(f"{wanted} is not installed: have an admin run: apt-get install fuse3 libfuse2")


def _require_sound(libfuse: str) -> None:
    try:
        ctypes.CDLL(libfuse)
    except OSError as error:
        raise CannotRun(f"libfuse cannot be loaded: {error}. Have an admin reinstall it.") from error


def caller_of(library: Library) -> tuple[int, int, int]:
    """Return the uid, gid and thread id on whose behalf the current operation runs."""
    ids: tuple[int, int, int] = library.module.fuse_get_context()
    return ids


def serve(
    library: Library,
    operations: Operations,
    mountpoint: str,
    options: dict[str, str | bool],
    callers: Callers,
    *,
    timeout_seconds: float,
    kernel_threads: int,
) -> None:
    """Mount and serve kernel requests until the mount is gone. Raises CannotRun if it cannot be mounted."""
    kind, module = library
    make = _libfuse3_class if kind == "libfuse3" else _libfuse2_class
    # Attributes that libfuse 2 has given cannot be taken back when a file turns out newer at its open.
    attribute_seconds = timeout_seconds if kind == "libfuse3" else min(timeout_seconds, MOMENT_SECONDS)
    common: dict[str, str | bool] = {
        "foreground": True,
        "default_permissions": True,
        "use_ino": True,
        "attr_timeout": str(attribute_seconds),
        "entry_timeout": str(timeout_seconds),
    }
    has_fixed_threads = kind == "libfuse3" and libfuse3_version() >= FIXED_THREADS_VERSION
    special: dict[str, str | bool] = {}
    if kind == "libfuse2":
        special |= {"big_writes": True, "atomic_o_trunc": True}
    else:
        special["max_idle_threads"] = str(kernel_threads)
    if has_fixed_threads:
        special["max_threads"] = str(kernel_threads)
    binding = make(module, callers)
    binding.keeps_threads = has_fixed_threads  # they end with the mount
    try:
        binding(operations, mountpoint, **common, **special, **options)
    except RuntimeError as error:
        if error.args == (LOOP_INTERRUPTED,):
            return
        raise CannotRun(f"{mountpoint}: libfuse could not mount it (exit code {error})") from error


class _Libfuse3Calls(Calls):
    """What libfuse 3 calls in its own way."""

    library: ctypes.CDLL
    notifier: Notifier

    def _init(self, connection: Any, config: Any) -> None:
        config.contents.use_ino = 1
        # A call with a handle comes without a path, and so does not wait for an open or a rename of that: an
        # open may have to wait for the kernel's pages, and those for a read.
        config.contents.nullpath_ok = 1
        # Pages are kept or dropped by ETag at open; set-id bits are the kernel's to clear.
        connection.contents.want &= ~(CAP_AUTO_INVAL_DATA | CAP_READDIRPLUS_AUTO | CAP_HANDLE_KILLPRIV)
        self.operations.init("/")

    def readdir_fuse_3(
        self, _path: bytes | None, buffer: Any, fill: Any, offset: int, info: Any, flags: int
    ) -> int:
        """Give every entry with its whole stat and a running offset: else the kernel asks for each."""
        directory = self.operations.directory_path(info.contents.fh).encode(self.encoding, "surrogateescape")
        entries, c_stat, fill_stat = self._entries(offset, info), self.c_stat(), self.fill_stat
        told = {}
        for index in range(offset, len(entries)):
            name, stat = entries[index]
            entry = name.encode(self.encoding)
            fill_stat(c_stat, stat)
            if fill(buffer, entry, c_stat, index + 1, FILL_DIR_PLUS):
                break
            told[entry] = stat
        self.kernel_attributes.note_listing(
            directory, told if flags & READDIR_PLUS else {}, goes_on=offset > 0
        )
        return 0

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        """Pass on renameat2's flags."""
        self.operations.rename(self._text(old), self._text(new), flags)
        self.kernel_attributes.rename(old, new)
        return 0

    def truncate_fuse_3(self, path: bytes, size_bytes: int, info: Any) -> int:
        """Truncate by handle where there is one."""
        if info:
            return self.ftruncate(path, size_bytes, info)
        self.operations.truncate(self._text(path), size_bytes)
        return 0

    def utimens_fuse_3(self, path: bytes, times: Any, _info: Any) -> int:
        """Set times."""
        return self._utimens(path, times)

    def _forget_attributes(self, path: bytes, handle: int) -> bool:
        if self.kernel_attributes.is_believed(path, self.operations.getattr(None, handle)):
            return True
        fuse = ctypes.c_void_p(self.library.fuse_get_context().contents.fuse)
        return self.notifier.forget(partial(self.library.fuse_invalidate_path, fuse, path))


def _libfuse3_class(module: ModuleType, callers: Callers) -> Any:
    """Return mfusepy's FUSE class with our callbacks."""

    class Libfuse3(_Libfuse3Calls, module.FUSE):  # type: ignore[name-defined,misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.kernel_attributes = KernelAttributes()
            self.notifier = Notifier()
            super().__init__(*arguments, **options)

        def destroy(self, private_data: Any) -> None:
            """End the thread that calls libfuse, which is about to go."""
            self.notifier.close()
            super().destroy(private_data)

    Libfuse3.callers = callers
    Libfuse3.c_stat = module.c_stat
    Libfuse3.fill_stat = staticmethod(stat_filler(module.c_stat))
    Libfuse3.library = module._libfuse
    return Libfuse3


class _Libfuse2Calls(Calls):
    """What libfuse 2 calls in its own way."""

    def rename(self, old: bytes, new: bytes) -> int:
        """Rename; what the kernel was told goes with the path."""
        self.operations.rename(self._text(old), self._text(new))
        self.kernel_attributes.rename(old, new)
        return 0

    def readdir(self, _path: bytes, buffer: Any, fill: Any, offset: int, info: Any) -> int:
        """Give every entry with its type, number and a running offset."""
        entries, c_stat, fill_stat = self._entries(offset, info), self.c_stat(), self.fill_stat
        for index in range(offset, len(entries)):
            name, stat = entries[index]
            fill_stat(c_stat, stat)
            if fill(buffer, name.encode(self.encoding), c_stat, index + 1):
                break
        return 0

    def utimens(self, path: bytes, times: Any) -> int:
        """Set times."""
        return self._utimens(path, times)

    def _forget_attributes(self, path: bytes, handle: int) -> bool:
        self.kernel_attributes.wait_unless(path, self.operations.getattr(None, handle))
        return True

    def symlink(self, target: bytes, path: bytes) -> int:
        """Make a link; its target is any bytes."""
        self.operations.symlink(self._text(path), self._text(target))
        return 0

    def readlink(self, path: bytes, buffer: Any, size: int) -> int:
        """Give a link's target, ended by a zero byte."""
        target = self.operations.readlink(self._text(path)).encode(self.encoding, "surrogateescape")
        cut = target[: size - 1] + b"\0"
        ctypes.memmove(buffer, cut, len(cut))
        return 0


def _libfuse2_class(module: ModuleType, callers: Callers) -> Any:
    """Return fusepy's FUSE class with our callbacks."""

    class Libfuse2(_Libfuse2Calls, module.FUSE):  # type: ignore[name-defined,misc]
        def __init__(self, operations: Operations, *arguments: Any, **options: Any) -> None:
            self.kernel_attributes = KernelAttributes()
            super().__init__(_Callable(operations), *arguments, **options)

    Libfuse2.callers = callers
    Libfuse2.c_stat = module.c_stat
    Libfuse2.fill_stat = staticmethod(stat_filler(module.c_stat))
    return Libfuse2


class _Callable:
    """Operations in the form fusepy wants: it calls the object with an operation's name."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def __call__(self, operation: str, *arguments: Any) -> Any:
        return getattr(self._operations, operation)(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)
