"""`blobfs mount`: refuse early what cannot work, then serve."""

import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from blobfs.cli.control import read_status
from blobfs.cli.daemon import detach
from blobfs.cli.logs import start_logging
from blobfs.cli.options import PARAMETERS, MountCommand, credential, refuse_contradictions
from blobfs.errors import AccessDenied, Busy, Failure, NotADirectory, NotFound, Unavailable
from blobfs.settings import MountSettings

logger = logging.getLogger(__name__)


@click.command(cls=MountCommand, params=list(PARAMETERS), context_settings={"auto_envvar_prefix": "BLOBFS"})
@click.pass_context
def mount(ctx: click.Context, /, **_: Any) -> None:
    """Mount CONTAINER of storage account ACCOUNT on the directory MOUNTPOINT.

    Every option may also stand in a BLOBFS_… variable (BLOBFS_MEMORY=1GiB) and in the configuration
    file (memory = "1GiB"); the command line wins over the environment, and that over the file.
    A credential that no option names is taken from AZURE_STORAGE_CONNECTION_STRING,
    AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN.
    """
    settings = settings_of(ctx)
    _require_fuse()
    _require_mountpoint(settings.mountpoint)
    ready = click.echo if settings.foreground else detach()
    _serve(settings, ready)


def settings_of(ctx: click.Context) -> MountSettings:
    """Return what the parsed command line asks for. Raises UsageError for contradictions."""
    values = ctx.params
    refuse_contradictions(values)
    return MountSettings(
        account=values["account"],
        container=values["container"],
        mountpoint=values["mountpoint"].resolve(),
        credential=credential(ctx),
        endpoint=values["endpoint"],
        prefix=values["prefix"],
        read_only=values["read_only"],
        create_container=values["create_container"],
        memory_bytes=values["memory"],
        block_size_bytes=values["block_size"],
        attr_timeout_seconds=values["attr_timeout"],
        verify=values["verify"],
        uid=values["uid"],
        gid=values["gid"],
        umask=values["umask"],
        exclusive_create=values["exclusive_create"],
        allow_other=values["allow_other"],
        kernel_options=values["kernel_options"],
        ca_file=values["ca_file"],
        cache_dir=values["cache_dir"],
        cache_bytes=values["cache_size"],
        binding=values["binding"],
        log_file=values["log_file"],
        log_level=values["log_level"],
        foreground=values["foreground"],
    )


def _require_fuse() -> None:
    """Raise Unavailable when the machine cannot mount anything."""
    if not Path("/dev/fuse").exists():
        raise Unavailable(
            "cannot mount: this machine has no /dev/fuse. Load the kernel module (modprobe fuse), "
            "or start the container with --device /dev/fuse --cap-add SYS_ADMIN."
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise AccessDenied(
            "cannot mount: /dev/fuse is not yours to use. Have an admin run: chmod 666 /dev/fuse"
        )
    if os.geteuid() and not (shutil.which("fusermount3") or shutil.which("fusermount")):
        raise Unavailable("cannot mount: there is no fusermount3. Have the package fuse3 installed.")


def _require_mountpoint(mountpoint: Path) -> None:
    """Raise a Failure unless a container can be mounted here; warn about files it would hide."""
    try:
        status = read_status(mountpoint)
    except FileNotFoundError:
        raise NotFound(f"{mountpoint} does not exist. Create it with mkdir.") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            cure = f"Run blobfs umount {mountpoint} first."
            raise Busy(f"{mountpoint} is a mount whose process has died. {cure}") from error
        raise
    if status is not None:
        mounted = f"container {status.container} of account {status.account}"
        raise Busy(f"{mountpoint} is already mounted: {mounted}, process {status.pid}.")
    if not mountpoint.is_dir():
        raise NotADirectory(f"{mountpoint} is not a directory.")
    if any(mountpoint.iterdir()):
        click.echo(f"blobfs: {mountpoint} is not empty; the mount hides what is in it.", err=True)


def _serve(settings: MountSettings, ready: Callable[[str], None]) -> None:
    """Serve until unmounted. Whatever ends it early stands in the log, since stderr may be gone by then."""
    # Only now: it needs libfuse, and costs the other commands half a second.
    from blobfs.mount import serve

    place = start_logging(settings)
    try:
        serve(settings, lambda message: ready(f"{message}\nlog: {place}"))
    except BaseException as error:
        if not settings.foreground:
            logger.error("ended: %s", error, exc_info=not isinstance(error, Failure))
        raise
