"""One entry of a tree here, made a blob: files by the writer that a mount has, all else in one request."""

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase

from blobfs.blocks import MiB, block_spans, digest_of, md5_digest
from blobfs.content.memory import BufferPool
from blobfs.content.thread_writers import ThreadWriters
from blobfs.content.writer import BlobWriter, MakeWriter
from blobfs.copying.entries import Work, entry_of_file, with_xattrs
from blobfs.copying.entry_copier import EntryCopier
from blobfs.copying.meter import Meter
from blobfs.errors import Changed, Unsupported
from blobfs.format.attributes import Attributes, check_size, metadata_of
from blobfs.store import BlobStore, ContentHeaders, Properties

STEP_BYTES = 1 * MiB  # read at a time


@dataclass(frozen=True, slots=True)
class Style:
    """What a copy gets besides its bytes."""

    preserves: bool  # mode, owner and times; otherwise they are those of a new file
    uid: int  # of who copies
    gid: int
    umask: int
    headers_for: Callable[[str], ContentHeaders]
    tier: str = ""

    def attributes(self, attributes: Attributes) -> Attributes:
        """Return the attributes of the copy of something with these."""
        if self.preserves:
            return attributes
        now = time.time_ns()
        mode = attributes.mode & ~(self.umask | 0o7000)
        return Attributes(mode, self.uid, self.gid, now, now, now, attributes.rdev)


class Uploader(EntryCopier):
    """Makes blobs. Safe to use from many threads, each with one entry at a time."""

    def __init__(
        self,
        store: BlobStore,
        pool: BufferPool,
        meter: Meter,
        style: Style,
        *,
        make_writer: MakeWriter,
        block_bytes: int,
        largest_block_bytes: int,
    ) -> None:
        self._store = store
        self._pool = pool
        self._meter = meter
        self._style = style
        self._writers = ThreadWriters(make_writer, pool)
        self._block_bytes = block_bytes
        self._largest_block_bytes = largest_block_bytes

    def copy(self, work: Work) -> None:
        """Have the service hold the entry, as it is now. Blocks. Raises Failure, OSError.

        What stands there is replaced if it is still what was seen there, and otherwise as it was.
        """
        source = work.source
        if source.attributes.is_regular:
            # Not to wait for a writer, should it have become a fifo meanwhile.
            with open(work.origin, "rb", buffering=0, opener=_open_at_once) as file:
                self._send(file, work)
        elif source.is_directory:
            self._put(work, b"", with_xattrs(source.attributes, work.origin))
        else:
            link = source.attributes.is_symlink
            self._put(work, os.fsencode(os.readlink(work.origin)) if link else b"", source.attributes)

    def send_stream(self, file: RawIOBase, work: Work) -> int:
        """Make a blob of all that can be read from a stream; return its size. Blocks. Raises as `copy`."""
        with self._writers.writer(work.target) as writer:
            self._fill(writer, file, None)
            writer.commit(self._properties(work, work.source.attributes), work.condition)
            return writer.size_bytes

    def parts(self, work: Work) -> Sequence[range]:
        """Return the blocks of a file."""
        size_bytes = work.source.size_bytes if work.source.attributes.is_regular else 0
        return block_spans(size_bytes, self._block_bytes, self._largest_block_bytes)

    def stage(self, work: Work, spans: Sequence[range]) -> None:
        """Have the service hold these stretches of a file as blocks, which `copy` then need not send.

        Blocks. Raises Failure, OSError. Stretches of other bytes than the file has then are never committed.
        """
        known = set(self._store.uncommitted_ids(work.target))
        with open(work.origin, "rb", buffering=0, opener=_open_at_once) as file:
            for span in spans:
                self._stage_one(file, work.target, span, known)

    def _stage_one(self, file: RawIOBase, name: str, span: range, known: set[str]) -> None:
        buffer = self._pool.take(len(span))
        block = buffer.view[: os.preadv(file.fileno(), [buffer.view[: len(span)]], span.start)]
        digest = digest_of(block)
        if digest.block_id() not in known:
            self._store.stage_block(name, digest.block_id(), block, digest.md5)
        self._meter.note(len(block))

    def _put(self, work: Work, body: bytes, attributes: Attributes) -> None:
        properties = Properties(self._metadata(attributes), content_md5=md5_digest(body))
        self._store.put_blob(work.target, body, properties, work.condition)

    def _send(self, file: RawIOBase, work: Work) -> None:
        before = os.fstat(file.fileno())
        attributes = with_xattrs(entry_of_file("", before).attributes, file.fileno())
        with self._writers.writer(work.target) as writer:
            if before.st_size > self._block_bytes:
                writer.resume()
            self._fill(writer, file, before.st_size)
            _require_unchanged(before, os.fstat(file.fileno()), writer.size_bytes, work.origin)
            writer.commit(self._properties(work, attributes), work.condition)

    def _fill(self, writer: BlobWriter, file: RawIOBase, size_bytes: int | None) -> None:
        """Write all that can be read; of what had a size, no more than shows that it has grown since."""
        step_bytes = STEP_BYTES if size_bytes is None else min(STEP_BYTES, size_bytes + 1)
        buffer = self._pool.take(step_bytes)
        view = buffer.view[:step_bytes]
        while (size_bytes is None or writer.size_bytes <= size_bytes) and (count := file.readinto(view)) != 0:
            if count is None:  # which would be taken for the end
                raise Unsupported("standard input does not wait for its writer (O_NONBLOCK)")
            writer.write(writer.size_bytes, view[:count])
            self._meter.note(count)

    def _properties(self, work: Work, attributes: Attributes) -> Properties:
        return Properties(
            self._metadata(attributes), self._style.headers_for(work.target), tier=self._style.tier
        )

    def _metadata(self, attributes: Attributes) -> Mapping[str, str]:
        metadata = metadata_of(self._style.attributes(attributes), {})
        check_size(metadata)
        return metadata


def _require_unchanged(before: os.stat_result, after: os.stat_result, read_bytes: int, path: str) -> None:
    """Raise Changed for a file that was written while it was read: the copy would be a mixture.

    The time of modification can be set back, that of the status cannot (inode(7)).
    """
    is_same = (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    if not stat.S_ISREG(after.st_mode) or not is_same or read_bytes != after.st_size:
        raise Changed(f"{path}: was written while it was being copied. Copy it again")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
