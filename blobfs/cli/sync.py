"""`blobfs sync`: a barrier, for the last line of a job."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import click

from blobfs.cli.control import cause_of, commit_all_below, lines_of, read_receipt, read_status
from blobfs.cli.values import absolute_path
from blobfs.errors import InvalidArgument, NotFound, Unavailable

RECEIPTS_AT_ONCE = 16  # each is two requests


@click.command()
@click.argument("mountpoint", type=absolute_path)
@click.argument("paths", nargs=-1, type=absolute_path)
@click.option(
    "--manifest",
    type=click.File("w", lazy=True, atomic=True),
    help="Write a line of JSON for each file there: name, ETag, MD5, size, blocks, time of its commit.",
)
def sync(mountpoint: Path, paths: Sequence[Path], manifest: IO[str] | None) -> None:
    """Wait until the service has everything below PATHS in the mount on MOUNTPOINT, or in all of it.

    Files that are open are committed as they are now. Exits with 0 only if nothing is left.
    """
    if read_status(mountpoint) is None:
        raise NotFound(f"{mountpoint} is not mounted by blobfs.")
    for path in paths or [mountpoint]:
        _commit(path, mountpoint)
    if manifest is not None:
        with ThreadPoolExecutor(RECEIPTS_AT_ONCE) as threads:
            for receipt in threads.map(read_receipt, _files(paths or [mountpoint])):
                manifest.write(f"{json.dumps(receipt)}\n")
    click.echo(f"{mountpoint}: everything is committed.")


def _commit(path: Path, mountpoint: Path) -> None:
    if not path.is_relative_to(mountpoint):
        raise InvalidArgument(f"{path} is not below {mountpoint}. Give paths in the mount.")
    try:
        commit_all_below(path)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist.") from None
    except OSError as error:
        status = read_status(mountpoint)
        left = "".join(f"\n{line}" for line in lines_of(status)) if status else ""
        raise Unavailable(f"{path}: not everything is committed: {cause_of(error)}{left}") from error


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
        for directory, _, names in os.walk(path):
            yield from (file for name in sorted(names) if (file := Path(directory, name)).is_file())
