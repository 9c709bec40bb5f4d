"""The kinds of value an option takes, beyond click's own.

From a TOML file values arrive typed, from elsewhere as text. Each function returns what the
text means and raises BadParameter otherwise.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import click

from blobfs.blocks import KiB

_SIZE = re.compile(r"(?P<number>\d+) ?(?P<unit>[KMGT]?)(?P<base>i?B)?", re.IGNORECASE)


def size_between(least_bytes: int, most_bytes: int) -> Callable[[object], int]:
    """Return a reader of sizes: ``8MiB``, ``8M`` (the same), ``8MB`` (decimal), ``8388608``."""

    def size(value: object) -> int:
        size_bytes = _bytes_of(str(value))
        if not least_bytes <= size_bytes <= most_bytes:
            least, most = spell_size(least_bytes), spell_size(most_bytes)
            raise click.BadParameter(f"{value!r} is not between {least} and {most}.")
        return size_bytes

    return size


def _bytes_of(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size. Write 8MiB, 512M, 1GiB or a number of bytes.")
    factor = 1000 if match["unit"] and match["base"] in ("B", "b") else KiB
    power = " KMGT".index(match["unit"].upper() or " ")
    return int(match["number"]) * int(factor**power)


def spell_size(size_bytes: int) -> str:
    """Return the size in the largest unit that divides it, as `size_between` reads it."""
    for unit in ("", "KiB", "MiB", "GiB"):
        if size_bytes % KiB or not size_bytes:
            return f"{size_bytes}{unit}"
        size_bytes //= KiB
    return f"{size_bytes}TiB"


def octal(value: object) -> int:
    """Read permission bits. An integer is taken as it is, because TOML has octal ones."""
    try:
        mode = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an octal number.") from None
    if not 0 <= mode <= 0o777:
        raise click.BadParameter(f"{value!r} is not between 000 and 777.")
    return mode


def absolute_path(value: str | Path) -> Path:
    """Read a path so that it stays right in another working directory; ``~`` is replaced.

    Symbolic links are kept: a rotated credential is often a link that changes.
    """
    return Path(os.path.abspath(os.path.expanduser(value)))


def existing_file(value: str | Path) -> Path:
    """Read the path of a file that must be there."""
    path = absolute_path(value)
    if not path.is_file():
        raise click.BadParameter(f"there is no file {path}.")
    return path
