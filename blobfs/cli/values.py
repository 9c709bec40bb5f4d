"""The kinds of value an option takes, beyond click's own.

From a TOML file values arrive typed, from elsewhere as text. Each function returns what the
text means and raises BadParameter otherwise.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path

import click

from blobfs.blocks import KiB
from blobfs.cli.messages import holds_secret
from blobfs.errors import InvalidName, NameTooLong
from blobfs.format.names import normalized_prefix

_SIZE = re.compile(r"(?P<number>\d{1,18}) ?(?P<unit>[KMGT]?)(?P<base>i?B)?", re.IGNORECASE)

_SCHEDULER = re.compile(r"((tcp|tls|ws|wss)://)?[^\s/]+:(?P<port>\d{1,5})")

_SHOWN_CHARACTERS = 200
_LOCAL_ADDRESSES = "127.0.0.1:9464, [::1]:9464 or unix:/run/blobfs.sock"


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


def spell_rounded(size_bytes: int) -> str:
    """Return about the size, for people."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < KiB:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= KiB
    return f"{size:.1f} TiB"


class NumberBetween(click.IntRange):
    """Whole numbers within limits. To click's own, what is none is "not a valid integer range"."""

    name = "number"


def octal(value: object) -> int:
    """Read permission bits. An integer is taken as it is, because TOML has octal ones."""
    try:
        mode = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an octal number.") from None
    if not 0 <= mode <= 0o777:
        raise click.BadParameter(f"{value!r} is not between 000 and 777.")
    return mode


def seconds_between(least_seconds: float, most_seconds: float) -> Callable[[object], float]:
    """Return a reader of durations within the limits; click's own takes nan for one."""

    def seconds(value: object) -> float:
        try:
            number = float(str(value))
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a number of seconds.") from None
        if not least_seconds <= number <= most_seconds:  # false for nan as well
            limits = f"{least_seconds:g} and {most_seconds:.0f}"
            raise click.BadParameter(f"{value!r} is not between {limits} seconds.")
        return number

    return seconds


def local_address(value: object) -> tuple[str, int] | Path:
    """Read where to listen on this machine only: ``127.0.0.1:PORT``, ``[::1]:PORT`` or ``unix:/PATH``."""
    text = str(value)
    if text.startswith("unix:"):
        return absolute_path(text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host.strip("[]"))
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise click.BadParameter(f"{text!r} is no address. Write {_LOCAL_ADDRESSES}.") from None
    if not is_local:
        raise click.BadParameter(
            f"{text!r} can be reached by other machines, and nobody is asked who they are. "
            f"Write {_LOCAL_ADDRESSES}, and have a proxy of yours in front of it."
        )
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise click.BadParameter(f"{port!r} is not a port, which is a number from 1 to 65535.")
    return host, int(port)


def scheduler_address(value: str) -> str:
    """Read where a Dask scheduler is, or ``local``. With what is no address, Dask's client may hang."""
    match = _SCHEDULER.fullmatch(value)
    if value != "local" and not (match and 0 < int(match["port"]) < 2**16):
        raise click.BadParameter(f"{value!r} is no address. Write tcp://HOST:PORT, tls://HOST:PORT or local.")
    return value


def spell_address(address: tuple[str, int] | Path) -> str:
    """Return the address as `local_address` reads it."""
    if isinstance(address, Path):
        return f"unix:{address}"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def name_without_secret(value: str) -> str:
    """Read what names something of the service; a secret there would end up in logs and as a name."""
    if holds_secret(value):
        raise click.BadParameter(f"{value!r} has a SAS or key in it, which belongs in a file: --sas-file.")
    return value


def subtree(value: str) -> str:
    """Read the path of a part of the container; it stays as it is written."""
    try:
        normalized_prefix(name_without_secret(value))
    except (InvalidName, NameTooLong) as error:
        raise click.BadParameter(f"{error}.") from error
    return value


def absolute_path(value: str | Path) -> Path:
    """Read a path so that it stays right in another working directory; ``~`` is replaced.

    Symbolic links are kept: a rotated credential is often a link that changes.
    """
    if not str(value).strip():
        raise click.BadParameter("is empty; give a path.")
    if "\0" in str(value):
        raise click.BadParameter("a path has no null byte in it.")
    try:
        return Path(os.path.abspath(os.path.expanduser(value)))
    except FileNotFoundError:
        raise click.BadParameter(f"{value}: the working directory was removed; give a whole path.") from None


def existing_file(value: str | Path) -> Path:
    """Read the path of a file that must be there, and be ours to read."""
    path = absolute_path(value)
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise click.BadParameter(f"{path} {what}.")
        with path.open("rb"):
            return path
    except OSError as error:
        raise click.BadParameter(f"{_shortened(path)} cannot be read: {error.strerror}.") from error


def new_file(value: str | Path) -> Path:
    """Read the path of a file to be written, replacing one that is there; ``-`` is stdout."""
    if str(value) == "-":
        return Path(value)
    path = Path(os.path.realpath(absolute_path(value)))  # not the link is replaced, but what it leads to
    if path.is_dir():
        raise click.BadParameter(f"{path} is a directory.")
    if path.exists() and not path.is_file():
        raise click.BadParameter(f"{path} is not a regular file; - is standard output.")
    if not path.parent.is_dir():
        raise click.BadParameter(f"{path} cannot be made: {path.parent} is no directory.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{path} cannot be made: {path.parent} is not yours to write.")
    return path


def secret_file(value: str | Path) -> Path:
    """Read the path of a file that holds a secret; a secret given in its place is not shown."""
    if holds_secret(str(value)):
        raise click.BadParameter("this is the secret itself; write it into a file and give the file's path.")
    return existing_file(value)


def certificate_file(value: str | Path) -> Path:
    """Read the path of a file of certificates."""
    path = existing_file(value)
    try:
        ssl.create_default_context(cafile=path)
    except (ssl.SSLError, OSError):
        raise click.BadParameter(
            f"{path} holds no certificate in PEM, which starts with -----BEGIN."
        ) from None
    return path


def _shortened(path: Path) -> str:
    text = str(path)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
