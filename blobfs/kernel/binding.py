"""The one module that knows libfuse: which library, which Python binding, and what each does not pass on.

mfusepy drives libfuse 3, fusepy libfuse 2. Their stock methods copy every read and write twice
and drop what READDIRPLUS, renameat2 and utimensat carry; those methods are our own here.
The boundary is `_wrapper`: nothing but an errno gets past it into C.
"""

import ctypes
import ctypes.util
import errno
import importlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from blobfs.callers import Callers
from blobfs.errors import (
    Abandoned,
    Failure,
    NoAttribute,
    NotFound,
    Unavailable,
    UnsupportedAttribute,
    errno_of,
)
from blobfs.filesystem.handles import Opened
from blobfs.filesystem.volume import Stat
from blobfs.kernel.notifier import Notifier
from blobfs.kernel.operations import Operations
from blobfs.kernel.threads import keep_thread
from blobfs.kernel.told import OUTLASTED_SECONDS, Told
from blobfs.kernel.versions import libfuse3_version

logger = logging.getLogger(__name__)

UTIME_NOW = (1 << 30) - 1  # <sys/stat.h>
UTIME_OMIT = (1 << 30) - 2
FILL_DIR_PLUS = 2  # enum fuse_fill_dir_flags
CAP_AUTO_INVAL_DATA = 1 << 12  # <fuse_common.h>
CAP_READDIRPLUS_AUTO = 1 << 14
CAP_HANDLE_KILLPRIV = 1 << 20
FIXED_THREADS_VERSION = (3, 12)  # ChangeLog.rst of libfuse: "max_threads"
KERNEL_THREADS = 32  # requests of the kernel served at once; slow ones must not stop the others
MAX_READ_BYTES = 1 << 20
MOMENT_SECONDS = 0.01  # in which a program asks for a file and the directories above it several times
BLOCK_BYTES = 4096  # st_blksize: the least that is worth asking for at a time
# They change nothing.
MAY_BE_ABANDONED = frozenset(("getattr", "getxattr", "open", "opendir", "read", "readdir", "readlink"))
LOOP_INTERRUPTED = 8  # fuse_main(3)'s code when a signal ended its loop: it has mounted, served and unmounted

# Answers that programs ask for in passing; they say nothing of trouble.
EVERYDAY = (Abandoned, NotFound, NoAttribute, UnsupportedAttribute)

Library = tuple[str, ModuleType]


def load(binding: str) -> Library:
    """Import the binding asked for: "libfuse3", "libfuse2", or "auto" for the best there is.

    Raises Unavailable if no libfuse of that kind is installed.
    """
    libfuse3 = ctypes.util.find_library("fuse3")
    if binding in ("auto", "libfuse3") and libfuse3:
        # mfusepy loads libfuse 2 if it finds one, unless it is told otherwise before the import.
        os.environ["FUSE_LIBRARY_PATH"] = libfuse3
        return "libfuse3", importlib.import_module("mfusepy")
    libfuse2 = ctypes.util.find_library("fuse")
    if binding in ("auto", "libfuse2") and libfuse2:
        os.environ["FUSE_LIBRARY_PATH"] = libfuse2
        return "libfuse2", importlib.import_module("fuse")
    wanted = "libfuse" if binding == "auto" else binding
    raise Unavailable(f"{wanted} is not installed: have an admin run: apt-get install fuse3 libfuse2")


def caller_of(library: Library) -> tuple[int, int, int]:
    """Return the uid, gid and pid on whose behalf the current operation runs."""
    ids: tuple[int, int, int] = library[1].fuse_get_context()
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
    """Mount and serve kernel requests until the mount is gone. Raises Unavailable if it cannot be mounted."""
    kind, module = library
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
    binding = (
        _libfuse3_class(module, callers, timeout_seconds)
        if kind == "libfuse3"
        else _libfuse2_class(module, callers)
    )
    binding.keeps_threads = has_fixed_threads  # they end with the mount
    try:
        binding(operations, mountpoint, **common, **special, **options)
    except RuntimeError as error:
        if error.args == (LOOP_INTERRUPTED,):
            return
        raise Unavailable(f"{mountpoint}: libfuse could not mount it (exit code {error})") from error


