"""`blobfs warm`: files into a mount's cache, ahead of a job."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import click

from blobfs.blocks import MiB
from blobfs.cli import control
from blobfs.cli.mountpoint import answering_mount_of, our_mountpoints
from blobfs.cli.values import NumberBetween, absolute_path
from blobfs.errors import Incomplete, NotFound

PIECE_BYTES = 32 * MiB  # brought in at once by one worker; a few blocks
JOBS = 8  # two workers for each connection would only wait
NAMED_FILES = 20

Report = Callable[[int], object]  # takes how many bytes more are done


@dataclass(eq=False, slots=True)
class Item:
    """A file to be brought in, and what went wrong with it."""

    path: Path
    size_bytes: int
    trouble: str = ""


@dataclass(slots=True)
class WarmQueue:
    """Pieces that several workers take in turn, until there are none or somebody says stop."""

    pieces: Iterator[tuple[Item, int]]
    report: Report
    stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards pieces

    def do(self) -> None:
        """Be one worker."""
        while not self.stopped.is_set():
            with self._lock:
                piece = next(self.pieces, None)
            if piece is None:
                return
            item, start = piece
            self._bring(item, start, min(item.size_bytes, start + PIECE_BYTES))

    def _bring(self, item: Item, start: int, end: int) -> None:
        if not item.trouble:
            try:
                control.warm(item.path, start, end)
            except OSError as error:
                item.trouble = control.cause_of(error)
        self.report(end - start)


@click.command(short_help="Bring files into the cache.")
@click.argument("paths", nargs=-1, type=absolute_path)
@click.option(
    "--from-file", type=click.File("rb"), metavar="FILE", help="Take paths from its lines too; - is stdin."
)
@click.option("-0", "--null", is_flag=True, help="They end with a null byte there, as those of find -print0.")
@click.option("--jobs", type=NumberBetween(1, 64), default=JOBS, show_default=True, help="Pieces at once.")
def warm(paths: Sequence[Path], *, from_file: IO[bytes] | None, null: bool, jobs: int) -> None:
    """Bring the files PATHS, and those below directories, into the cache of the mount that they are in.

    With --cache-dir they are then on local disk, otherwise in the mount's memory. Names what did not
    fit or failed, and exits with 1 if that is anything.
    """
    wanted = [*paths, *(_listed(from_file, b"\0" if null else b"\n") if from_file else ())]
    if not wanted:
        raise click.UsageError("name files or directories in a mount, or a list of them with --from-file.")
    _refuse_elsewhere(wanted)
    items = [item for path in wanted for item in _items(path)]
    there_count = sum(not item.trouble for item in items)  # before any fails
    with _progress(sum(item.size_bytes for item in items)) as report:
        _bring_all(items, jobs, report)
    with ThreadPoolExecutor(jobs) as threads:
        held_bytes = sum(threads.map(_check, items))
    files = "1 file" if there_count == 1 else f"{there_count:,} files"
    click.echo(f"{files}, {held_bytes / MiB:,.1f} MiB in the cache.")
    if troubled := [item for item in items if item.trouble]:
        raise Incomplete("\n".join(_lines(troubled)))


def _refuse_elsewhere(paths: Sequence[Path]) -> None:
    """Raise a Failure unless all paths are in mounts that answer. One question for each folder."""
    roots = our_mountpoints()  # a dead one cannot be told to be a directory
    folders = {path if path in roots or os.path.isdir(path) else path.parent: path for path in paths}
    for folder, path in folders.items():
        if answering_mount_of(folder) is None:
            raise NotFound(f"{path} is not in a mount of blobfs.")


def _listed(file: IO[bytes], end: bytes) -> Iterator[Path]:
    """Yield the paths of a list. Raises BadParameter."""
    for name in file.read().split(end):
        if name:
            yield absolute_path(os.fsdecode(name))


def _items(path: Path) -> Iterator[Item]:
    """Yield a file, or all below a directory. What cannot be had is an item with trouble."""
    try:
        status = path.lstat()
    except OSError as error:
        yield Item(path, 0, os.strerror(error.errno or errno.EIO))
        return
    if stat.S_ISREG(status.st_mode):
        yield Item(path, status.st_size)
    elif stat.S_ISDIR(status.st_mode):
        unread: list[OSError] = []
        for folder, _, names in os.walk(path, onerror=unread.append):
            yield from (item for name in sorted(names) for item in _regular(Path(folder, name)))
        yield from (Item(Path(error.filename), 0, str(error.strerror)) for error in unread)


def _regular(path: Path) -> Iterator[Item]:
    """Yield a file; nothing for a symbolic link or a device."""
    if not path.is_symlink():
        yield from _items(path)


def _bring_all(items: Iterable[Item], jobs: int, report: Report) -> None:
    """Bring everything in; stop soon after an interruption."""
    pieces = ((item, start) for item in items for start in range(0, item.size_bytes, PIECE_BYTES))
    work = WarmQueue(pieces, report)
    with ThreadPoolExecutor(jobs) as threads:
        try:
            for worker in [threads.submit(work.do) for _ in range(jobs)]:
                worker.result()
        finally:
            work.stopped.set()


def _check(item: Item) -> int:
    """Return how much of a file is in the cache; if that is not all, and nothing else is wrong, note it."""
    if item.trouble or not item.size_bytes:
        return 0
    try:
        held_bytes = control.cached_bytes(item.path)
    except OSError as error:
        item.trouble = control.cause_of(error)
        return 0
    if held_bytes < item.size_bytes:
        item.trouble = f"only {held_bytes / MiB:.1f} of {item.size_bytes / MiB:.1f} MiB fitted into the cache"
    return held_bytes


def _lines(troubled: Sequence[Item]) -> Iterator[str]:
    yield f"not all is in the cache. Missing or not whole: {len(troubled):,}"
    for item in troubled[:NAMED_FILES]:
        yield f"{item.path}: {item.trouble}"
    if len(troubled) > NAMED_FILES:
        yield f"and {len(troubled) - NAMED_FILES:,} more"


def _progress(total_bytes: int) -> AbstractContextManager[Report]:
    """Show a bar on a terminal, and nothing elsewhere."""
    return _bar(total_bytes) if os.isatty(2) else nullcontext(lambda _: None)


@contextmanager
def _bar(total_bytes: int) -> Iterator[Report]:
    # Only now: what draws bars costs the other commands time.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total_bytes)
        yield lambda count: progress.advance(task, count)
