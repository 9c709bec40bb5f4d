"""Every option of `blobfs mount`."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from blobfs.blocks import MAX_BLOCK_BYTES, KiB, MiB
from blobfs.cli.config_file import config_values
from blobfs.cli.machine import LEAST_BYTES, default_memory_bytes
from blobfs.cli.values import (
    NumberBetween,
    absolute_path,
    certificate_file,
    existing_file,
    local_address,
    name_without_secret,
    octal,
    seconds_between,
    secret_file,
    size_between,
    spell_size,
    subtree,
)
from blobfs.settings import CredentialSettings, MountSettings, RetrySettings, ServiceSettings

CONFIG_FILES = (Path("~/.config/blobfs.toml"), Path("/etc/blobfs.toml"))

# In a list after -o: understood by libfuse as they stand, and enforced by the kernel.
KERNEL_OPTIONS = ("dev", "nodev", "suid", "nosuid", "exec", "noexec")

MAX_ID = 2**32 - 2  # the one above means "none" to chown(2)
BLOCKS_IN_MEMORY = 4  # at least, so that one can fill while others are on their way
MAX_SECONDS = 366 * 24 * 3600.0

CONFIG_KEY = "blobfs.config"  # in the context: which file was read


def use_config_file(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Make the file's values the defaults of the command, which the environment and arguments override."""
    if path is None:
        path = next((file for file in map(Path.expanduser, CONFIG_FILES) if file.is_file()), None)
    if path is not None:
        try:
            ctx.default_map = config_values(path, PARAMETERS)
        except OSError as error:
            raise click.BadParameter(f"{path} cannot be read: {error.strerror}.", ctx, param) from error
        except ValueError as error:
            raise click.BadParameter(f"{path}: {error}", ctx, param) from error
        ctx.meta[CONFIG_KEY] = path


DEFAULTS = MountSettings(ServiceSettings("", ""), Path())  # of all but where and what


