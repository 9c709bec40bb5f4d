"""How far a copy is, on a terminal; and lines of JSON for programs."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from blobfs.copying.report import BAD, Outcome, Verdict

REFRESHES_PER_SECOND = 4
SHOWN_CHARACTERS = 40  # of the name of what was copied last


class Display(Protocol):
    """Who watches a copy. Called from many threads, never by two at once for `tell`."""

    def expect(self, size_bytes: int) -> None:
        """Take note of an entry that was found, with so many bytes to move."""
        ...

    def moved(self, size_bytes: int) -> None:
        """Take note of bytes that have moved."""
        ...

    def tell(self, outcome: Outcome) -> None:
        """Take note of what became of an entry."""
        ...


class Quiet:
    """Says nothing while it lasts, or in a dry run what would be done."""

    def __init__(self, *, lists: bool = False) -> None:
        self._lists = lists

    def expect(self, size_bytes: int) -> None:
        """Say nothing."""

    def moved(self, size_bytes: int) -> None:
        """Say nothing."""

    def tell(self, outcome: Outcome) -> None:
        """Name what would be copied or deleted, if asked to."""
        if self._lists and outcome.verdict is Verdict.COPIED:
            click.echo(f"would copy {outcome.source} to {outcome.target}")
        elif self._lists and outcome.verdict is Verdict.DELETED:
            click.echo(f"would delete {outcome.target}")


class JsonLines(Quiet):
    """A line on standard output for each entry."""

    def tell(self, outcome: Outcome) -> None:
        """Write the line."""
        click.echo(json.dumps(facts_of(outcome)))


class Bar(Quiet):
    """A bar on the terminal: bytes, entries, rate, time left for what is found by now, and the last name."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("", total=None, done=0, found=0, failed="", name="")
        self._found = self._done = self._failed = self._bytes = 0

    def expect(self, size_bytes: int) -> None:
        """Lengthen the bar."""
        self._found += 1
        self._bytes += size_bytes
        self._progress.update(self._task, total=self._bytes, found=self._found)

    def moved(self, size_bytes: int) -> None:
        """Fill the bar."""
        self._progress.update(self._task, advance=size_bytes)

    def tell(self, outcome: Outcome) -> None:
        """Count the entry."""
        self._done += 1
        self._failed += outcome.verdict in BAD
        failed = f"[red]{self._failed} failed[/red]" if self._failed else ""
        name = (outcome.source or outcome.target)[-SHOWN_CHARACTERS:]
        self._progress.update(self._task, done=self._done, failed=failed, name=name)


@contextmanager
def display(*, as_json: bool, lists: bool) -> Iterator[Display]:
    """Give who watches: JSON if asked for, a bar if stderr is a terminal, and nobody otherwise."""
    if as_json:
        yield JsonLines()
    elif lists or not sys.stderr.isatty():
        yield Quiet(lists=lists)
    else:
        columns = (
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[done]}/{task.fields[found]}"),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
            TextColumn("{task.fields[name]}", markup=False),
        )
        console = Console(stderr=True)
        with Progress(
            *columns, console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True
        ) as bar:
            yield Bar(bar)


def facts_of(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON has it."""
    return {**asdict(outcome), "verdict": outcome.verdict.value}
