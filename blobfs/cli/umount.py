"""`blobfs umount`: commit, unmount, and wait until the serving process is gone."""

import glob
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import NoReturn

import click

from blobfs.cli.control import (
    ANSWER_SECONDS,
    MountStatus,
    cause_of,
    commit_all_below,
    has_died,
    named_uncommitted,
    read_facts_soon,
    read_status,
)
from blobfs.cli.messages import announce, say
from blobfs.cli.mountpoint import FILESYSTEM, filesystem_at, real_path, servers_of
from blobfs.cli.values import absolute_path
from blobfs.errors import AccessDenied, Busy, Incomplete, NotFound

BUSY_ATTEMPTS = 10
BUSY_WAIT_SECONDS = 0.1


@click.command(short_help="Commit everything, then unmount.")
@click.argument("mountpoint", type=absolute_path)
@click.option("--force", is_flag=True, help="Unmount whatever is not committed; those files are given up.")
def umount(mountpoint: Path, *, force: bool) -> None:
    """Commit every file of the mount on MOUNTPOINT, then unmount it.

    Exits with 0 only when the service has everything; otherwise names the files that it
    does not have, and leaves the mount in place.
    """
    mountpoint = real_path(mountpoint)
    _require_mount(mountpoint)
    if force and _is_stuck(mountpoint):
        _take_away(mountpoint)
    with _said_if_slow(mountpoint):
        _commit_and_unmount(mountpoint, force=force)


def _commit_and_unmount(mountpoint: Path, *, force: bool) -> None:
    status = _status(mountpoint)
    left = _commit(mountpoint)
    if left and not force:
        cure = (
            "When the cause is gone, run the same command again; "
            f"blobfs umount --force {mountpoint} gives these files up."
        )
        raise Incomplete(f"{mountpoint} stays mounted. Not committed:\n{left}\n{cure}")
    process = _process(mountpoint, status.pid)
    if left:
        say(f"blobfs: {mountpoint}: giving up what is not committed:\n{left}")
    unmount(mountpoint, lazily=force, server=status.pid)
    if not force:  # otherwise it lives as long as a program still has a file open
        select.select([process], [], [])
    if left:
        raise Incomplete(f"{mountpoint}: unmounted, without the files named above.")
    announce(f"{mountpoint}: everything is committed; unmounted.")


