"""Random operations on a mount's filesystem and on a local directory, side by side.

What the kernel and libfuse do around a filesystem (looking names up, hiding open files that are
removed) is done by `Mounted`. Another client puts and deletes blobs in between. Run it longer with
``BLOBFS_MODEL_EXAMPLES=5000 pytest tests/model``.
"""

import errno
import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes import CALLER, ManualClock, MemoryStore, filesystem_of, machine
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from blobfs.errors import Failure, NotFound
from blobfs.filesystem.commits import WriteBack
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.volume import Stat
from blobfs.format.names import split_path
from blobfs.store import ALWAYS

EXAMPLES = int(os.environ.get("BLOBFS_MODEL_EXAMPLES", "0"))

BLOCK = 8
SLOTS = 4
LONG_SECONDS = 1e6  # longer than any test takes, by its own clock
GRACE_SECONDS = 1.0  # longer than a removed open file's blob stays, shorter than a temporary name
SECOND_NS = 10**9

PATHS = [
    *("/a", "/b", "/.a.Ab12Cd"),
    *("/a/a", "/a/b", "/a/.b.Ab12Cd", "/b/a", "/b/ü b"),
    *("/a/a/a", "/a/a/b", "/b/a/a", "/b/ü b/a"),
]
paths = st.sampled_from(PATHS)
slots = st.integers(0, SLOTS - 1)
access = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
extras = st.sets(st.sampled_from([os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND])).map(sum)
bodies = st.binary(min_size=1, max_size=40)


@dataclass(frozen=True)
class Facts:
    """What stat(2) tells, as far as both sides can agree on it."""

    kind: int
    permissions: int
    size_bytes: int
    mtime_ns: int

    def agrees_with(self, mounted: "Facts", began_ns: int) -> bool:
        """Tell whether the mount says the same; times since the test began are each side's own."""
        if (self.kind, self.permissions, self.size_bytes) != (
            mounted.kind,
            mounted.permissions,
            mounted.size_bytes,
        ):
            return False
        if self.kind == stat.S_IFDIR:
            return True
        if self.mtime_ns >= began_ns:
            return mounted.mtime_ns >= began_ns
        return mounted.mtime_ns == self.mtime_ns


def facts(mode: int, size_bytes: int, mtime_ns: int) -> Facts:
    kind = stat.S_IFMT(mode)
    sized = kind in (stat.S_IFREG, stat.S_IFLNK)
    return Facts(kind, stat.S_IMODE(mode), size_bytes if sized else 0, mtime_ns)