def default_block_bytes(memory_bytes: int) -> int:
    """Return the size of blocks where none is given: the usual, or in whole MiB what fits in the memory."""
    return min(DEFAULTS.content.block_size_bytes, memory_bytes // BLOCKS_IN_MEMORY // MiB * MiB)


def _fit_block_size(ctx: click.Context, _: click.Parameter, block_bytes: int | None) -> int:
    """Choose, where none is given. --memory is known by then: it is declared before, or was given."""
    return default_block_bytes(ctx.params["memory"]) if block_bytes is None else block_bytes


PARAMETERS: tuple[click.Parameter, ...] = (
    click.Argument(["account"], envvar="BLOBFS_ACCOUNT", type=name_without_secret),
    click.Argument(["container"], envvar="BLOBFS_CONTAINER", type=name_without_secret),
    click.Argument(["mountpoint"], envvar="BLOBFS_MOUNTPOINT", type=absolute_path),
    click.Option(
        ["--config"],
        type=existing_file,
        metavar="FILE",
        callback=use_config_file,
        is_eager=True,
        expose_value=False,
        help=f"TOML file of a mount's options, without the dashes.  [default: {CONFIG_FILES[0]}, "
        f"else {CONFIG_FILES[1]}]",
    ),
    click.Option(
        ["--prefix"], type=subtree, default="", help="Mount only what is below this path of the container."
    ),
    click.Option(
        ["--read-only/--read-write"], default=False, help="Refuse every change.  [default: read-write]"
    ),
    click.Option(
        ["--create-container/--no-create-container"],
        default=False,
        help="Make the container if it is missing.",
    ),
    click.Option(
        ["--endpoint"], default="", help="URL of the Blob service, for an emulator or private cloud."
    ),
    click.Option(
        ["--connection-string-file"],
        type=secret_file,
        metavar="FILE",
        help="File that holds a connection string.",
    ),
    click.Option(
        ["--account-key-file"], type=secret_file, metavar="FILE", help="File that holds an account key."
    ),
    click.Option(
        ["--sas-file"],
        type=secret_file,
        metavar="FILE",
        help="File that holds a SAS; read again when it changes.",
    ),
    click.Option(
        ["--auth"],
        type=click.Choice(["entra", "anonymous"]),
        help="Microsoft Entra ID (managed identity, service principal, CLI login), or a public container.",
    ),
    click.Option(["--ca-file"], type=certificate_file, metavar="FILE", help="Certificates to trust, in PEM."),
    click.Option(
        ["--memory"],
        type=size_between(16 * MiB, 1024**5),
        default=lambda: spell_size(default_memory_bytes(DEFAULTS.content.memory_bytes)),
        show_default=f"{spell_size(DEFAULTS.content.memory_bytes)}, or a quarter of what the machine or a "
        f"control group has if that is less; at least {spell_size(LEAST_BYTES)}",
        help="All the memory that data and metadata may take.",
    ),
    click.Option(
        ["--cache-dir"],
        type=absolute_path,
        metavar="DIR",
        help="Keep what is read in this directory, for other mounts and later ones.  [default: nowhere]",
    ),
    click.Option(
        ["--cache-size"],
        type=size_between(64 * MiB, 1024**5),
        default=spell_size(DEFAULTS.content.cache_bytes),
        show_default=True,
        help="How much --cache-dir may hold.",
    ),
    click.Option(
        ["--block-size"],
        type=size_between(64 * KiB, MAX_BLOCK_BYTES),
        callback=_fit_block_size,
        show_default=f"{spell_size(DEFAULTS.content.block_size_bytes)}, or what fits",
        help="Size of the first blocks of a file; at most a quarter of --memory.",
    ),
    click.Option(
        ["--file-md5/--no-file-md5"],
        default=DEFAULTS.content.file_md5,
        help="Store the MD5 of every file that is written from start to end.  [default: file-md5]",
    ),
    click.Option(
        ["--spool-dir"],
        type=absolute_path,
        metavar="DIR",
        help="Keep what is not committed here, too: a crash does not lose it.  [default: nowhere]",
    ),
    click.Option(
        ["--writeback/--no-writeback"],
        default=False,
        help="Have close() return when the bytes are safe in --spool-dir, and upload behind.",
    ),
    click.Option(
        ["--attr-timeout"],
        type=seconds_between(0, MAX_SECONDS),
        default=DEFAULTS.attr_timeout_seconds,
        show_default=True,
        help="Seconds for which attributes may be remembered.",
    ),
    click.Option(
        ["--close-to-open/--no-close-to-open"],
        default=DEFAULTS.close_to_open,
        help="Ask at each open() what the file is now; without it, believe for --attr-timeout what is known."
        "  [default: close-to-open]",
    ),
    click.Option(
        ["--timeout"],
        type=seconds_between(0.1, MAX_SECONDS),
        default=DEFAULTS.service.retry.total_seconds,
        show_default=True,
        help="Seconds for which a request is tried before it fails.",
    ),
    click.Option(
        ["--verify"],
        type=click.Choice(["off", "blocks", "all"]),
        default=DEFAULTS.content.verify,
        show_default=True,
        help="Compare what is read with checksums: nothing, whole blocks and files, or every reply.",
    ),
    click.Option(
        ["--uid"], type=NumberBetween(0, MAX_ID), help="Owner where none is recorded.  [default: you]"
    ),
    click.Option(["--gid"], type=NumberBetween(0, MAX_ID), help="Their group.  [default: yours]"),
    click.Option(
        ["--umask"],
        type=octal,
        default=f"{DEFAULTS.umask:03o}",
        show_default=True,
        help="Permission bits that files without a recorded mode lack.",
    ),
    click.Option(
        ["--exclusive-create/--no-exclusive-create"],
        default=False,
        help="Make a file opened with O_EXCL on the service at once: lock files work between nodes.",
    ),
    click.Option(
        ["--allow-other/--no-allow-other"], default=False, help="Let other users in, as permissions allow."
    ),
    click.Option(
        ["--metrics"],
        type=local_address,
        metavar="ADDRESS",
        help="Serve Prometheus metrics on this machine: 127.0.0.1:PORT or unix:/PATH.  [default: nowhere]",
    ),
    click.Option(
        ["--binding"],
        type=click.Choice(["auto", "libfuse3", "libfuse2"]),
        default=DEFAULTS.binding,
        show_default=True,
        help="Which FUSE library to use.",
    ),
    click.Option(
        ["--log-file"],
        type=absolute_path,
        metavar="FILE",
        help="Log here.  [default: syslog, or a file in ~/.local/state/blobfs where there is none]",
    ),
    click.Option(
        ["--log-level"],
        type=click.Choice(["debug", "info", "warning", "error"]),
        default=DEFAULTS.log_level,
        show_default=True,
        help="How much to log.",
    ),
    click.Option(
        ["--foreground/--background"], default=False, help="Stay, and log to stderr.  [default: background]"
    ),
    click.Option(
        ["-o", "mount_lists"],
        multiple=True,
        expose_value=False,
        allow_from_autoenv=False,
        metavar="LIST",
        help="Options as in fstab(5): ro,uid=1000,memory=1GiB; every long option may stand there.",
    ),
    click.Option(
        ["--kernel-option", "kernel_options"],
        type=click.Choice(KERNEL_OPTIONS),
        multiple=True,
        hidden=True,
        allow_from_autoenv=False,
    ),
)


_CREDENTIALS = tuple(field.name for field in fields(CredentialSettings))
_OF_THE_SERVICE = ("config", "endpoint", "ca_file", "memory", *_CREDENTIALS)


def shared_parameters(*more: str) -> list[click.Parameter]:
    """Return what other commands have of these: all that using the service takes, and `more` by name."""
    return [param for param in PARAMETERS if param.name in (*_OF_THE_SERVICE, *more)]


def refuse_contradictions(values: Mapping[str, Any]) -> None:
    """Raise UsageError for options that cannot both be meant."""
    if values["read_only"] and values["create_container"]:
        raise click.UsageError("--read-only and --create-container contradict each other.")
    if values["writeback"] and values["spool_dir"] is None:
        raise click.UsageError("--writeback keeps in a spool what is to be sent: name one with --spool-dir.")
    if values["exclusive_create"] and not values["close_to_open"]:
        raise click.UsageError("--exclusive-create is for other nodes, --no-close-to-open for none.")
    refuse_large_blocks(values["block_size"], values["memory"])


def refuse_large_blocks(block_bytes: int, memory_bytes: int) -> None:
    """Raise UsageError if too few blocks fit in the memory."""
    if block_bytes * BLOCKS_IN_MEMORY > memory_bytes:
        most = spell_size(memory_bytes // BLOCKS_IN_MEMORY)
        raise click.UsageError(f"--block-size is over a quarter of --memory: at most {most} fit.")


def refuse_inside(mountpoint: Path, values: Mapping[str, Any]) -> None:
    """Raise UsageError for a file that the mount would hide, or that would be reached through it."""
    for name, value in values.items():
        if name != "mountpoint" and isinstance(value, Path):
            places = (value, Path(os.path.realpath(value)))
            if any(place.is_relative_to(mountpoint) for place in places):
                option = f"--{name.replace('_', '-')}"
                raise click.UsageError(f"{option} {value} lies inside the mountpoint; keep it elsewhere.")


def service_of(ctx: click.Context, account: str, container: str, endpoint: str = "") -> ServiceSettings:
    """Return the container, reached as the options say, but at `endpoint` if that is not empty.

    Raises UsageError as `credential` does.
    """
    values = ctx.params
    return ServiceSettings(
        account,
        container,
        credential=credential(ctx),
        endpoint=endpoint or values["endpoint"],
        ca_file=values["ca_file"],
        retry=RetrySettings(total_seconds=values.get("timeout", DEFAULTS.service.retry.total_seconds)),
    )


def credential(ctx: click.Context) -> CredentialSettings:
    """Return the one credential option to use: the command line hides the environment, and that the file.

    Raises UsageError when one place names two.
    """
    for source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP):
        given = [
            name for name in _CREDENTIALS if ctx.params[name] and ctx.get_parameter_source(name) is source
        ]
        if len(given) > 1:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise click.UsageError(f"{options} contradict each other: name one credential.")
        if given:
            return CredentialSettings(**{given[0]: ctx.params[given[0]]})
    return CredentialSettings()