@contextmanager
def _said_if_slow(mountpoint: Path) -> Iterator[None]:
    """Say on stderr what is waited for, once that has taken a while."""

    def tell() -> None:
        cure = f"If that is stuck: blobfs umount --force {mountpoint}"
        say(f"blobfs: {mountpoint}: waiting for {_server(mountpoint)}. {cure}")

    timer = threading.Timer(ANSWER_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _is_stuck(mountpoint: Path) -> bool:
    try:
        read_facts_soon(mountpoint)
    except TimeoutError:
        return True
    except OSError:  # it is dead, or another user's: who asks it next says so
        return False
    return False


def _take_away(mountpoint: Path) -> NoReturn:
    """Unmount without the process that serves it, and raise Incomplete that says so."""
    server = _server(mountpoint)
    say(
        f"blobfs: {mountpoint}: {server} does not answer within {ANSWER_SECONDS:.0f} seconds, and it alone "
        "knows which files are not committed. Giving up what no close(), fsync() or blobfs sync has "
        "reported as written."
    )
    unmount(mountpoint, lazily=True)
    raise Incomplete(
        f"{mountpoint}: unmounted, without what {server} had not committed. If it stays, end it with "
        "kill -9; then blobfs recover shows what it had in a --spool-dir."
    )


def _server(mountpoint: Path) -> str:
    return " or ".join(f"process {pid}" for pid in servers_of(mountpoint)) or "its process"


def _require_mount(mountpoint: Path) -> None:
    """Raise a Failure unless one of our mounts, dead or alive, is exactly here."""
    kind = filesystem_at(mountpoint)
    if kind == FILESYSTEM:
        return
    if kind is not None:
        raise NotFound(f"{mountpoint} is not mounted by blobfs: it is a mount of {kind}, for umount(8).")
    if above := next((path for path in mountpoint.parents if filesystem_at(path) == FILESYSTEM), None):
        raise NotFound(f"{mountpoint} is not mounted by blobfs, but lies inside a mount: {above}.")
    if not mountpoint.exists():
        raise NotFound(f"{mountpoint} does not exist, so nothing is mounted there.")
    raise NotFound(f"{mountpoint} is not mounted by blobfs.")


def _status(mountpoint: Path) -> MountStatus:
    """Return the mount's status. Raises a Failure, after unmounting if its process is dead."""
    try:
        status = read_status(mountpoint)
    except PermissionError as error:
        raise AccessDenied(f"{mountpoint} is another user's mount. Unmount it as that user.") from error
    except OSError as error:
        if not has_died(error):
            raise
        unmount(mountpoint, lazily=True)
        raise Incomplete(
            f"{mountpoint}: unmounted, but its process had died before. What no close() or fsync() "
            "had reported as written may be missing in the container."
        ) from error
    return status or _gone(mountpoint)


def _process(mountpoint: Path, pid: int) -> int:
    """Return a descriptor that can be read when the process has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        _gone(mountpoint)


def _gone(mountpoint: Path) -> NoReturn:
    raise NotFound(
        f"{mountpoint} was unmounted by another command meanwhile, which says whether all is committed."
    )


def _commit(mountpoint: Path) -> str:
    """Have everything committed; return a line for each file for which this failed, and why it did."""
    cause = ""
    try:
        commit_all_below(mountpoint)
    except OSError as error:
        cause = cause_of(error)
    return named_uncommitted(_status(mountpoint), "/", cause)


def unmount(mountpoint: Path, *, lazily: bool = False, server: int = 0) -> None:
    """Detach the mount from the directory. Raises Busy that names who uses it, but for the `server` itself.

    A request that is just under way, such as another command's, makes it busy for a moment only.
    """
    for _ in range(BUSY_ATTEMPTS):
        complaint = _complaint_of_umount(mountpoint, lazily=lazily)
        if not complaint:
            return
        if filesystem_at(mountpoint) != FILESYSTEM:
            _gone(mountpoint)
        if users := ", ".join(sorted(set(users_of(mountpoint, server, os.getpid())))):
            cure = "End these programs, or have them leave it."
            raise Busy(f"{mountpoint} stays mounted, because it is in use: {users}. {cure}")
        time.sleep(BUSY_WAIT_SECONDS)
    raise Busy(f"{mountpoint} stays mounted: {complaint}")


def _complaint_of_umount(mountpoint: Path, *, lazily: bool) -> str:
    """Have the system's program unmount it; return what it says against it, empty for nothing."""
    if os.geteuid() == 0:
        command = ["umount", *(["-l"] if lazily else []), str(mountpoint)]
    else:
        program = shutil.which("fusermount3") or "fusermount"
        command = [program, "-uz" if lazily else "-u", str(mountpoint)]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        return f"there is no {command[0]} on PATH."
    return (ended.stderr.strip() or f"{command[0]} failed") if ended.returncode else ""


def users_of(mountpoint: Path, *apart_from: int) -> Iterator[str]:
    """Yield the processes that have a file or their working directory below the mountpoint.

    The process that serves the mount has the directory beneath it open, and who asks may have
    inherited something there: they are numbers to be left out.
    """
    links = chain.from_iterable(glob.iglob(f"/proc/[0-9]*/{kind}") for kind in ("cwd", "root", "fd/*"))
    for link in map(Path, links):
        # A process may end, or belong to somebody else.
        with suppress(OSError):
            process = Path(*link.parts[:3])
            if int(process.name) not in apart_from and link.readlink().is_relative_to(mountpoint):
                yield f"{(process / 'comm').read_text().strip()} ({process.name})"
