"""Who watches a copy: a bar on a terminal, lines of JSON for programs, or nobody."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from blobfs.cli.messages import printable
from blobfs.copying.report import Outcome, Unwatched, Verdict, Watcher


class Quiet(Unwatched):
    """Says nothing while it lasts, or in a dry run what would be done."""

    def __init__(self, *, lists: bool = False) -> None:
        self._lists = lists

    def tell(self, outcome: Outcome) -> None:
        """Name what would be copied or deleted, if asked to."""
        if self._lists and outcome.verdict is Verdict.COPIED:
            click.echo(f"would copy {printable(outcome.source)} to {printable(outcome.target)}")
        elif self._lists and outcome.verdict is Verdict.DELETED:
            click.echo(f"would delete {printable(outcome.target)}")


class JsonLines(Quiet):
    """A line on standard output for each entry."""

    def tell(self, outcome: Outcome) -> None:
        """Write the line."""
        click.echo(json.dumps(facts_of(outcome)))


@contextmanager
def display(*, as_json: bool, lists: bool) -> Iterator[Watcher]:
    """Give who watches: JSON if asked for, a bar if stderr is a terminal, and nobody otherwise."""
    if as_json:
        yield JsonLines()
    elif lists or not sys.stderr.isatty():
        yield Quiet(lists=lists)
    else:
        # Only now: to load it takes longer than many a command.
        from blobfs.cli.bar import on_terminal

        with on_terminal() as bar:
            yield bar


def facts_of(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON has it."""
    return {**asdict(outcome), "verdict": outcome.verdict.value}
