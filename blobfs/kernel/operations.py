"""The FUSE operations: libfuse's numbers and flags on one side, `Filesystem` on the other.

It decides nothing. Extended attributes below ``user.blobfs.`` are the mount's own: read-only facts about a
blob, the mount's status on its root, and two requests: to commit what is below, and to bring bytes into the
cache.
"""

import json
import re
import stat as stat_bits
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blobfs.errors import (
    AlreadyExists,
    InvalidArgument,
    NoAttribute,
    NotPermitted,
    Unsupported,
    UnsupportedAttribute,
)
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.handles import Opened
from blobfs.filesystem.volume import Caller, Stat

STATFS_BLOCK_BYTES = 4096
STATFS_BYTES = 1 << 50  # the service has no size to report; 1 PiB lets every program run
STATFS_FILES = 1 << 40
USER = "user."
OWN = "user.blobfs."
XATTR_CREATE, XATTR_REPLACE = 1, 2  # <sys/xattr.h>
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # fallocate(2)
RENAME_NOREPLACE = 1  # renameat2(2)

_WARM = re.compile(r"warm\.(\d{1,18})-(\d{1,18})")  # the first byte, and the one behind the last


class Operations:
    """What a binding calls, one method an operation; failures are `blobfs.errors.Failure`."""

    use_ns = True  # both bindings: times as nanoseconds
    flag_utime_omit_ok = 1  # libfuse 2: utimens may get UTIME_NOW and UTIME_OMIT
    flag_nullpath_ok = 1  # libfuse 2: an open file may have lost its path, and its directory
    flag_nopath = 1  # libfuse 2: so a call with a handle does not wait for an open or rename of the path

    def __init__(
        self,
        filesystem: Filesystem,
        status: Callable[[], Mapping[str, Any]],
        caller: Callable[[], tuple[int, int, int]],
        on_ready: Callable[[], None],
    ) -> None:
        self._filesystem = filesystem
        self._status = status
        self._caller_ids = caller
        self._on_ready = on_ready

    def init(self, _path: str) -> None:
        """Start the threads: the process has forked for the last time."""
        self._on_ready()

    def destroy(self, _path: str) -> None:
        """Nothing to do: what must be done is done before the mount's process ends."""

    def getattr(self, path: str | None, handle: int | None = None) -> Stat:
        """stat(2), or the same of an open file, which needs no path."""
        if handle is None:
            return self._filesystem.stat(path or "/", self._thread)
        return self._filesystem.stat_open(handle)

    def path(self, handle: int) -> str | None:
        """Return the path of an open file, None if it has lost its name."""
        return self._filesystem.handles.path(handle)

    def directory_path(self, handle: int) -> str:
        """Return the path by which a directory was opened."""
        return self._filesystem.directories.path(handle)

    def statfs(self, _path: str) -> dict[str, int]:
        """statvfs(3): a container has no size, so it is large and empty."""
        blocks = STATFS_BYTES // STATFS_BLOCK_BYTES
        return {
            "f_bsize": STATFS_BLOCK_BYTES,
            "f_frsize": STATFS_BLOCK_BYTES,
            "f_blocks": blocks,
            "f_bfree": blocks,
            "f_bavail": blocks,
            "f_files": STATFS_FILES,
            "f_ffree": STATFS_FILES,
            "f_favail": STATFS_FILES,
            "f_namemax": 255,
        }

    def opendir(self, path: str) -> int:
        """opendir(3)."""
        return self._filesystem.directories.open(path)

    def readdir(self, _path: str, handle: int) -> Sequence[tuple[str, Stat]]:
        """Return all entries, finished: an error after the first one would look like the end."""
        return self._filesystem.directories.read(handle, restart=True)

    def readdir_again(self, handle: int) -> Sequence[tuple[str, Stat]]:
        """Return the entries of the last `readdir` of this handle, in the same order."""
        return self._filesystem.directories.read(handle, restart=False)

    def releasedir(self, _path: str, handle: int) -> None:
        """closedir(3)."""
        self._filesystem.directories.close(handle)

    def fsyncdir(self, _path: str, _datasync: int, handle: int) -> None:
        """fsync(2) of a directory."""
        self._filesystem.sync_directory(handle)

    def mkdir(self, path: str, mode: int) -> None:
        """mkdir(2)."""
        self._filesystem.mkdir(path, stat_bits.S_IMODE(mode), self._caller())

    def mknod(self, path: str, mode: int, device: int) -> None:
        """mknod(2)."""
        self._filesystem.mknod(path, mode, device, self._caller())

    def symlink(self, path: str, target: str) -> None:
        """symlink(2), in the order of arguments that the bindings have."""
        self._filesystem.symlink(target, path, self._caller())

    def readlink(self, path: str) -> str:
        """readlink(2)."""
        return self._filesystem.readlink(path)

    def link(self, path: str, _source: str) -> None:
        """link(2): a blob has one name."""
        raise NotPermitted(f"{path}: hard links do not exist here")

    def unlink(self, path: str) -> None:
        """unlink(2)."""
        self._filesystem.unlink(path)

    def rmdir(self, path: str) -> None:
        """rmdir(2)."""
        self._filesystem.rmdir(path)

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        """renameat2(2), without RENAME_EXCHANGE."""
        if flags & ~RENAME_NOREPLACE:
            raise InvalidArgument(f"{old}: a rename that exchanges two names is not possible")
        self._filesystem.rename(old, new, replace_target=not flags & RENAME_NOREPLACE)

    def chmod(self, path: str, mode: int) -> None:
        """chmod(2)."""
        self._filesystem.chmod(path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """chown(2); -1 leaves an id."""
        self._filesystem.chown(path, uid, gid)

    def utimens(self, path: str, times: tuple[int | None, int | None]) -> None:
        """utimensat(2); None leaves a time."""
        self._filesystem.set_times(path, *times)

    def truncate(self, path: str, size_bytes: int) -> None:
        """truncate(2)."""
        self._filesystem.handles.truncate_path(path, size_bytes)

    def ftruncate(self, handle: int, size_bytes: int) -> None:
        """ftruncate(2)."""
        self._filesystem.handles.truncate(handle, size_bytes)

    def fallocate(self, _path: str | None, mode: int, offset: int, length: int, handle: int) -> None:
        """fallocate(2): plain, keeping the size, punching holes and zeroing."""
        if mode not in (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE):
            raise Unsupported(f"fallocate mode {mode:#x} is not possible")
        zero = bool(mode & (PUNCH_HOLE | ZERO_RANGE))
        self._filesystem.handles.allocate(handle, offset, length, keep_size=bool(mode & KEEP_SIZE), zero=zero)

    def create(self, path: str, mode: int, flags: int) -> Opened:
        """open(2) with O_CREAT, of a name that the kernel found absent."""
        return self._filesystem.handles.create(path, mode, flags, self._caller())

    def open(self, path: str, flags: int) -> Opened:
        """open(2)."""
        return self._filesystem.handles.open(path, flags)

    def read_into(self, handle: int, offset: int, target: memoryview) -> int:
        """pread(2) into the kernel's own buffer."""
        return self._filesystem.handles.read_into(handle, offset, target)

    def write_from(self, handle: int, offset: int, data: memoryview, *, is_page: bool = False) -> int:
        """pwrite(2) from the kernel's own buffer, or `is_page`: of a page of its own of a memory map."""
        handles = self._filesystem.handles
        (handles.write_page if is_page else handles.write)(handle, offset, data)
        return len(data)

    def read(self, _path: str, size: int, offset: int, handle: int) -> bytes:
        """pread(2). Never called: the binding only looks whether it exists, and calls `read_into`."""
        target = memoryview(bytearray(size))
        return bytes(target[: self.read_into(handle, offset, target)])

    def write(self, _path: str, data: bytes, offset: int, handle: int) -> int:
        """pwrite(2). Never called: the binding only looks whether it exists, and calls `write_from`."""
        return self.write_from(handle, offset, memoryview(data))

    def flush(self, _path: str, handle: int) -> None:
        """close(2) of one descriptor: the last moment at which an error reaches the program."""
        self._filesystem.handles.flush(handle)

    def fsync(self, _path: str, _datasync: int, handle: int) -> None:
        """fsync(2)."""
        self._filesystem.handles.fsync(handle)

    def release(self, _path: str, handle: int) -> None:
        """The last descriptor is gone."""
        self._filesystem.handles.release(handle)

    # Extended attributes…

    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        """getxattr(2)."""
        if name.startswith(OWN):
            return self._own_xattr(path, name[len(OWN) :])
        value = self._filesystem.attributes(path).xattrs.get(_user_name(name))
        if value is None:
            raise NoAttribute(f"{path}: no attribute {name}")
        return value

    def listxattr(self, path: str) -> list[str]:
        """listxattr(2); the ``user.blobfs.`` ones are not listed, so that copies do not try to set them."""
        return [USER + name for name in self._filesystem.attributes(path).xattrs]

    def setxattr(self, path: str, name: str, value: bytes, flags: int, _position: int = 0) -> None:
        """setxattr(2)."""
        if name.startswith(OWN):
            raise NotPermitted(f"{path}: {name} is read-only")
        key, xattrs = _user_name(name), self._filesystem.attributes(path).xattrs
        if flags & XATTR_CREATE and key in xattrs:
            raise AlreadyExists(f"{path}: attribute {name} exists")
        if flags & XATTR_REPLACE and key not in xattrs:
            raise NoAttribute(f"{path}: no attribute {name}")
        self._filesystem.set_xattr(path, key, value)

    def removexattr(self, path: str, name: str) -> None:
        """removexattr(2)."""
        if name.startswith(OWN):
            raise NotPermitted(f"{path}: {name} is read-only")
        key = _user_name(name)
        if key not in self._filesystem.attributes(path).xattrs:
            raise NoAttribute(f"{path}: no attribute {name}")
        self._filesystem.set_xattr(path, key, None)

    def _own_xattr(self, path: str, name: str) -> bytes:
        if name == "status" and path == "/":
            return json.dumps(self._status()).encode()
        if name.startswith("status.") and path == "/":
            return self._fact(name.removeprefix("status."))
        if name == "hidden" and self._filesystem.attributes(path).is_directory:
            return json.dumps(self._filesystem.hidden(path)).encode()
        if name == "receipt":
            return json.dumps(self._filesystem.receipt(path)).encode()
        if name == "cached":
            return str(self._filesystem.cached_bytes(path)).encode()
        # Actions are asked for like facts: a read-only mount lets no program set an attribute, and while one
        # is being set on a directory, the kernel looks up no names in it.
        if name == "sync":
            self._filesystem.sync(path)
            return b"done"
        if found := _WARM.fullmatch(name):
            self._filesystem.warm(path, int(found[1]), int(found[2]))
            return b"done"
        blob = self._filesystem.blob(path)
        facts: dict[str, str] = {}
        if blob is not None:
            facts = {
                "etag": blob.etag,
                "md5": blob.content_md5.hex() if blob.content_md5 else "",
                "tier": blob.tier,
                "content_type": blob.headers.content_type,
                "name": urllib.parse.quote(blob.name),
            }
        if not facts.get(name):
            raise NoAttribute(f"{path}: no attribute {OWN}{name}")
        return facts[name].encode()

    def _fact(self, name: str) -> bytes:
        """Return one fact of the status as plain text, for scripts; ``requests.LIST`` is one of a group's."""
        fact: Any = self._status()
        for part in name.split("."):
            fact = fact.get(part) if isinstance(fact, Mapping) else None
        if fact is None:
            raise NoAttribute(f"the status has no {name} now")
        return (fact if isinstance(fact, str) else json.dumps(fact)).encode()

    def _caller(self) -> Caller:
        return Caller(*self._caller_ids()[:2])

    def _thread(self) -> int:
        return self._caller_ids()[2]


def _user_name(name: str) -> str:
    if not name.startswith(USER):
        raise UnsupportedAttribute(f"{name}: only user.* attributes can be kept")
    return name[len(USER) :]
