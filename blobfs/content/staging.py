"""Blocks on their way: extents staged in the background, and the ids that the service holds by now."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable

from blobfs.blocks import ID_BYTES, Md5, copied_block_id, digest_of, id_length, md5_hash
from blobfs.content.extents import Extent
from blobfs.content.memory import Buffer, BufferPool
from blobfs.content.whole_md5 import WholeMd5
from blobfs.errors import Failure, OtherIdLength
from blobfs.store import BlobStore, BlobVersion
from blobfs.transfers import Transfers

# While no more than this part of the pool is in use, what was staged stays in memory: HDF5 and its like
# go back to their indexes, and what is only staged would have to be committed and read again for that.
KEPT_SHARE = 4
BLOCKS_IN_FLIGHT = 20  # per file: more than the write pool has threads, so it never runs dry


class Staging:
    """The blocks of one file. Not thread-safe. `name` changes only while no block is under way."""

    def __init__(
        self,
        name: str,
        *,
        store: BlobStore,
        transfers: Transfers,
        pool: BufferPool,
        whole_md5: WholeMd5,
        block_bytes: int,
    ) -> None:
        self.name = name
        self.id_bytes = ID_BYTES
        self._store = store
        self._transfers = transfers
        self._pool = pool
        self._whole_md5 = whole_md5
        self._block_bytes = block_bytes
        self._in_flight: deque[Extent] = deque()
        self._kept: deque[Extent] = deque()  # staged, and in memory unless somebody needed that
        self._service_ids: set[str] = set()  # staged since the last commit, or in it
        self._is_stopped = False

    @property
    def has_blocks(self) -> bool:
        """Blocks may be on the service, under the name."""
        return bool(self._in_flight or self._service_ids)

    def holds(self, extent: Extent) -> bool:
        """The service has the extent as a block that the next commit may list."""
        return bool(extent.block_id) and id_length(extent.block_id) == self.id_bytes

    def know(self, block_ids: Iterable[str]) -> None:
        """Take note of what the blob consists of; whatever else was staged is gone."""
        self._service_ids = set(block_ids)

    def resume(self) -> None:
        """Take note of the blocks that somebody staged under the name before: equal ids are equal bytes."""
        self._service_ids.update(self._store.uncommitted_ids(self.name))

    def forget(self) -> None:
        """Wait for what is under way: Put Blob discards all that is staged, and nothing may come after it."""
        while self._in_flight:
            extent = self._in_flight.popleft()
            if extent.staging is not None:
                extent.staging.exception()
                extent.staging = None
        self._kept.clear()
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
        if self._is_stopped or not extent.length or buffer is None or not extent.is_open:
            return
        self._make_room()
        # The file's MD5 begins like that of its first block, so those bytes are hashed once.
        begin = self._whole_md5.see_first(extent.length) if extent.start == 0 else None
        extent.staging = self._transfers.submit_write(self._stage, buffer, extent.length, begin)
        # What is staged can be had again from the service, so its buffer may be given back.
        recheck = self._pool.recheck
        extent.staging.add_done_callback(lambda _staging: recheck())
        self._in_flight.append(extent)
        self._whole_md5.see(extent.start, buffer, extent.length)

    def copy(self, extent: Extent, version: BlobVersion) -> None:
        """Have the service stage a range of the committed blob. Where it does not, there is no block then.

        Waits while too many are in flight, and raises what staging an earlier one raised.
        """
        self._make_room()
        extent.staging = self._transfers.submit_write(
            self._stage_range, version, extent.base_offset, extent.length
        )
        self._in_flight.append(extent)

    def seal_some(self, extents: Iterable[Extent]) -> None:
        """Stage as many as may be in flight. Does not wait."""
        for extent in extents:
            if len(self._in_flight) >= BLOCKS_IN_FLIGHT:
                return
            self.seal(extent)

    def finish_staged(self) -> None:
        """Finish what is staged by now. Raises the failure of a block that could not be."""
        while self._in_flight and self._in_flight[0].staging and self._in_flight[0].staging.done():
            self.finish(self._in_flight[0])

    def note_staged(self) -> None:
        """Like `finish_staged`, but never fails: a block that could not be staged will be sent again."""
        for extent in [extent for extent in self._in_flight if extent.staging and extent.staging.done()]:
            if extent.staging is not None:
                with contextlib.suppress(Failure):
                    self.finish(extent)

    def finish(self, extent: Extent, *, keep_buffer: bool = False) -> None:
        """Wait until the extent is staged. After a failure, which is raised, it is dirty as before.

        So it is, too, when the ids turned out to need another length.
        """
        assert extent.staging is not None
        staging, extent.staging = extent.staging, None
        self._in_flight.remove(extent)
        try:
            extent.block_id = staging.result()
        except OtherIdLength as refusal:
            self._adopt_id_length(refusal)
            return
        # Headers are written again and short blocks outgrown: both stay.
        if not keep_buffer and extent.start > 0 and extent.length >= self._block_bytes:
            self._kept.append(extent)
            self.drop_kept(self._pool.budget_bytes // KEPT_SHARE)

    def finish_all(self) -> None:
        """Wait until everything in flight is staged. Raises the first failure."""
        while self._in_flight:
            self.finish(self._in_flight[0])

    def drop_kept(self, allowed_bytes: int) -> None:
        """Let go of bytes, first of those staged longest ago, while more of the pool than that is in use."""
        while self._kept and self._pool.in_use_bytes > allowed_bytes:
            extent = self._kept.popleft()
            if extent.is_droppable:
                extent.buffer = None

    def _make_room(self) -> None:
        while len(self._in_flight) >= BLOCKS_IN_FLIGHT:
            self.finish(self._in_flight[0])

    def _adopt_id_length(self, refusal: OtherIdLength) -> None:
        """Make ids as long as those that an unfinished upload by somebody else left.

        Discarding those would take a commit of something under the name, which others would see;
        and their writer may be alive. This way it is our commit that discards them.
        """
        self.forget()
        lengths = {id_length(block_id) for block_id in self._store.uncommitted_ids(self.name)}
        if lengths <= {self.id_bytes}:
            raise refusal
        self.id_bytes = min(lengths - {self.id_bytes})

    def _stage_range(self, version: BlobVersion, start: int, length: int) -> str:
        block_id = copied_block_id(version.name, version.etag, start, length, self.id_bytes)
        return block_id if self._store.stage_range(version, start, length, self.name, block_id) else ""

    def _stage(self, buffer: Buffer, length: int, begin: Callable[[Md5], None] | None) -> str:
        block = buffer.view[:length]
        md5 = md5_hash(block)
        if begin is not None:
            begin(md5.copy())
        digest = digest_of(block, md5)
        block_id = digest.block_id(self.id_bytes)
        if block_id not in self._service_ids:
            self._store.stage_block(self.name, block_id, block, digest.md5)
            self._service_ids.add(block_id)
        return block_id
