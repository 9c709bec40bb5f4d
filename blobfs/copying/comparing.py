"""Whether a file here is what a blob is: by checksums that the service has, or byte by byte."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from blobfs.blocks import KiB, MiB
from blobfs.content.layout import Layout
from blobfs.content.memory import BufferPool
from blobfs.copying.entries import Entry
from blobfs.copying.meter import Meter
from blobfs.copying.report import Verdict
from blobfs.copying.units import Units
from blobfs.errors import Damaged
from blobfs.store import BlobInfo

STEP_BYTES = 1 * MiB
# Not of the pool: who holds some of it while waiting for more may wait for somebody who does the same.
SCRATCH_BYTES = 64 * KiB


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing gave, and why, unless it is a match."""

    verdict: Verdict
    reason: str = ""


MATCH = Comparison(Verdict.MATCHES)


class Comparer:
    """Compares bytes, not attributes. Safe to use from many threads."""

    def __init__(self, units: Units, pool: BufferPool, meter: Meter, *, reads_all: bool) -> None:
        self._units = units
        self._pool = pool
        self._meter = meter
        self._reads_all = reads_all

    def compare(self, path: str, local: Entry, remote: Entry) -> Comparison:
        """Compare what is at `path` here with a blob. Blocks. Raises OSError, Failure."""
        blob = remote.blob
        if local.kind != remote.kind:
            return _differ(f"{_KINDS[local.kind]} here, {_KINDS[remote.kind]} there")
        if blob is None or not (local.attributes.is_regular or local.attributes.is_symlink):
            return MATCH
        if local.size_bytes != blob.size_bytes:
            return _differ(f"{local.size_bytes} bytes here, {blob.size_bytes} there")
        if local.attributes.is_symlink:
            return self._compare_link(os.fsencode(os.readlink(path)), blob)
        with open(path, "rb", buffering=0) as file:
            return self._compare_bytes(file.fileno(), blob)

    def audit(self, blob: BlobInfo) -> Comparison:
        """Read all of a blob and compare it with its own checksums. Blocks. Raises Failure."""
        layout = self._units.layout(blob)
        if not self._units.can_verify(blob, layout):
            return Comparison(Verdict.UNVERIFIABLE, "no checksum of it is stored")
        try:
            for _ in self._units.stream(blob, layout):
                pass
        except Damaged as damage:
            return _differ(str(damage))
        return MATCH

    def _compare_bytes(self, descriptor: int, blob: BlobInfo) -> Comparison:
        if self._reads_all or not blob.size_bytes:
            return self._compare_all(descriptor, blob)
        if blob.content_md5 is not None:
            found = self._md5_of(descriptor, blob.size_bytes)
            return MATCH if found == blob.content_md5 else _differ(_md5s(found, blob.content_md5))
        layout = self._units.layout(blob)
        if layout.is_vouched:
            return self._compare_blocks(descriptor, blob, layout)
        return Comparison(Verdict.UNVERIFIABLE, "no checksum of it is stored; --full reads it")

    def _compare_link(self, target: bytes, blob: BlobInfo) -> Comparison:
        there = b"".join(bytes(view) for _, view in self._units.stream(blob, self._units.layout(blob)))
        return MATCH if there == target else _differ(f"{target!r} here, {there!r} there")

    def _compare_all(self, descriptor: int, blob: BlobInfo) -> Comparison:
        for span, view in self._units.stream(blob, self._units.layout(blob)):
            for start in range(0, len(span), SCRATCH_BYTES):
                there = view[start : start + SCRATCH_BYTES]
                if os.pread(descriptor, len(there), span.start + start) != there:
                    return _differ(f"within {SCRATCH_BYTES} bytes from {span.start + start} on")
        return MATCH

    def _compare_blocks(self, descriptor: int, blob: BlobInfo, layout: Layout) -> Comparison:
        checks = layout.all_in_order(blob.name)
        try:
            for start, view in self._steps(descriptor, blob.size_bytes):
                checks.see(start, view)
        except Damaged as damage:
            return _differ(str(damage))
        return MATCH if checks.are_over else _differ("it became shorter here")

    def _md5_of(self, descriptor: int, size_bytes: int) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        for _, view in self._steps(descriptor, size_bytes):
            digest.update(view)
        return digest.digest()

    def _steps(self, descriptor: int, size_bytes: int) -> Iterator[tuple[int, memoryview]]:
        """Yield a file here in pieces, as far as it goes."""
        buffer = self._pool.take(STEP_BYTES)
        for start in range(0, size_bytes, STEP_BYTES):
            view = buffer.view[: min(STEP_BYTES, size_bytes - start)]
            count = os.preadv(descriptor, [view], start)
            self._meter.note(count)
            yield start, view[:count]


_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def _differ(reason: str) -> Comparison:
    return Comparison(Verdict.DIFFERS, reason)


def _md5s(here: bytes, there: bytes) -> str:
    return f"MD5 {here.hex()} here, {there.hex()} there"