class Local:
    """The operations on a local directory, by system calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.descriptors: dict[int, int] = {}
        self._xattrs: dict[int, dict[str, bytes]] = {}  # by inode: not every local filesystem has them

    def real(self, path: str) -> str:
        return f"{self.root}{path}"

    def open(self, slot: int, path: str, flags: int) -> None:
        is_new = not os.path.lexists(self.real(path))
        self.descriptors[slot] = os.open(self.real(path), flags | os.O_NOFOLLOW, 0o644)
        if is_new:
            self._xattrs.pop(os.fstat(self.descriptors[slot]).st_ino, None)

    def close(self, slot: int) -> None:
        os.close(self.descriptors.pop(slot))

    def close_all(self) -> None:
        for slot in list(self.descriptors):
            self.close(slot)

    def read(self, slot: int, offset: int, length: int) -> bytes:
        return os.pread(self.descriptors[slot], length, offset)

    def write(self, slot: int, offset: int, data: bytes) -> None:
        os.pwrite(self.descriptors[slot], data, offset)

    def resize(self, slot: int, size_bytes: int) -> None:
        os.ftruncate(self.descriptors[slot], size_bytes)

    def sync(self, slot: int) -> None:
        os.fsync(self.descriptors[slot])

    def handle_facts(self, slot: int) -> Facts:
        found = os.fstat(self.descriptors[slot])
        return facts(found.st_mode, found.st_size, found.st_mtime_ns)

    def facts(self, path: str) -> Facts:
        found = os.lstat(self.real(path))
        return facts(found.st_mode, found.st_size, found.st_mtime_ns)

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(self.real(path)))

    def truncate(self, path: str, size_bytes: int) -> None:
        os.truncate(self.real(path), size_bytes)

    def unlink(self, path: str) -> None:
        os.unlink(self.real(path))

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.real(path), mode)
        self._xattrs.pop(os.lstat(self.real(path)).st_ino, None)

    def rmdir(self, path: str) -> None:
        os.rmdir(self.real(path))

    def rename(self, old: str, new: str) -> None:
        os.rename(self.real(old), self.real(new))

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self.real(path))

    def readlink(self, path: str) -> str:
        return os.readlink(self.real(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.real(path), mode)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        os.utime(self.real(path), ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def replace(self, path: str, body: bytes, mtime_ns: int) -> None:
        real = Path(self.real(path))
        real.unlink(missing_ok=True)
        made = [entry for entry in (real, *real.parents) if not entry.exists()]
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(body)
        real.chmod(0o644)
        os.utime(real, ns=(mtime_ns, mtime_ns))
        for entry in made:
            self._xattrs.pop(entry.stat().st_ino, None)

    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        self._xattrs.setdefault(os.stat(self.real(path)).st_ino, {})[name] = value

    def xattrs(self, path: str) -> dict[str, bytes]:
        return dict(self._xattrs.get(os.stat(self.real(path)).st_ino, {}))


@dataclass(eq=False)
class OpenFile:
    """A file as libfuse knows it: where it is now, and the handles it is open by."""

    path: str
    handles: list[int] = field(default_factory=list)


class Mounted:
    """The same operations on a filesystem of blobs, with the kernel's and libfuse's part in them."""

    def __init__(self, store: MemoryStore, write_back: WriteBack | None, *, is_alone: bool) -> None:
        self.store = store
        self._write_back = write_back
        self._is_alone = is_alone
        self.clock = ManualClock()
        self.slots: dict[int, tuple[OpenFile, int]] = {}
        self._files: dict[str, OpenFile] = {}  # open files by their path
        self._hidden_names = 0
        self._stack = ExitStack()
        self.mount()

    def mount(self) -> None:
        self._parts = self._stack.enter_context(machine(self.store, block_bytes=BLOCK, inline=True))
        self.fs: Filesystem = filesystem_of(
            self._parts,
            self.clock,
            write_back=self._write_back,
            ttl_seconds=LONG_SECONDS if self._is_alone else 1.0,
            close_to_open=not self._is_alone,
        )

    def unmount(self) -> None:
        self.fs.sync("/")
        assert list(self.fs.uncommitted()) == []
        self.stop()

    def stop(self) -> None:
        self._stack.close()

    def pass_time(self) -> None:
        self.clock.advance(5)
        self._parts.transfers.run_later()

    def is_open(self, path: str) -> bool:
        return path in self._files

    # Operations

    def open(self, slot: int, path: str, flags: int) -> None:
        found = self._lookup(path)
        if found is None and not flags & os.O_CREAT:
            raise refusal(errno.ENOENT)
        if found is None:
            opened = self.fs.handles.create(path, 0o644, flags, CALLER)
        else:
            self._check_may_open(found, flags)
            opened = self.fs.handles.open(path, flags)
        file = self._files.setdefault(path, OpenFile(path))
        file.handles.append(opened.handle)
        self.slots[slot] = (file, opened.handle)

    def close(self, slot: int) -> None:
        file, handle = self.slots.pop(slot)
        try:
            self.fs.handles.flush(handle)
        finally:
            self.fs.handles.release(handle)
            file.handles.remove(handle)
            if not file.handles:
                self._forget(file)

    def read(self, slot: int, offset: int, length: int) -> bytes:
        target = memoryview(bytearray(length))
        return bytes(target[: self.fs.handles.read_into(self.slots[slot][1], offset, target)])

    def write(self, slot: int, offset: int, data: bytes) -> None:
        self.fs.handles.write(self.slots[slot][1], offset, memoryview(data))

    def resize(self, slot: int, size_bytes: int) -> None:
        self.fs.handles.truncate(self.slots[slot][1], size_bytes)

    def sync(self, slot: int) -> None:
        self.fs.handles.fsync(self.slots[slot][1])

    def handle_facts(self, slot: int) -> Facts:
        return facts_of(self.fs.handles.stat(self.slots[slot][1]))

    def facts(self, path: str) -> Facts:
        return facts_of(self._existing(path))

    def list(self, path: str) -> list[str]:
        if path != "/" and not self._followed(path).attributes.is_directory:
            raise refusal(errno.ENOTDIR)
        listed = dict(self.fs.directories.entries(path))
        for entry, found in listed.items():
            assert facts_of(found) == facts_of(self.fs.stat(os.path.join(path, entry)))
        return sorted(listed)

    def truncate(self, path: str, size_bytes: int) -> None:
        if self._followed(path).attributes.is_directory:
            raise refusal(errno.EISDIR)
        self.fs.handles.truncate_path(path, size_bytes)

    def unlink(self, path: str) -> None:
        if self._existing(path).attributes.is_directory:
            raise refusal(errno.EISDIR)
        if self.is_open(path):
            self._hide(path)
        else:
            self.fs.unlink(path)

    def mkdir(self, path: str, mode: int) -> None:
        self._check_free(path)
        self.fs.mkdir(path, mode, CALLER)

    def rmdir(self, path: str) -> None:
        if not self._existing(path).attributes.is_directory:
            raise refusal(errno.ENOTDIR)
        self.fs.rmdir(path)

    def rename(self, old: str, new: str) -> None:
        self._check_parent(old)
        self._check_parent(new)
        found, target = self._existing(old), self._lookup(new)
        if old == new:
            return
        if old.startswith(new + "/"):
            raise refusal(errno.ENOTEMPTY)
        replaces_open = target is not None and self.is_open(new)
        if replaces_open and not found.attributes.is_directory:
            self._hide(new)
        self.fs.rename(old, new)
        self._move_open(old, new)

    def symlink(self, target: str, path: str) -> None:
        self._check_free(path)
        self.fs.symlink(target, path, CALLER)

    def readlink(self, path: str) -> str:
        if not self._existing(path).attributes.is_symlink:
            raise refusal(errno.EINVAL)
        return self.fs.readlink(path)

    def chmod(self, path: str, mode: int) -> None:
        self._followed(path)
        self.fs.chmod(path, mode)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        self._existing(path)
        self.fs.set_times(path, mtime_ns, mtime_ns)

    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        self._followed(path)
        self.fs.set_xattr(path, name, value)

    def xattrs(self, path: str) -> dict[str, bytes]:
        return dict(self._followed(path).attributes.xattrs)

    # The kernel's part

    def _lookup(self, path: str) -> Stat | None:
        """Return what a path leads to, None if only its last component is missing."""
        self._parts.transfers.run_later(GRACE_SECONDS)
        self._check_parent(path)
        try:
            return self.fs.stat(path)
        except NotFound:
            return None

    def _check_parent(self, path: str) -> None:
        parent = split_path(path)[0]
        if parent != "/" and not self._followed(parent).attributes.is_directory:
            raise refusal(errno.ENOTDIR)

    def _existing(self, path: str) -> Stat:
        found = self._lookup(path)
        if found is None:
            raise refusal(errno.ENOENT)
        return found

    def _followed(self, path: str) -> Stat:
        """Return what a path leads to; the links here lead nowhere."""
        found = self._existing(path)
        if found.attributes.is_symlink:
            raise refusal(errno.ENOENT)
        return found

    def _check_free(self, path: str) -> None:
        if self._lookup(path) is not None:
            raise refusal(errno.EEXIST)

    @staticmethod
    def _check_may_open(found: Stat, flags: int) -> None:
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise refusal(errno.EEXIST)
        if found.attributes.is_symlink:
            raise refusal(errno.ELOOP)
        if found.attributes.is_directory:
            raise refusal(errno.EISDIR)

    # libfuse's part

    def _hide(self, path: str) -> None:
        file = self._files.pop(path)
        self._hidden_names += 1
        hidden = os.path.join(split_path(path)[0], f".fuse_hidden{self._hidden_names:016x}")
        self.fs.rename(path, hidden)
        file.path = hidden
        self._files[hidden] = file

    def _forget(self, file: OpenFile) -> None:
        del self._files[file.path]
        if ".fuse_hidden" in file.path:
            self.fs.unlink(file.path)

    def _move_open(self, old: str, new: str) -> None:
        moved = [file for file in self._files.values() if f"{file.path}/".startswith(f"{old}/")]
        for file in moved:
            del self._files[file.path]
        for file in moved:
            file.path = new + file.path[len(old) :]
            self._files[file.path] = file


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def facts_of(found: Stat) -> Facts:
    return facts(found.attributes.mode, found.size_bytes, found.attributes.mtime_ns)


def outcome(action: Callable[[], object]) -> object:
    """Return what an operation returned, or the name of its error."""
    try:
        return action()
    except (Failure, OSError) as error:
        return errno.errorcode[error.errno or 0]


class MountAndDirectory(RuleBasedStateMachine):
    """Both sides, and what happens to them."""

    write_back: WriteBack | None = None
    is_alone = False  # without other clients, and close-to-open

    def __init__(self) -> None:
        super().__init__()
        self.began_ns = time.time_ns() - SECOND_NS  # the kernel's clock for files lags behind
        self.folder = tempfile.TemporaryDirectory()
        self.local = Local(Path(self.folder.name))
        self.store = MemoryStore()
        self.mounted = Mounted(self.store, self.write_back, is_alone=self.is_alone)
        self.opened_for: dict[int, int] = {}  # the access mode by slot
        self.differs = False  # while an operation is compared, and after one that failed

    def teardown(self) -> None:
        try:
            if not self.differs:
                self.close_all()
                self.mounted.unmount()
                self.mounted.mount()
                self.compare_trees()
        finally:
            self.mounted.stop()
            self.local.close_all()
            self.folder.cleanup()

    def close_all(self) -> None:
        for slot in list(self.local.descriptors):
            self.close(slot)

    def both(self, operation: str, *arguments: Any) -> Any:
        """Do the same on both sides; return the result, or the error's name, after comparing it."""
        self.differs = True
        expected = outcome(lambda: getattr(self.local, operation)(*arguments))
        found = outcome(lambda: getattr(self.mounted, operation)(*arguments))
        if isinstance(expected, Facts) and isinstance(found, Facts):
            assert expected.agrees_with(found, self.began_ns), (expected, found)
        else:
            assert found == expected
        self.differs = False
        return expected

    # Open files

    @rule(slot=slots, path=paths, access=access, extras=extras)
    def open(self, slot: int, path: str, access: int, extras: int) -> None:
        if access == os.O_RDONLY:
            extras &= ~os.O_TRUNC
        if Path(self.local.real(path)).is_dir() and not access | extras & os.O_CREAT:
            return
        self.close(slot)
        self.opened_for[slot] = access
        self.both("open", slot, path, access | extras)

    @rule(slot=slots)
    def close(self, slot: int) -> None:
        if slot in self.local.descriptors:
            self.both("close", slot)

    @rule(slot=slots, offset=st.integers(0, 90), length=st.integers(1, 60))
    def read(self, slot: int, offset: int, length: int) -> None:
        if slot in self.local.descriptors and self.is_for(slot, os.O_RDONLY):
            self.both("read", slot, offset, length)

    @rule(slot=slots, offset=st.integers(0, 70), data=bodies)
    def write(self, slot: int, offset: int, data: bytes) -> None:
        if slot in self.local.descriptors:
            self.both("write", slot, offset, data)

    @rule(slot=slots, size_bytes=st.integers(0, 90))
    def resize(self, slot: int, size_bytes: int) -> None:
        if slot in self.local.descriptors and self.is_for(slot, os.O_WRONLY):
            self.both("resize", slot, size_bytes)

    @rule(slot=slots)
    def sync(self, slot: int) -> None:
        if slot in self.local.descriptors:
            self.both("sync", slot)

    @rule(slot=slots)
    def handle_facts(self, slot: int) -> None:
        if slot in self.local.descriptors:
            self.both("handle_facts", slot)

    @rule(path=paths, data=bodies)
    def write_file(self, path: str, data: bytes) -> None:
        """What cp does."""
        self.open(0, path, os.O_WRONLY, os.O_CREAT | os.O_TRUNC)
        self.write(0, 0, data)
        self.close(0)

    # Names

    @rule(path=paths)
    def facts(self, path: str) -> None:
        self.both("facts", path)

    @rule(path=st.sampled_from(["/", *PATHS]))
    def list(self, path: str) -> None:
        self.both("list", path)

    @rule(path=paths, size_bytes=st.integers(0, 90))
    def truncate(self, path: str, size_bytes: int) -> None:
        # To the same size it sets the time on one side only, and POSIX allows both.
        if outcome(lambda: self.local.facts(path).size_bytes) != size_bytes:
            self.both("truncate", path, size_bytes)

    @rule(path=paths)
    def unlink(self, path: str) -> None:
        self.both("unlink", path)

    @rule(path=paths, mode=st.sampled_from([0o755, 0o700]))
    def mkdir(self, path: str, mode: int) -> None:
        self.both("mkdir", path, mode)

    @rule(path=paths)
    def rmdir(self, path: str) -> None:
        self.both("rmdir", path)

    @rule(old=paths, new=paths)
    def rename(self, old: str, new: str) -> None:
        self.both("rename", old, new)

    @rule(path=paths, leads_to=st.sampled_from(["nowhere", "no/wherë"]))
    def symlink(self, path: str, leads_to: str) -> None:
        self.both("symlink", leads_to, path)

    @rule(path=paths)
    def readlink(self, path: str) -> None:
        self.both("readlink", path)

    @rule(path=paths, mode=st.sampled_from([0o600, 0o755, 0o4711, 0o1777]))
    def chmod(self, path: str, mode: int) -> None:
        self.both("chmod", path, mode)

    @rule(path=paths, mtime_ns=st.sampled_from([0, 1, 1_234_567_890_123_456_789]))
    def set_mtime(self, path: str, mtime_ns: int) -> None:
        self.both("set_mtime", path, mtime_ns)

    @rule(path=paths, name=st.sampled_from(["k", "Key.é"]), value=st.binary(max_size=5))
    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        self.both("set_xattr", path, name, value)

    @rule(path=paths)
    def xattrs(self, path: str) -> None:
        self.both("xattrs", path)

    # What goes on around them

    @rule()
    def time_passes(self) -> None:
        self.mounted.pass_time()

    @rule(times=st.integers(1, 2))
    def memory_is_short(self, times: int) -> None:
        for _ in range(times):
            self.mounted.fs.volume.files.release_memory(0)

    @precondition(lambda self: not self.local.descriptors)
    @rule()
    def remount(self) -> None:
        self.mounted.unmount()
        self.mounted.mount()
        self.compare_trees()

    @precondition(lambda self: not self.is_alone)
    @rule(path=paths, body=bodies)
    def another_client_puts(self, path: str, body: bytes) -> None:
        """A blob, with what virtual directories it needs; names are looked up anew after that."""
        real = Path(self.local.real(path))
        if real.is_dir() or real.is_symlink() or not self.is_below_directories(path):
            return
        if self.mounted.is_open(path):
            return
        self.mounted.pass_time()
        is_new = not real.exists()
        info = self.store.put(path[1:], body)
        self.local.replace(path, body, info.modified_ns)
        if is_new:
            self.mounted.pass_time()
        else:
            self.open(0, path, os.O_RDONLY, 0)
            self.read(0, 0, 50)
            self.close(0)

    @precondition(lambda self: not self.is_alone)
    @rule(path=paths)
    def another_client_deletes(self, path: str) -> None:
        """A file of a directory that stays without it."""
        real = Path(self.local.real(path))
        parent = split_path(path)[0]
        if not real.is_file() or real.is_symlink() or self.mounted.is_open(path):
            return
        self.mounted.pass_time()
        if parent != "/" and parent[1:] not in self.store.bodies:
            return
        self.store.delete(path[1:], ALWAYS)
        real.unlink()
        self.mounted.pass_time()

    # Looking

    def is_for(self, slot: int, access: int) -> bool:
        """Tell whether a descriptor is open for reading or writing: the kernel refuses otherwise."""
        return self.opened_for[slot] in (access, os.O_RDWR)

    def is_below_directories(self, path: str) -> bool:
        parents = list(Path(self.local.real(path)).parents)
        above = parents[: parents.index(self.local.root)]
        return not any(parent.is_symlink() or parent.is_file() for parent in above)

    def compare_trees(self, path: str = "/") -> None:
        for entry in self.both("list", path):
            child = os.path.join(path, entry)
            expected = self.both("facts", child)
            if expected.kind == stat.S_IFDIR:
                self.compare_trees(child)
            elif expected.kind == stat.S_IFLNK:
                self.both("readlink", child)
            else:
                self.both("xattrs", child)
                self.open(0, child, os.O_RDONLY, 0)
                self.read(0, 0, 200)
                self.close(0)


class MountThatDeletesBehind(MountAndDirectory):
    """The same, with up to three removed files of which the blobs are still there."""

    write_back = WriteBack(files=3, buffered_bytes=0)


class MountThatIsAlone(MountAndDirectory):
    """The same, believing what it knows for as long as it is mounted."""

    is_alone = True


class MountThatIsAloneAndDeletesBehind(MountThatDeletesBehind):
    """Both."""

    is_alone = True


def thoroughly(examples: int) -> settings:
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=60,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


TestMountAndDirectory = MountAndDirectory.TestCase
TestMountAndDirectory.settings = thoroughly(500)
TestMountThatDeletesBehind = MountThatDeletesBehind.TestCase
TestMountThatDeletesBehind.settings = thoroughly(100)
TestMountThatIsAlone = MountThatIsAlone.TestCase
TestMountThatIsAlone.settings = thoroughly(200)
TestMountThatIsAloneAndDeletesBehind = MountThatIsAloneAndDeletesBehind.TestCase
TestMountThatIsAloneAndDeletesBehind.settings = thoroughly(200)
