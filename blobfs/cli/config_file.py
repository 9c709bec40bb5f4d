"""The configuration file: options of a mount and their values, in TOML."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The values that TOML does not write as text, and what to call those.
TOML_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "memory": ((str, int), 'a size such as "1GiB"'),
    "block_size": ((str, int), 'a size such as "8MiB"'),
    "cache_size": ((str, int), 'a size such as "10GiB"'),
    "attr_timeout": ((int, float), "a number of seconds"),
    "timeout": ((int, float), "a number of seconds"),
    "uid": ((int,), "a whole number"),
    "gid": ((int,), "a whole number"),
    "umask": ((str, int), 'octal digits, such as "022"'),
}
NOT_KEYS = {"config", "mount_lists", "kernel_options"}


def config_values(path: Path, parameters: Iterable[click.Parameter]) -> dict[str, Any]:
    """Read a file that may set these parameters; return its values by their names.

    Raises OSError, and ValueError for bad syntax, an unknown key or a value of the wrong kind.
    """
    parsed = tomllib.loads(path.read_text("utf-8-sig"))
    values = {key.replace("-", "_"): value for key, value in parsed.items()}
    known = {str(param.name): param for param in parameters}
    if unknown := sorted(values.keys() - (known.keys() - NOT_KEYS)):
        raise ValueError(f"unknown key {unknown[0]!r}")
    for key, value in parsed.items():
        kinds, words = _kind_of(known[key.replace("-", "_")])
        if type(value) not in kinds:  # not isinstance: to Python, true is a number
            raise ValueError(f"{key} must be {words}, not {_toml_name(value)}")
    return values


def _kind_of(param: click.Parameter) -> tuple[tuple[type, ...], str]:
    if isinstance(param, click.Option) and param.is_flag:
        return (bool,), "true or false"
    return TOML_KINDS.get(str(param.name), ((str,), "text in quotes"))


def _toml_name(value: object) -> str:
    names = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list"}
    return names.get(type(value), "a table" if isinstance(value, dict) else "a date or time")
