"""Commands with options that may be written in several places, and which place a value is from.

click looks on the command line, then in BLOBFS_… variables, then in the configuration file.
A list after ``-o`` is spelled out as long options, so it counts as command line.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.core import ParameterSource

from blobfs.cli.options import CONFIG_KEY, KERNEL_OPTIONS, PARAMETERS
from blobfs.errors import InvalidArgument

# In a list after -o, but for mount(8), fstab(5) or systemd, or about access times, which blobs do not have.
FOREIGN_OPTION = re.compile(
    r"defaults|(no)?auto|(no)?users?|owner|group|_netdev|nofail|x-.*|comment=.*|async|default_permissions"
    r"|(no)?((rel|dir|strict)?atime|lazytime)"
)

SIGNS = {"ro": "--read-only", "rw": "--read-write"}

_PLAIN_SOURCES = ("command line", "default")


def switch(*names: str, text: str) -> click.Option:
    """Return a switch that only the command line sets: a variable must not have files deleted."""
    return click.Option(names, is_flag=True, allow_from_autoenv=False, help=text)


class ConfiguredCommand(click.Command):
    """A command whose options may also stand in ``BLOBFS_…`` variables and in the configuration file."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(context_settings={"auto_envvar_prefix": "BLOBFS"}, **settings)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; an error names the command, and the file or variable that it comes from."""
        try:
            return super().parse_args(ctx, self.spelled_out(ctx, args))
        except click.BadParameter as error:
            if error.param is not None and (source := source_of(ctx, error.param)) not in _PLAIN_SOURCES:
                text = error.format_message()
                if isinstance(error.param, click.Option) and error.param.is_flag:
                    # click lists a dozen words here, the empty one first.
                    text = f"{text.partition(' Recognized')[0]} Write true or false."
                raise click.UsageError(f"{source}: {text}", ctx) from error
            raise
        except click.UsageError as error:
            error.ctx = ctx  # which those of a list and of the parser do not know
            raise

    def spelled_out(self, _ctx: click.Context, args: list[str]) -> list[str]:
        """Return the arguments with long options only."""
        return args


class MountCommand(ConfiguredCommand):
    """One that takes a list after ``-o`` as well as long options; those given as such win."""

    def spelled_out(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `ConfiguredCommand.spelled_out`."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        return [*spell_out(given.get("mount_lists", ())), *args]


@contextmanager
def said_of_usage() -> Iterator[None]:
    """Raise UsageError for what is found to be no valid argument only where it is used."""
    try:
        yield
    except InvalidArgument as error:
        raise click.UsageError(f"{error}.") from error


def source_of(ctx: click.Context, param: click.Parameter) -> str:
    """Return the variable or the file that a parameter's value is from, "command line" or "default"."""
    source = ctx.get_parameter_source(str(param.name))
    if source is ParameterSource.ENVIRONMENT:
        return f"BLOBFS_{str(param.name).upper()}"
    if source is ParameterSource.DEFAULT_MAP:
        return str(ctx.meta[CONFIG_KEY])
    return "command line" if source is ParameterSource.COMMANDLINE else "default"


def spell_out(mount_lists: Iterable[str]) -> Iterator[str]:
    r"""Yield the long options that stand for lists such as ``ro,uid=5``; ``\,`` is a comma inside a value.

    Raises UsageError for one that nobody knows, and for both ``ro`` and ``rw``.
    """
    long_options = {name: param for param in PARAMETERS for name in (*param.opts, *param.secondary_opts)}
    items = re.split(r"(?<!\\),", ",".join(mount_lists))
    if {"ro", "rw"} <= set(items):
        raise click.UsageError("ro and rw after -o contradict each other.")
    for item in items:
        name, equals, value = item.replace(r"\,", ",").partition("=")
        option = SIGNS.get(name, f"--{name.replace('_', '-')}")
        if name in KERNEL_OPTIONS:
            yield f"--kernel-option={name}"
        elif name and not FOREIGN_OPTION.fullmatch(item):
            param = long_options.get(option)
            if not isinstance(param, click.Option):
                raise click.UsageError(f"Unknown mount option {name!r} in the list after -o.")
            if not equals and not param.is_flag:
                raise click.UsageError(f"Mount option {name!r} needs a value: {name}=….")
            yield f"{option}{equals}{value}"
