"""`blobfs mount`: refuse early what cannot work, then serve."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from blobfs.cli.commands import MountCommand, said_of_usage
from blobfs.cli.daemon import detach
from blobfs.cli.logs import log_path, require_log, start_logging, warnings_on_stderr
from blobfs.cli.messages import announce, say
from blobfs.cli.mountpoint import (
    FILESYSTEM,
    claimed,
    filesystem_at,
    refuse_system_directory,
    release,
    warn_of_hidden,
)
from blobfs.cli.options import PARAMETERS, refuse_contradictions, refuse_inside, service_of
from blobfs.cli.umount import unmount
from blobfs.errors import AccessDenied, CannotRun, Ended, Failure
from blobfs.settings import ContentSettings, MountSettings

logger = logging.getLogger(__name__)


@click.command(
    cls=MountCommand,
    params=list(PARAMETERS),
    short_help="Mount a container on a directory.",
)
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
    with claimed(settings.mountpoint) as claim:
        _check(settings)
        require_log(settings)
        warn_of_hidden(settings.mountpoint)
        tell_ready = announce if settings.foreground else _detach(settings, claim)

        def ready(message: str) -> None:
            release(claim)
            tell_ready(message)

        _serve(settings, ready)


def _detach(settings: MountSettings, claim: int) -> Callable[[str], None]:
    """Go on in the background. If that is ended by a signal while it mounts, no dead mount stays."""
    try:
        return detach(keep=claim)
    except Ended:
        if filesystem_at(settings.mountpoint) == FILESYSTEM:
            unmount(settings.mountpoint, lazily=True)
        raise


def settings_of(ctx: click.Context) -> MountSettings:
    """Return what the parsed command line asks for. Raises UsageError for contradictions."""
    values = ctx.params
    mountpoint = Path(os.path.realpath(values["mountpoint"]))
    refuse_system_directory(mountpoint)
    refuse_contradictions(values)
    settings = MountSettings(
        service=service_of(ctx, values["account"], values["container"]),
        mountpoint=mountpoint,
        content=ContentSettings(
            memory_bytes=values["memory"],
            block_size_bytes=values["block_size"],
            file_md5=values["file_md5"],
            verify=values["verify"],
            cache_dir=values["cache_dir"],
            cache_bytes=values["cache_size"],
        ),
        prefix=values["prefix"],
        read_only=values["read_only"],
        create_container=values["create_container"],
        attr_timeout_seconds=values["attr_timeout"],
        close_to_open=values["close_to_open"],
        uid=values["uid"],
        gid=values["gid"],
        umask=values["umask"],
        exclusive_create=values["exclusive_create"],
        allow_other=values["allow_other"],
        kernel_options=values["kernel_options"],
        spool_dir=values["spool_dir"],
        writeback=values["writeback"],
        metrics=values["metrics"],
        binding=values["binding"],
        log_file=values["log_file"],
        log_level=values["log_level"],
        foreground=values["foreground"],
    )
    refuse_inside(mountpoint, {**values, "log_file": log_path(settings)})
    return settings


def _require_fuse() -> None:
    """Raise CannotRun when the machine cannot mount anything."""
    if not Path("/dev/fuse").exists():
        raise CannotRun(
            "cannot mount: this machine has no /dev/fuse. Load the kernel module (modprobe fuse), "
            "or start the container with --device /dev/fuse --cap-add SYS_ADMIN."
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise AccessDenied(
            "cannot mount: /dev/fuse is not yours to use. Have an admin run: chmod 666 /dev/fuse"
        )
    if os.geteuid() and not (shutil.which("fusermount3") or shutil.which("fusermount")):
        raise CannotRun(
            "cannot mount: there is no fusermount3 on PATH. Have the package fuse3 installed, or set PATH."
        )


def _check(settings: MountSettings) -> None:
    """Raise what is wrong that nobody needs to be asked for; the settings' part of it as UsageError."""
    # Only now: it needs libfuse, and costs the other commands half a second.
    from blobfs.mount import check

    with said_of_usage(), warnings_on_stderr():
        check(settings)


def _tell(message: str) -> None:
    """Say on stderr, which the waiting command shares, what it waits for."""
    say(f"blobfs: {message} …")


def _serve(settings: MountSettings, ready: Callable[[str], None]) -> None:
    """Serve until unmounted. Whatever ends it early stands in the log, since stderr may be gone by then."""
    from blobfs.mount import serve

    place = start_logging(settings)
    try:
        serve(settings, lambda message: ready(f"{message}\nlog: {place}"), _tell)
    except BaseException as error:  # logged and raised again, an interruption too
        if not settings.foreground:
            logger.error("ended: %s", error, exc_info=not isinstance(error, Failure))
        raise
