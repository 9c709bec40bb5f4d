"""`blobfs sync`: a barrier, for the last line of a job."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import click

from blobfs.cli.control import cause_of, commit_all_below, named_uncommitted, read_receipt, read_status
from blobfs.cli.messages import announce, say
from blobfs.cli.mountpoint import answering_mount_of
from blobfs.cli.values import absolute_path, new_file
from blobfs.errors import Incomplete, InvalidArgument, NotFound

STDOUT = Path("-")
RECEIPTS_AT_ONCE = 16  # each is two requests


@click.command(short_help="Wait until everything is committed.")
@click.argument("mountpoint", type=absolute_path)
@click.argument("paths", nargs=-1, type=absolute_path)
@click.option(
    "--manifest",
    type=new_file,
    help="Write a line of JSON for each file there: name, ETag, MD5, size, blocks, time of its commit.",
)
def sync(mountpoint: Path, paths: Sequence[Path], manifest: Path | None) -> None:
    """Wait until the service has everything below PATHS in the mount on MOUNTPOINT, or in all of it.

    Files that are open are committed as they are now. Exits with 0 only if nothing is left.
    MOUNTPOINT may also be a path in the mount, and is then the first of PATHS.
    """
    start, *others = (Path(os.path.realpath(path)) for path in (mountpoint, *paths))
    root = _mount_of(start)
    places = [start, *others] if start != root or not others else others
    if manifest is not None and Path(os.path.realpath(manifest)).is_relative_to(root):
        raise InvalidArgument(f"{manifest} is in the mount that it would tell of. Write it elsewhere.")
    for place in places:
        _commit(place, root)
    if manifest is not None:
        _write_manifest(manifest, _files(places))
    tell = say if manifest == STDOUT else announce
    tell(f"{mountpoint}: everything is committed.")


def _mount_of(path: Path) -> Path:
    """Return where the mount is that has a path. Raises NotFound, AccessDenied, CannotRun."""
    root = answering_mount_of(path)
    if root is None:
        raise NotFound(f"{path} is not mounted by blobfs, and lies in no such mount.")
    return root


def _commit(path: Path, root: Path) -> None:
    if not path.is_relative_to(root):
        raise InvalidArgument(f"{path} is not below {root}. Give paths in the mount.")
    try:
        commit_all_below(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} does not exist.") from None
    except OSError as error:
        status, cause = read_status(root), cause_of(error)
        left = named_uncommitted(status, _inside(path, root), cause) if status else cause
        raise Incomplete(f"{path}: not everything is committed:\n{left}") from error


def _inside(path: Path, root: Path) -> str:
    """Return the path as the mount itself calls it."""
    return str(Path("/") / path.relative_to(root))


def _write_manifest(path: Path, files: Iterable[Path]) -> None:
    """Write a line for each file. What is there already is replaced by a complete manifest or not at all."""
    if path == STDOUT:
        _write_receipts(sys.stdout, files)
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    with ExitStack() as undo:
        try:
            with unfinished.open("x", encoding="utf-8") as manifest:
                undo.callback(unfinished.unlink)
                _write_receipts(manifest, files)
        except OSError as error:
            error.filename = error.filename or str(path)  # which one of writing does not have
            raise
        unfinished.replace(path)
        undo.pop_all()


def _write_receipts(manifest: TextIO, files: Iterable[Path]) -> None:
    with ThreadPoolExecutor(RECEIPTS_AT_ONCE) as threads:
        for receipt in threads.map(_receipt, files):
            if receipt is not None:
                manifest.write(f"{json.dumps(receipt)}\n")


def _receipt(path: Path) -> dict[str, Any] | None:
    """Return a file's receipt, None if it is gone. Raises Incomplete, OSError."""
    try:
        return read_receipt(path)
    except FileNotFoundError:
        return None


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files there. Raises OSError for a directory that cannot be listed."""
    for path in paths:
        if path.is_file():
            yield path
            continue
        for directory, _, names in os.walk(path, onerror=_raise_unless_gone):
            yield from (file for name in sorted(names) if _is_file(file := Path(directory, name)))


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _is_file(path: Path) -> bool:
    """Tell whether it is a file itself: a link may lead anywhere."""
    return path.is_file() and not path.is_symlink()
