"""Blocks on their way: extents staged in the background, and the ids that the service holds by now."""

import contextlib
from collections import deque
from collections.abc import Iterable

from blobfs.blocks import ID_BYTES, digest_of
from blobfs.content.extents import Extent
from blobfs.content.memory import Buffer
from blobfs.errors import Failure
from blobfs.store import BlobStore
from blobfs.transfers import Transfers

BLOCKS_IN_FLIGHT = 12  # per file: more than the write pool has threads, so it never runs dry


class Staging:
    """What of one file is being staged or was. Not thread-safe. `name` changes only while nothing is."""

    def __init__(self, name: str, *, store: BlobStore, transfers: Transfers) -> None:
        self.name = name
        self.id_bytes = ID_BYTES
        self._store = store
        self._transfers = transfers
        self._in_flight: deque[Extent] = deque()
        self._service_ids: set[str] = set()  # staged since the last commit, or in it
        self._is_stopped = False

    @property
    def has_blocks(self) -> bool:
        """Blocks may be on the service, under the name."""
        return bool(self._in_flight or self._service_ids)

    def know(self, block_ids: Iterable[str]) -> None:
        """Take note of what the blob consists of; whatever else was staged is gone."""
        self._service_ids = set(block_ids)

    def forget(self) -> None:
        """Wait for what is under way: Put Blob discards all that is staged, and nothing may come after it."""
        while self._in_flight:
            extent = self._in_flight.popleft()
            if extent.staging is not None:
                extent.staging.exception()
                extent.staging = None
        self._service_ids.clear()

    def stop(self) -> None:
        """Forget everything, and stage nothing any more."""
        self.forget()
        self._is_stopped = True

    def seal(self, extent: Extent) -> None:
        """Stage the extent in the background. Its buffer must not change until that is finished.

        Waits while too many are in flight, and raises what staging an earlier one raised.
        """
        buffer = extent.buffer
        if self._is_stopped or not extent.length or not extent.is_dirty or buffer is None or extent.staging:
            return
        while len(self._in_flight) >= BLOCKS_IN_FLIGHT:
            self.finish(self._in_flight[0])
        extent.staging = self._transfers.submit_write(self._stage, buffer, extent.length)
        self._in_flight.append(extent)

    def seal_some(self, extents: Iterable[Extent]) -> None:
        """Stage as many as may be in flight. Does not wait."""
        for extent in extents:
            if len(self._in_flight) >= BLOCKS_IN_FLIGHT:
                return
            self.seal(extent)

    def settle(self) -> None:
        """Finish what is staged by now. Raises the failure of a block that could not be."""
        while self._in_flight and self._in_flight[0].staging and self._in_flight[0].staging.done():
            self.finish(self._in_flight[0])

    def note(self) -> None:
        """Finish what is staged by now; a block that could not be is dirty again, and will be sent again."""
        for extent in [extent for extent in self._in_flight if extent.staging and extent.staging.done()]:
            with contextlib.suppress(Failure):
                self.finish(extent)

    def finish(self, extent: Extent, *, keep_buffer: bool = False) -> None:
        """Wait until the extent is staged. After a failure, which is raised, it is dirty as before."""
        assert extent.staging is not None
        staging, extent.staging = extent.staging, None
        self._in_flight.remove(extent)
        extent.block_id = staging.result()
        if not keep_buffer and extent.start > 0:  # headers are written again, and stay
            extent.buffer = None

    def finish_all(self) -> None:
        """Wait until everything in flight is staged. Raises the first failure."""
        while self._in_flight:
            self.finish(self._in_flight[0])

    def _stage(self, buffer: Buffer, length: int) -> str:
        block = buffer.view[:length]
        digest = digest_of(block)
        block_id = digest.block_id(self.id_bytes)
        if block_id not in self._service_ids:
            self._store.stage_block(self.name, block_id, block, digest.md5)
            self._service_ids.add(block_id)
        return block_id
