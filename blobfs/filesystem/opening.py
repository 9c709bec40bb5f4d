"""How a file is opened: as it is here, or as the service has it at this moment."""

import math
import os
from typing import NamedTuple

from blobfs.errors import Changed, IsADirectory, NotFound
from blobfs.filesystem.early_opens import EarlyOpens
from blobfs.filesystem.files import File
from blobfs.filesystem.next_files import NextFiles
from blobfs.filesystem.volume import Answer, Volume
from blobfs.format.names import is_hidden_name
from blobfs.store import BlobInfo
from blobfs.tree.cache import Node

LONG_AGO = -math.inf  # the time of an answer that is only believed: it must not count as new


def is_writable(flags: int) -> bool:
    """Tell whether a file is opened to be changed, be it by the open(2) itself."""
    return flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)


class Entered(NamedTuple):
    """A file that counts one more handle, and what the kernel may do with the pages it holds of it."""

    file: File
    keep_pages: bool = False
    bypass_pages: bool = False  # they may be of another version that is open here, too
    is_newer: bool = False  # the kernel may believe the size of an older version


class Opener:
    """Opens files of a volume. Its methods may be called from many threads."""

    def __init__(
        self, volume: Volume, next_files: NextFiles, early_opens: EarlyOpens, *, open_bytes: int
    ) -> None:
        self._volume = volume
        self._next_files = next_files
        self._early_opens = early_opens
        self._open_bytes = open_bytes

    def open(self, path: str, flags: int) -> Entered:
        """Enter the file of a path in the table of files for one more handle, which the caller makes.

        Blocks. Raises ReadOnly, IsADirectory, and Changed for one that is gone: it was there when the
        kernel looked.
        """
        volume = self._volume
        if is_writable(flags):
            volume.check_writable(path)
        if is_hidden_name(path):
            return _opened_here(volume.orphans.enter(path))
        if (file := volume.local_file(path)) is not None:
            return _opened_here(volume.files.enter(file))
        return self._open_committed(path, flags)

    def _open_committed(self, path: str, flags: int) -> Entered:
        """Open the version that the service has, unless this mount writes the name meanwhile: then again."""
        volume = self._volume
        known = volume.namespace.find(path)
        if known is not None and known.is_directory:
            raise IsADirectory(f"{path}: is a directory")
        at_hand = self._asked_ahead(path) if not is_writable(flags) else None
        at_hand = at_hand or self._believed(path)
        file, answer = volume.enter_current(path, lambda: self._current_blob(path, known, flags), at_hand)
        if answer is None:
            # The open that has the kernel drop older pages may not have reached it yet: so does this one.
            return Entered(file, bypass_pages=file.has_foreign_pages, is_newer=True)
        info = answer.info
        volume.namespace.record_answer(path, Node(info), answer.asked_at)
        if file.has_foreign_pages:
            volume.pages.distrust(info.name)
        keep_pages = not file.has_foreign_pages and volume.pages.note_version(info.name, info.etag)
        # What this mount knows by now, from a listing say, is not what the kernel was told.
        return Entered(file, keep_pages, file.has_foreign_pages, is_newer=not keep_pages)

    def _asked_ahead(self, path: str) -> Answer | None:
        """Return the answer to this open if it was asked for before the open came."""
        from_walk = self._next_files.come_to(path)
        return self._early_opens.come_to(path) or from_walk

    def _believed(self, path: str) -> Answer | None:
        """Return what opens may believe of a file without asking, if that is allowed."""
        volume = self._volume
        if volume.namespace.close_to_open:
            return None
        name = volume.names.blob_name(path)
        last_write = volume.store.last_write(name)  # first: what is written after it will be met
        file = volume.files.get(name)
        if file is not None:
            with file.lock:  # what is being committed now is what will be known
                volume.note_commit(file)
        blob = volume.namespace.believed(path)
        return Answer(blob, last_write, LONG_AGO) if blob is not None else None

    def _current_blob(self, path: str, known: Node | None, flags: int) -> BlobInfo:
        """Ask the service what the blob is now, and take its first bytes along if they may be wanted."""
        volume = self._volume
        blob = known.blob if known is not None else None
        name = volume.names.blob_name(path)
        try:
            if (
                flags & os.O_TRUNC
                or flags & os.O_ACCMODE == os.O_WRONLY
                or blob is None
                or not blob.size_bytes
            ):
                info = volume.store.head(name)
            else:
                info = volume.first_bytes.refresh(blob, self._open_bytes)
        except NotFound as failure:
            # The kernel believes that it is there. It looks again, and makes a new file for who wants that.
            volume.namespace.forget(path)
            raise Changed(f"{path}: was removed meanwhile: {failure}") from failure
        return info


def _opened_here(file: File) -> Entered:
    """Describe one more open of a file that is open here already, as are the kernel's pages of it."""
    foreign = file.has_foreign_pages
    # All that ever happened to a file without a blob, the kernel was asked for.
    is_newer = foreign or file.base is not None
    return Entered(file, not foreign, foreign, is_newer)
