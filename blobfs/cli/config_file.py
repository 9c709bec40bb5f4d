"""The configuration file: options of a mount and their values, in TOML."""

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
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
    try:
        parsed = tomllib.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("is not text in UTF-8; save it as that") from error
    known = {str(param.name): param for param in parameters if param.name not in NOT_KEYS}
    for key, value in parsed.items():
        param = known.get(key.replace("-", "_"))
        if param is None:
            what = "table" if isinstance(value, dict) else "key"
            raise ValueError(f"unknown {what} {key!r}{_like(key, known)}")
        kinds, words = _kind_of(param)
        if type(value) not in kinds:  # not isinstance: to Python, true is a number
            raise ValueError(f"{key} must be {words}, not {_toml_name(value)}")
    return {key.replace("-", "_"): value for key, value in parsed.items()}


def _like(key: str, known: Iterable[str]) -> str:
    """Ask whether a key of a similar name was meant; return nothing if there is none."""
    similar = get_close_matches(key, [name.replace("_", "-") for name in known], n=1)
    return f"; did you mean {similar[0]!r}?" if similar else ""


def _kind_of(param: click.Parameter) -> tuple[tuple[type, ...], str]:
    if isinstance(param, click.Option) and param.is_flag:
        return (bool,), "true or false"
    return TOML_KINDS.get(str(param.name), ((str,), "text in quotes"))


def _toml_name(value: object) -> str:
    names = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list"}
    return names.get(type(value), "a table" if isinstance(value, dict) else "a date or time")
