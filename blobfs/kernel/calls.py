"""The kernel's requests as libfuse calls them: C's arguments in, an errno out. The same for both bindings.

The stock methods of mfusepy and fusepy copy every read and write twice and drop what utimensat carries;
those methods are our own here. The boundary is `_wrapper`: nothing but an errno gets past it into C.
"""

import ctypes
import errno
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from blobfs.callers import Callers
from blobfs.errors import Abandoned, Failure, NoAttribute, NotFound, UnsupportedAttribute, errno_of
from blobfs.filesystem.handles import Opened
from blobfs.filesystem.volume import Stat
from blobfs.kernel.kernel_attributes import KernelAttributes
from blobfs.kernel.operations import Operations
from blobfs.kernel.threads import keep_thread

logger = logging.getLogger(__name__)

UTIME_NOW = (1 << 30) - 1  # <sys/stat.h>
UTIME_OMIT = (1 << 30) - 2
PYBUF_WRITE = 0x200  # <pybuffer.h>
# They change nothing.
MAY_BE_ABANDONED = frozenset(("getattr", "getxattr", "open", "opendir", "read", "readdir", "readlink"))
MAY_BE_ABANDONED |= {f"{name}_fuse_3" for name in MAY_BE_ABANDONED}
# Answers that programs ask for in passing; they say nothing of trouble.
EVERYDAY = (Abandoned, NotFound, NoAttribute, UnsupportedAttribute)

# Without it there would be an array type of ctypes for each size, made anew, which takes ten times as long.
_view_of_memory = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)


class Calls(ABC):
    """Callbacks written once for both bindings: arguments as C gives them, errnos as it wants them."""

    operations: Operations
    callers: Callers
    encoding: str
    keeps_threads: bool
    kernel_attributes: KernelAttributes
    c_stat: Any
    fill_stat: Callable[[Any, Stat], None]  # writes over all of a c_stat

    def _wrapper(self, function: Callable[..., int | None], *arguments: Any) -> int:
        """Run one callback. An exception that got past here would become garbage in the application."""
        if self.keeps_threads:
            keep_thread()
        try:
            if function.__name__ not in MAY_BE_ABANDONED:
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
        self.fill_stat(buffer.contents, stat)
        name = path if handle is None else self._name(handle)
        if name is not None:
            self.kernel_attributes.note(name, stat)
        return 0

    def read(self, _path: bytes | None, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Copy the bytes straight into the kernel's buffer."""
        return self.operations.read_into(info.contents.fh, offset, _memory(buffer, size))

    def write(self, _path: bytes | None, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Copy the bytes straight out of the kernel's buffer. The kernel then knows the size by itself."""
        handle, is_page = info.contents.fh, bool(info.contents.writepage)
        self._drop_told(handle)
        return self.operations.write_from(handle, offset, _memory(buffer, size), is_page=is_page)

    def open(self, path: bytes, info: Any) -> int:
        """Open a file and say what may happen to the kernel's pages of it."""
        name = self._text(path)
        opened = self.operations.open(name, info.contents.flags)
        self._answer(info, opened)
        # Of a file that was just truncated, the kernel knows the size, and drops its pages itself.
        is_in_doubt = opened.is_newer and not info.contents.flags & os.O_TRUNC
        if is_in_doubt and not self._forget_attributes(path, opened.handle):
            logger.info("%s: the kernel takes long to forget it; this open goes without its pages", name)
            info.contents.direct_io = True  # for which the kernel asks us how far the file goes
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

    def ftruncate(self, _path: bytes | None, size_bytes: int, info: Any) -> int:
        """Truncate by handle."""
        self.operations.ftruncate(info.contents.fh, size_bytes)
        return 0

    def fallocate(self, _path: bytes | None, mode: int, offset: int, size_bytes: int, info: Any) -> int:
        """Make room, which may move the end of the file."""
        self._drop_told(info.contents.fh)
        self.operations.fallocate(None, mode, offset, size_bytes, info.contents.fh)
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

    @abstractmethod
    def _forget_attributes(self, path: bytes, handle: int) -> bool:
        """Make the kernel forget attributes older than a new handle's; tell whether it has none of them."""

    def _drop_told(self, handle: int) -> None:
        """Record that the kernel does not rely on what it was told of an open file."""
        name = self._name(handle)
        if name is not None:
            self.kernel_attributes.drop(name)

    def _name(self, handle: int) -> bytes | None:
        """Return the path of an open file as C has it; None if the file has lost its name."""
        path = self.operations.path(handle)
        return None if path is None else path.encode(self.encoding, "surrogateescape")

    def _text(self, path: bytes) -> str:
        return path.decode(self.encoding, "surrogateescape")


def _memory(buffer: Any, size: int) -> memoryview:
    """Return the kernel's buffer, valid until the callback ends."""
    view: memoryview = _view_of_memory(buffer, size, PYBUF_WRITE)
    return view


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
