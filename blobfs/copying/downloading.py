"""One blob, made an entry of a tree here: complete and verified before it takes its name."""

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blobfs.content.layout import Layout
from blobfs.copying.entries import Entry, Work, entry_of_file
from blobfs.copying.entry_copier import EntryCopier
from blobfs.copying.part_file import PartFile, part_path
from blobfs.copying.plan import UNFINISHED_MODE
from blobfs.copying.units import Units, spans_of
from blobfs.errors import Changed, Damaged, InvalidArgument, NotADirectory
from blobfs.format.attributes import Attributes
from blobfs.store import BlobInfo

MAX_LINK_BYTES = 4095  # PATH_MAX, without its terminating null byte

_MAKING = stat.S_IWUSR | stat.S_IXUSR  # what making files in a directory takes


@dataclass(frozen=True, slots=True)
class Keeping:
    """Which attributes copies get."""

    preserves: bool
    owners: bool  # only root can give files away
    umask: int

    def mode(self, attributes: Attributes) -> int:
        """Return the permission bits of a copy."""
        mode = stat.S_IMODE(attributes.mode)
        if not self.preserves:
            return mode & ~(self.umask | 0o7000)
        # A set-id bit for another owner than the one it was meant for would be a hole.
        return mode if self.owners or attributes.is_directory else mode & ~0o6000