class _Calls:
    """Callbacks written once for both bindings: arguments as C gives them, errnos as it wants them."""

    operations: Operations
    callers: Callers
    encoding: str
    keeps_threads: bool

    def _wrapper(self, function: Callable[..., int | None], *arguments: Any) -> int:
        """Run one callback. An exception that got past here would become garbage in the application."""
        if self.keeps_threads:
            keep_thread()
        try:
            if function.__name__.removesuffix("_fuse_3") not in MAY_BE_ABANDONED:
                return function(*arguments) or 0
            with self.callers.may_leave:
                return function(*arguments) or 0
        except Failure as failure:
            is_news = not (failure.is_reported or isinstance(failure, EVERYDAY))
            level = logging.INFO if is_news else logging.DEBUG
            logger.log(level, "%s: %s", function.__name__, failure)
            return -failure.errno
        except BaseException as error:  # not swallowed: logged unless it has an errno, and answered by one
            number = errno_of(error)
            if number == errno.EIO:
                logger.exception("%s failed unexpectedly", function.__name__)
            return -number

    def fgetattr(self, path: bytes | None, buffer: Any, info: Any) -> int:
        """Fill in what stat(2) or fstat(2) asks for."""
        handle = info.contents.fh if info else None
        stat = self.operations.getattr(None if path is None else self._text(path), handle)
        ctypes.memset(buffer, 0, ctypes.sizeof(buffer.contents))
        _fill_stat(buffer.contents, stat)
        if path is not None:
            self._note_told(path, buffer.contents)
        return 0

    def read(self, _path: bytes, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Have the bytes copied straight into the kernel's buffer."""
        return self.operations.read_into(info.contents.fh, offset, _memory(buffer, size))

    def write(self, _path: bytes, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Have the bytes copied straight out of the kernel's buffer."""
        return self.operations.write_from(info.contents.fh, offset, _memory(buffer, size))

    def open(self, path: bytes, info: Any) -> int:
        """Open a file and say what may happen to the kernel's pages of it."""
        opened = self.operations.open(self._text(path), info.contents.flags)
        self._answer(info, opened)
        if opened.is_newer:
            self._forget_attributes(path, opened.handle)
        return 0

    def create(self, path: bytes, mode: int, info: Any) -> int:
        """Create and open a file."""
        self._answer(info, self.operations.create(self._text(path), mode, info.contents.flags))
        return 0

    def getxattr(self, path: bytes, name: bytes, buffer: Any, size: int, *_position: int) -> int:
        """Answer the kernel's own questions at once: one for capabilities comes with every write."""
        if not name.startswith(b"user."):
            return -errno.EOPNOTSUPP  # after which ls(1) does not ask for other files
        value = self.operations.getxattr(self._text(path), name.decode(self.encoding))
        return _give(value, buffer, size)

    def ftruncate(self, _path: bytes, size_bytes: int, info: Any) -> int:
        """Truncate by handle."""
        self.operations.ftruncate(info.contents.fh, size_bytes)
        return 0

    def _utimens(self, path: bytes, times: Any) -> int:
        """Set times; libfuse gives none at all for "now"."""
        if times:
            pair = (_time_ns(times.contents.actime), _time_ns(times.contents.modtime))
        else:
            pair = (time.time_ns(), time.time_ns())
        self.operations.utimens(self._text(path), pair)
        return 0

    def _entries(self, offset: int, info: Any) -> Sequence[tuple[str, Stat]]:
        handle = info.contents.fh
        return self.operations.readdir_again(handle) if offset else self.operations.readdir("", handle)

    def _answer(self, info: Any, opened: Opened) -> None:
        info.contents.fh = opened.handle
        info.contents.keep_cache = opened.keep_pages
        info.contents.direct_io = opened.bypass_pages

    def _note_told(self, path: bytes, c_stat: Any) -> None:
        """Take note of what the kernel is being told of a path."""

    def _forget_attributes(self, path: bytes, handle: int) -> None:
        """See that the kernel believes nothing it was told of a file before it was opened by a handle."""

    def _text(self, path: bytes) -> str:
        return path.decode(self.encoding, "surrogateescape")


class _TellingCalls(_Calls):
    """The same, with a record of what the kernel was told a moment ago."""

    told: Told
    c_stat: Any

    def write(self, path: bytes, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Write; the kernel then knows the size by itself, and asks for the rest."""
        self.told.drop(path)
        return super().write(path, buffer, size, offset, info)

    def fallocate(self, path: bytes, mode: int, offset: int, size: int, info: Any) -> int:
        """Make room; so does this."""
        self.told.drop(path)
        self.operations.fallocate(None, mode, offset, size, info.contents.fh)
        return 0

    def _note_told(self, path: bytes, c_stat: Any) -> None:
        self.told.note(path, c_stat)

    def _stat_of(self, handle: int) -> Any:
        c_stat = self.c_stat()
        _fill_stat(c_stat, self.operations.getattr(None, handle))
        return c_stat


class _Libfuse3Calls(_TellingCalls):
    """What libfuse 3 calls in its own way."""

    library: ctypes.CDLL
    notifier: Notifier

    def _init(self, connection: Any, config: Any) -> None:
        config.contents.use_ino = 1
        # Pages are kept or dropped by ETag at open; set-id bits are the kernel's to clear.
        connection.contents.want &= ~(CAP_AUTO_INVAL_DATA | CAP_READDIRPLUS_AUTO | CAP_HANDLE_KILLPRIV)
        self.operations.init("/")

    def readdir_fuse_3(self, path: bytes, buffer: Any, fill: Any, offset: int, info: Any, _flags: int) -> int:
        """Give every entry with its whole stat and a running offset: else the kernel asks for each."""
        entries, c_stat = self._entries(offset, info), self.c_stat()
        for index in range(offset, len(entries)):
            name, stat = entries[index]
            _fill_stat(c_stat, stat)
            if fill(buffer, name.encode(self.encoding), c_stat, index + 1, FILL_DIR_PLUS):
                break
        self.told.note_listing(path)
        return 0

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        """Pass on renameat2's flags."""
        self.operations.rename(self._text(old), self._text(new), flags)
        self.told.rename(old, new)
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

    def _forget_attributes(self, path: bytes, handle: int) -> None:
        if not self.told.is_believed(path, self._stat_of(handle)):
            fuse = ctypes.c_void_p(self.library.fuse_get_context().contents.fuse)
            self.notifier.forget(partial(self.library.fuse_invalidate_path, fuse, path))


def _libfuse3_class(module: ModuleType, callers: Callers, timeout_seconds: float) -> Any:
    """Return mfusepy's FUSE class with our callbacks."""

    class Libfuse3(_Libfuse3Calls, module.FUSE):  # type: ignore[name-defined,misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.told = Told()
            self.notifier = Notifier(most_seconds=timeout_seconds + OUTLASTED_SECONDS)
            super().__init__(*arguments, **options)

        def destroy(self, private_data: Any) -> None:
            """End the thread that calls libfuse, which is about to go."""
            self.notifier.close()
            super().destroy(private_data)

    Libfuse3.callers = callers
    Libfuse3.c_stat = module.c_stat
    Libfuse3.library = module._libfuse
    return Libfuse3


def _libfuse2_class(module: ModuleType, callers: Callers) -> Any:
    """Return fusepy's FUSE class with our callbacks."""

    class Libfuse2(_TellingCalls, module.FUSE):  # type: ignore[name-defined,misc]
        def __init__(self, operations: Operations, *arguments: Any, **options: Any) -> None:
            self.told = Told()
            super().__init__(_Callable(operations), *arguments, **options)

        def rename(self, old: bytes, new: bytes) -> int:
            """Rename; the kernel keeps what it was told."""
            self.operations.rename(self._text(old), self._text(new))
            self.told.rename(old, new)
            return 0

        def readdir(self, _path: bytes, buffer: Any, fill: Any, offset: int, info: Any) -> int:
            """Give every entry with its type, number and a running offset."""
            entries, c_stat = self._entries(offset, info), module.c_stat()
            for index in range(offset, len(entries)):
                name, stat = entries[index]
                _fill_stat(c_stat, stat)
                if fill(buffer, name.encode(self.encoding), c_stat, index + 1):
                    break
            return 0

        def utimens(self, path: bytes, times: Any) -> int:
            """Set times."""
            return self._utimens(path, times)

        def _forget_attributes(self, path: bytes, handle: int) -> None:
            self.told.wait_unless(path, self._stat_of(handle))

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

    Libfuse2.callers = callers
    Libfuse2.c_stat = module.c_stat
    return Libfuse2


class _Callable:
    """Operations in the form fusepy wants: it calls the object with an operation's name."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def __call__(self, operation: str, *arguments: Any) -> Any:
        return getattr(self._operations, operation)(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)


def _fill_stat(target: Any, stat: Stat) -> None:
    """Write a Stat into a struct stat of zeros, or of another file."""
    attributes = stat.attributes
    target.st_mode = attributes.mode
    target.st_ino = stat.inode
    target.st_nlink = stat.links
    target.st_uid = attributes.uid
    target.st_gid = attributes.gid
    target.st_rdev = attributes.rdev
    target.st_size = stat.size_bytes
    target.st_blksize = BLOCK_BYTES
    target.st_blocks = -(-stat.size_bytes // 512)
    for timespec, time_ns in (
        (target.st_atimespec, attributes.atime_ns),
        (target.st_mtimespec, attributes.mtime_ns),
        (target.st_ctimespec, attributes.ctime_ns),
    ):
        timespec.tv_sec, timespec.tv_nsec = divmod(time_ns, 10**9)


def _memory(buffer: Any, size: int) -> memoryview:
    address = ctypes.cast(buffer, ctypes.c_void_p).value
    return memoryview((ctypes.c_char * size).from_address(address or 0)).cast("B")


def _give(value: bytes, buffer: Any, size: int) -> int:
    """Hand over an attribute's value by the rules of getxattr(2): asked with size 0, only its length."""
    if size == 0:
        return len(value)
    if len(value) > size:
        return -errno.ERANGE
    ctypes.memmove(buffer, value, len(value))
    return len(value)


def _time_ns(given: Any) -> int | None:
    if given.tv_nsec == UTIME_OMIT:
        return None
    if given.tv_nsec == UTIME_NOW:
        return time.time_ns()
    return int(given.tv_sec * 10**9 + given.tv_nsec)
