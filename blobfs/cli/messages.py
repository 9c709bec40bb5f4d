"""What commands say: without the secrets that somebody has put in a wrong place, and what terminals obey."""

import re

import click

from blobfs.cli.output import NAME

_SECRET = re.compile(
    # Not of names like a/sig=1/b or fit(sig=0.05).
    r"((?<![\w/.( -])sig=|(?<=[( ])sig=(?=[\w+/%=]{20})|AccountKey=|SharedAccessSignature=)[^\s&;'\"]+"
    r"|(://)[^/\s]+(?=@)"
    r"|[A-Za-z0-9+/]{86}==",
    re.IGNORECASE,
)


def say(message: str) -> None:
    """Write a message to stderr."""
    click.echo(shown(message), err=True)


def announce(message: str) -> None:
    """Write to stdout what has been done, to stderr if that fails: it is done all the same."""
    try:
        click.echo(message)
    except OSError as error:
        say(f"{message}\nblobfs: {NAME}: {error.strerror}")


def shown(message: str) -> str:
    """Return a message, of one line or several, as it may be shown."""
    return "\n".join(printable(line) for line in without_secrets(message).split("\n"))


def printable(text: str) -> str:
    """Return the text, such as a name, with escapes like Python's for what is not to be seen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def holds_secret(text: str) -> bool:
    """Return whether a part of the text is a SAS, a key or a password, as far as its looks tell."""
    return _SECRET.search(text) is not None


def without_secrets(text: str) -> str:
    """Return the text with an ellipsis in place of each secret."""
    return _SECRET.sub(r"\1\2…", text)
