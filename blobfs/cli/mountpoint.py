"""Where a container may be mounted, and that nobody else is mounting there."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from blobfs.cli.control import has_died, read_status
from blobfs.cli.messages import say
from blobfs.errors import AccessDenied, Busy, CannotRun, NotADirectory, NotFound

FILESYSTEM = "fuse.blobfs"  # what the kernel calls our mounts
MOUNTINFO = Path("/proc/self/mountinfo")

_OF_THE_SYSTEM = (Path("/proc"), Path("/sys"), Path("/dev"))
_ESCAPED = re.compile(rb"\\([0-7]{3})")  # proc(5): white space and backslashes in paths


def refuse_system_directory(mountpoint: Path) -> None:
    """Raise UsageError for a directory without which the machine does not work."""
    if mountpoint == Path("/") or any(mountpoint.is_relative_to(path) for path in _OF_THE_SYSTEM):
        raise click.UsageError(
            f"{mountpoint} belongs to the system. Mount on an empty directory of your own."
        )


@contextmanager
def claimed(mountpoint: Path) -> Iterator[int]:
    """Keep other mount commands away from this directory; give the descriptor that does so.

    The lock is on the directory below the mount: it needs no rights, no place for lock files,
    is local even on NFS (whose directories have no lock operation of their own), and is gone
    with the last process that has the descriptor. Raises a Failure unless a container can be
    mounted here.
    """
    descriptor = _open_directory(mountpoint)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"{mountpoint} is already mounted, or about to be, by another command.") from error
        # Only now: whoever had the lock before may have mounted.
        _refuse_mounted(mountpoint)
        yield descriptor
    finally:
        os.close(descriptor)


def release(descriptor: int) -> None:
    """End a claim early, in all processes that share the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def warn_of_hidden(mountpoint: Path) -> None:
    """Say on stderr what the mount will hide. Raises OSError if the directory cannot be listed."""
    if any(mountpoint.iterdir()):
        say(f"blobfs: {mountpoint} is not empty; the mount hides what is in it.")
    with suppress(FileNotFoundError):  # a working directory that was removed
        if Path.cwd().is_relative_to(mountpoint):
            say(f"blobfs: the mount hides your working directory; enter it: cd {mountpoint}")


def filesystem_at(mountpoint: Path) -> str | None:
    """Return the kernel's name for what is mounted exactly here, on top; None if nothing is.

    Asks the kernel, not the filesystem, which may be dead.
    """
    return dict(_mounts()).get(mountpoint)


def our_mountpoints() -> list[Path]:
    """Return where the kernel has a mount of ours on top, dead ones too."""
    return [path for path, kind in dict(_mounts()).items() if kind == FILESYSTEM]


def real_path(path: Path) -> Path:
    """Return the path without symbolic links in it. A mount that it ends in is not asked: it may be stuck."""
    inner = Path(os.path.realpath(path.parent), path.name)
    return inner if filesystem_at(inner) == FILESYSTEM else Path(os.path.realpath(path))


def servers_of(mountpoint: Path) -> Iterator[int]:
    """Yield which process serves the mount, without asking it; nothing if it is another user's.

    It is the one that has FUSE's device open, and the directory beneath the mount.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            held = {os.readlink(link) for link in (process / "fd").iterdir()}
            if {"/dev/fuse", str(mountpoint)} <= held:
                yield int(process.name)


def our_mount_of(path: Path) -> Path | None:
    """Return the mountpoint of the mount that a path is in, if that is one of ours."""
    mounts = dict(_mounts())
    real = real_path(path)
    mountpoint = next((each for each in (real, *real.parents) if each in mounts), None)
    return mountpoint if mountpoint is not None and mounts[mountpoint] == FILESYSTEM else None


def answering_mount_of(path: Path) -> Path | None:
    """Like `our_mount_of`. Raises CannotRun if its process is dead, AccessDenied if another user's."""
    mountpoint = our_mount_of(path)
    if mountpoint is None:
        return None
    try:
        read_status(mountpoint)
    except PermissionError as error:
        raise AccessDenied(f"{mountpoint} is another user's mount. Run this as that user.") from error
    except OSError as error:
        if not has_died(error):
            raise
        cure = f"Run blobfs umount {mountpoint}, then mount again."
        raise CannotRun(f"{mountpoint} is a mount whose process has died. {cure}") from error
    return mountpoint


def _mounts() -> Iterator[tuple[Path, str]]:
    """Yield each mountpoint with the kind of what is mounted there, later mounts after earlier ones."""
    for line in MOUNTINFO.read_bytes().splitlines():
        mount, _, source = line.partition(b" - ")
        path = _ESCAPED.sub(lambda code: bytes((int(code[1], 8),)), mount.split()[4])
        yield Path(os.fsdecode(path)), source.split()[0].decode()


def _open_directory(mountpoint: Path) -> int:
    try:
        return os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"{mountpoint} does not exist. Create it with mkdir.") from error
    except NotADirectoryError as error:
        raise NotADirectory(f"{mountpoint} is not a directory.") from error
    except PermissionError as error:
        if filesystem_at(mountpoint) == FILESYSTEM:
            raise Busy(f"{mountpoint} is already mounted, by another user.") from error
        raise AccessDenied(f"{mountpoint} is not yours to read. Mount on a directory of your own.") from error
    except OSError as error:
        if has_died(error):
            cure = f"Run blobfs umount {mountpoint} first."
            raise Busy(f"{mountpoint} is a mount whose process has died. {cure}") from error
        raise


def _refuse_mounted(mountpoint: Path) -> None:
    """Raise Busy, naming the mount, if there is one of ours."""
    status = read_status(mountpoint) if filesystem_at(mountpoint) == FILESYSTEM else None
    if status is not None:
        mounted = f"container {status.container} of account {status.account}"
        raise Busy(f"{mountpoint} is already mounted: {mounted}, process {status.pid}.")
