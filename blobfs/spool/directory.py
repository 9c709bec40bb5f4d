"""Where journals are kept: one private directory for each part of a container that is mounted."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from blobfs.errors import InvalidArgument
from blobfs.own_directory import make_own, require_own
from blobfs.spool.files import SUFFIX, JournalFile, JournalFiles
from blobfs.spool.journal import DiskJournal
from blobfs.spool.leftovers import Leftover
from blobfs.spool.records import Target

FORBIDDEN_BITS = 0o077  # others may not even read what was written


class Spool:
    """The journals of one container, or of what is below a prefix in it."""

    def __init__(self, spool_dir: Path, account: str, container: str, prefix: str) -> None:
        _make_writable(spool_dir)
        where = _directory_name(account, container)
        if prefix:
            where += f".{hashlib.sha256(prefix.encode()).hexdigest()[:16]}"
        self._directory = _make_writable(spool_dir / where)
        self._files = JournalFiles(self._directory)
        # The command that shows what is left.
        self.cure = f"blobfs recover {account} {container} --spool-dir {spool_dir}"

    def journal(self, target: Callable[[], Target]) -> DiskJournal:
        """Return a journal for one file, which is made when there is something to note."""
        return DiskJournal(target, files=self._files, cure=self.cure)

    def leftovers(self) -> Iterator[Leftover]:
        """Take hold of the journals that no process has open, one after the other."""
        return leftovers_in([self._directory])

    def close(self) -> None:
        """Remove what is of no use any more, once all files are committed or left."""
        self._files.close()


def directories_of(spool_dir: Path, account: str, container: str) -> list[Path]:
    """Return where mounts of a container, or of parts of it, keep their journals. Raises InvalidArgument."""
    where = _directory_name(account, container)
    spool = _require_writable(require_own(spool_dir, "spool", forbidden_bits=FORBIDDEN_BITS))
    names = sorted(path.name for path in spool.iterdir())
    return [spool_dir / name for name in names if f"{name}.".startswith(f"{where}.")]


def leftovers_in(directories: list[Path]) -> Iterator[Leftover]:
    """Take hold of the journals there that no process has open, one after the other."""
    paths = [path for directory in directories for path in directory.iterdir() if path.suffix == SUFFIX]
    for path in sorted(paths):
        file = JournalFile.take(path)
        if file is None:
            continue
        leftover = Leftover(file)
        if leftover.is_empty:
            leftover.discard()
        else:
            yield leftover


def _directory_name(account: str, container: str) -> str:
    return f"{quote(account, safe='')}.{quote(container, safe='')}"


def _make_writable(path: Path) -> Path:
    return _require_writable(make_own(path, "spool", forbidden_bits=FORBIDDEN_BITS))


def _require_writable(path: Path) -> Path:
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise InvalidArgument(f"spool directory {path} cannot be written; run: chmod 700 {path}")
    return path