class Downloader(EntryCopier):
    """Makes files below a directory. Safe to use from many threads, each with one entry at a time."""

    def __init__(self, units: Units, root: Path, keeping: Keeping) -> None:
        self._units = units
        self._root = root
        self._keeping = keeping
        self._made: set[Path] = set()  # directories that are there; a race costs a system call

    def copy(self, work: Work) -> None:
        """Have the entry here. Blocks. Raises Failure, OSError; then what stood there is as it was."""
        target, source = Path(work.target), work.source
        self._make_directories(target.parent)
        if source.attributes.is_regular:
            self._receive(work, target)
        elif source.is_directory:
            self._make_directories(target)
        elif source.attributes.is_symlink:
            self._replace(work, lambda path: os.symlink(self._link_target(source), path))
        else:
            mode, rdev = source.attributes.mode, source.attributes.rdev
            self._replace(work, lambda path: os.mknod(path, mode, rdev))

    def parts(self, work: Work) -> Sequence[range]:
        """Return stretches that can be fetched apart: each has a checksum for whoever completes the file."""
        blob = work.source.blob
        if blob is None or not work.source.attributes.is_regular:
            return ()
        layout = self._units.layout(blob)
        return spans_of(layout) if self._can_resume(layout) else ()

    def stage(self, work: Work, spans: Sequence[range]) -> None:
        """Put stretches of a blob into the part of its file, for who completes it.

        Blocks. Raises Failure, OSError.
        """
        target, blob = Path(work.target), work.source.blob
        assert blob is not None
        layout = self._units.layout(blob)
        self._make_directories(target.parent)
        with PartFile(target, blob.size_bytes, is_shared=True) as part:
            part.stays = True
            self._fetch(
                part, blob, layout, [span for span in spans if not self._holds(part, blob, layout, span)]
            )

    def is_late(self, entry: Entry) -> bool:
        """Tell what comes after all files: links, or a file might be written through one.

        Directories, too: what is made in them changes their times, and their modes may forbid it.
        """
        return entry.is_directory or entry.attributes.is_symlink

    def prepare(self, work: Work) -> None:
        """Make a directory that nobody else can enter until it has its own mode.

        One that is there already may be read-only by now: it is made writable until then.
        """
        target = Path(work.target)
        if work.source.is_directory and work.source.blob is not None:
            self._make_directories(target.parent)
            try:
                target.mkdir(mode=UNFINISHED_MODE)
            except FileExistsError:
                _open_to_its_owner(target)

    def copy_late(self, work: Work) -> None:
        """Have a link or a directory here, with its attributes; a directory after what is in it."""
        self.copy(work)
        if work.source.is_directory and work.source.blob is not None:
            self._give_attributes(Path(work.target), work.source.attributes)

    def _receive(self, work: Work, target: Path) -> None:
        blob = work.source.blob
        assert blob is not None
        layout = self._units.layout(blob)
        with PartFile(target, blob.size_bytes) as part:
            part.stays = len(layout) > 1 and self._units.verifies
            self._fetch(part, blob, layout, self._missing(part, blob, layout))
            if not part.is_new:
                _remove_xattrs(part.descriptor)
            self._give_attributes(part.descriptor, work.source.attributes)
            _require_as_seen(target, work.replaces)
            part.finish()

    def _missing(self, part: PartFile, blob: BlobInfo, layout: Layout) -> Sequence[range] | None:
        """Return what an earlier attempt has not brought, as far as checksums tell; None for all."""
        if part.is_new or not self._can_resume(layout):
            return None
        return [span for span in spans_of(layout) if not self._holds(part, blob, layout, span)]

    def _can_resume(self, layout: Layout) -> bool:
        return layout.is_complete and self._units.verifies

    def _fetch(self, part: PartFile, blob: BlobInfo, layout: Layout, spans: Sequence[range] | None) -> None:
        for span, view in self._units.stream(blob, layout, spans):
            part.write(span.start, view)

    def _holds(self, part: PartFile, blob: BlobInfo, layout: Layout, span: range) -> bool:
        buffer = self._units.take(len(span))
        view = buffer.view[: len(span)]
        if part.read_into(span.start, view) != len(span):
            return False
        try:
            layout.verify(blob.name, span, view)
        except Damaged:  # or never written
            return False
        return True

    def _link_target(self, source: Entry) -> bytes:
        blob = source.blob
        assert blob is not None
        if not 0 < blob.size_bytes <= MAX_LINK_BYTES:
            raise InvalidArgument(f"{blob.name}: a link of {blob.size_bytes} bytes cannot be")
        return b"".join(bytes(view) for _, view in self._units.stream(blob, self._units.layout(blob)))

    def _replace(self, work: Work, make: Callable[[Path], None]) -> None:
        """Make something beside the target that is complete at once, and give it its name."""
        target = Path(work.target)
        beside = part_path(target)
        with suppress(FileNotFoundError):
            beside.unlink()
        make(beside)
        try:
            self._give_attributes(beside, work.source.attributes)
            _require_as_seen(target, work.replaces)
            os.replace(beside, target)
        except (Changed, OSError):
            beside.unlink()
            raise

    def _make_directories(self, directory: Path) -> None:
        """Have a directory at or below the root, and no link in its place: it might lead anywhere.

        Raises NotADirectory, OSError.
        """
        if directory in self._made:
            return
        if directory == self._root or self._root not in directory.parents:
            directory.mkdir(parents=True, exist_ok=True)
        else:
            self._make_directories(directory.parent)
            with suppress(FileExistsError):
                directory.mkdir()
            if not stat.S_ISDIR(directory.lstat().st_mode):
                raise NotADirectory(f"{directory} is no directory, and a link there is not followed")
        self._made.add(directory)

    def _give_attributes(self, target: Path | int, attributes: Attributes) -> None:
        """Set what copies keep, the times last. Of a link itself, not of its target."""
        follow = isinstance(target, int)
        if self._keeping.preserves and self._keeping.owners:
            os.chown(target, attributes.uid, attributes.gid, follow_symlinks=follow)
        if not attributes.is_symlink:
            mode = self._keeping.mode(attributes)
            if self._keeping.preserves and attributes.xattrs:
                os.chmod(target, mode | stat.S_IWUSR)  # which setting them needs (xattr(7))
                _set_xattrs(target, attributes.xattrs)
            os.chmod(target, mode)
        if self._keeping.preserves:
            times = (attributes.atime_ns, attributes.mtime_ns)
            os.utime(target, ns=times, follow_symlinks=follow)


def _require_as_seen(target: Path, seen: Entry | None) -> None:
    """Raise Changed for a file that was written at the target since that was looked at."""
    try:
        status = target.lstat()
    except FileNotFoundError:
        return
    now = entry_of_file("", status)
    if not now.attributes.is_regular:
        return
    if seen is None or not now.has_content_of(seen):
        raise Changed(f"{target}: was written by somebody else meanwhile, and is as they left it")


def _open_to_its_owner(directory: Path) -> None:
    """Make sure that files can be made in a directory of ours, whatever its mode."""
    status = directory.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and mode & _MAKING != _MAKING:
        directory.chmod(mode | _MAKING)


def _remove_xattrs(descriptor: int) -> None:
    """Remove the extended attributes of an earlier attempt: the blob may have others by now."""
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return
    for name in names:
        # Those of a mount are facts about the blob.
        if name.startswith("user.") and not name.startswith("user.blobfs."):
            os.removexattr(descriptor, name)


def _set_xattrs(target: Path | int, xattrs: Mapping[str, bytes]) -> None:
    """Set extended attributes, where the file system has them."""
    try:
        for name, value in xattrs.items():
            os.setxattr(target, f"user.{name}", value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
