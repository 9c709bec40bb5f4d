"""`blobfs config show`: what would hold for a mount, and where each setting comes from."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click

from blobfs.cli.commands import MountCommand, source_of
from blobfs.cli.config_file import NOT_KEYS
from blobfs.cli.messages import without_secrets
from blobfs.cli.options import PARAMETERS, credential
from blobfs.cli.values import spell_address, spell_size

_SIZES = ("memory", "cache_size", "block_size")

OPTIONS = [param for param in PARAMETERS if isinstance(param, click.Option)]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration, as a file would have it."""

    key: str
    value: str | int | float | bool | None  # None: not set
    source: str
    is_used: bool  # False if a credential of another place wins

    @property
    def line(self) -> str:
        """A line of a configuration file, commented out where it has no effect."""
        text = "" if self.value is None else json.dumps(self.value, ensure_ascii=False)
        line = f"{self.key} = {text}".rstrip()
        return f"{line}  # {self.source}" if self.is_used and text else f"# {line}  # {self.source}"


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command(
    "show",
    cls=MountCommand,
    params=[*OPTIONS, click.Option(["--json", "as_json"], is_flag=True, help="Print a JSON list.")],
    short_help="Print all settings and their places.",
)
@click.pass_context
def show(ctx: click.Context, /, *, as_json: bool, **_: Any) -> None:
    """Print the settings that a mount with these options would have, and where each comes from.

    The output is a configuration file. It names files of secrets, and shows no secret.
    """
    settings = list(_settings(ctx))
    if as_json:
        click.echo(json.dumps([asdict(setting) for setting in settings], indent=2))
    else:
        click.echo("\n".join(setting.line for setting in settings))


def _settings(ctx: click.Context) -> Iterator[Setting]:
    used = asdict(credential(ctx))
    for param in OPTIONS:
        name = str(param.name)
        if name not in NOT_KEYS:
            value = ctx.params[name]
            source = source_of(ctx, param)
            is_used = name not in used or used[name] == (value or used[name])
            source = source if is_used else f"{source}, not used: another credential comes first"
            yield Setting(name.replace("_", "-"), _as_in_a_file(name, value), source, is_used)


def _as_in_a_file(name: str, value: Any) -> str | int | float | bool | None:
    """Return a value as a file would have it; None if it is not set."""
    if value is None or value == "":
        return None
    if name in _SIZES:
        return spell_size(value)
    if name == "umask":
        return f"{value:03o}"
    if name == "metrics":
        return spell_address(value)
    return value if isinstance(value, (bool, int, float)) else without_secrets(str(value))
