"""How far a copy is, on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from blobfs.cli.messages import printable
from blobfs.copying.report import BAD, Outcome

REFRESHES_PER_SECOND = 4
SHOWN_CHARACTERS = 40  # of the name of what was copied last


class Bar:
    """A bar on the terminal: bytes, entries, rate, time left for what is found by now, and the last name."""

    def __init__(self, progress: Progress) -> None:
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
        name = printable(outcome.source or outcome.target)[-SHOWN_CHARACTERS:]
        self._progress.update(self._task, done=self._done, failed=failed, name=name)


@contextmanager
def on_terminal() -> Iterator[Bar]:
    """Show a bar on stderr as long as it lasts."""
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
    with Progress(*columns, console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True) as bar:
        yield Bar(bar)
