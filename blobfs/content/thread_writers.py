"""Writers for threads that make one blob at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from blobfs.content.memory import BufferPool
from blobfs.content.writer import BlobWriter, MakeWriter
from blobfs.store import BlobInfo


class ThreadWriters:
    """Gives a thread its writer. While the thread waits for memory, the writer lets go of what it can."""

    def __init__(self, make_writer: MakeWriter, pool: BufferPool) -> None:
        self._make_writer = make_writer
        self._local = threading.local()  # of each thread, the `writer` that it has
        pool.add_reclaimer(self._release_memory)

    @contextmanager
    def writer(self, name: str, base: BlobInfo | None = None) -> Iterator[BlobWriter]:
        """Give the calling thread a writer whose content is `base`, or nothing, for as long as this lasts."""
        self._local.writer = writer = self._make_writer(name, base)
        try:
            yield writer
        finally:
            del self._local.writer

    def _release_memory(self, _size_bytes: int) -> None:
        writer: BlobWriter | None = getattr(self._local, "writer", None)
        if writer is not None:
            writer.release_memory()
