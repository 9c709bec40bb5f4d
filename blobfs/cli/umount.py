"""`blobfs umount`: commit, unmount, and wait until the serving process is gone."""

import errno
import glob
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

import click

from blobfs.cli.control import MountStatus, commit_everything, read_status
from blobfs.cli.values import absolute_path
from blobfs.errors import AccessDenied, Busy, InvalidArgument, Unavailable


@click.command()
@click.argument("mountpoint", type=absolute_path)
@click.option("--force", is_flag=True, help="Unmount even then; the files named are given up.")
def umount(mountpoint: Path, *, force: bool) -> None:
    """Commit every file of the mount on MOUNTPOINT, then unmount it.

    Exits with 0 only when the service has everything; otherwise names the files that it
    does not have, and leaves the mount in place.
    """
    mountpoint = Path(os.path.realpath(mountpoint))
    status = _status(mountpoint)
    left = _commit(mountpoint)
    if left and not force:
        raise Unavailable(f"{mountpoint} stays mounted. Not committed:\n{left}")
    process = os.pidfd_open(status.pid)
    if left:
        click.echo(f"blobfs: {mountpoint}: giving up what is not committed:\n{left}", err=True)
    _unmount(mountpoint, lazily=force)
    if not force:  # otherwise it lives as long as a program still has a file open
        select.select([process], [], [])
    if left:
        raise Unavailable(f"{mountpoint}: unmounted, without the files named above.")
    click.echo(f"{mountpoint}: everything is committed; unmounted.")


def _status(mountpoint: Path) -> MountStatus:
    """Return the mount's status. Raises a Failure, after unmounting if its process is dead."""
    try:
        status = read_status(mountpoint)
    except PermissionError as error:
        raise AccessDenied(f"{mountpoint} is another user's mount. Unmount it as that user.") from error
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        _unmount(mountpoint, lazily=True)
        raise Unavailable(
            f"{mountpoint}: unmounted, but its process had died before. What no close() or fsync() "
            "had reported as written may be missing in the container."
        ) from error
    if status is None:
        raise InvalidArgument(f"{mountpoint} is not mounted by blobfs.")
    return status


def _commit(mountpoint: Path) -> str:
    """Have everything committed; return a line for each file for which this failed."""
    causes = []
    try:
        commit_everything(mountpoint)
    except OSError as error:
        causes = [os.strerror(error.errno or errno.EIO)]
    status = _status(mountpoint)
    return "\n".join([f"{file.path}: {file.reason}" for file in status.uncommitted] or causes)


def _unmount(mountpoint: Path, *, lazily: bool = False) -> None:
    """Detach the mount from the directory. Raises Busy that names who still uses it."""
    if os.geteuid() == 0:
        command = ["umount", *(["-l"] if lazily else []), str(mountpoint)]
    else:
        program = shutil.which("fusermount3") or "fusermount"
        command = [program, "-uz" if lazily else "-u", str(mountpoint)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode:
        users = ", ".join(sorted(set(users_of(mountpoint)))) or ended.stderr.strip()
        raise Busy(f"{mountpoint} stays mounted, with everything committed, because it is in use: {users}.")


def users_of(mountpoint: Path) -> Iterator[str]:
    """Yield the processes that have a file or their working directory below the mountpoint."""
    links = chain.from_iterable(glob.iglob(f"/proc/[0-9]*/{kind}") for kind in ("cwd", "root", "fd/*"))
    for link in map(Path, links):
        # A process may end, or belong to somebody else.
        with suppress(OSError):
            if link.readlink().is_relative_to(mountpoint):
                process = Path(*link.parts[:3])
                yield f"{(process / 'comm').read_text().strip()} ({process.name})"
