"""One file being changed, and the commit that makes it the blob, in one atomic step.

Only the stretches that were touched are staged again; all other blocks of the blob, whoever
wrote them, are committed again by their ids. Not thread-safe: the file that owns it has the lock.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from blobfs.blocks import ID_BYTES, MAX_BLOCKS_PER_BLOB, id_length
from blobfs.content.draft import Draft, OnlyStaged, ReadSpooled, nothing_spooled
from blobfs.content.extents import Extent, Extents
from blobfs.content.memory import Buffer, BufferPool
from blobfs.content.reader import BlobReader
from blobfs.content.staging import Staging
from blobfs.content.streams import Stream
from blobfs.content.whole_md5 import WholeMd5
from blobfs.errors import AlreadyExists, StagedGone, TooLarge
from blobfs.store import BlobInfo, BlobStore, CommittedBlock, Condition, Properties, head_or_none
from blobfs.transfers import Transfers

WHOLE_SHARE = 32  # a file up to this part of a block is always sent whole: one request, and an MD5


class BlobWriter:
    """The changed content of one blob. `name` may be set anew while nothing is staged."""

    def __init__(
        self,
        name: str,
        base: BlobInfo | None,
        *,
        store: BlobStore,
        transfers: Transfers,
        pool: BufferPool,
        reader: BlobReader,
        block_bytes: int,
        largest_block_bytes: int,
        file_md5: bool,
        read_spooled: ReadSpooled = nothing_spooled,
    ) -> None:
        self._store = store
        self._reader = reader
        self._block_bytes = block_bytes
        self._largest_block_bytes = largest_block_bytes
        self._whole_md5 = WholeMd5(transfers, is_wanted=file_md5)
        self._staging = Staging(
            name,
            store=store,
            transfers=transfers,
            pool=pool,
            whole_md5=self._whole_md5,
            block_bytes=block_bytes,
        )
        self._draft = Draft(
            base,
            staging=self._staging,
            pool=pool,
            reader=reader,
            block_bytes=block_bytes,
            largest_block_bytes=largest_block_bytes,
            read_spooled=read_spooled,
        )
        self._blocks_known = base is None or base.size_bytes <= block_bytes // WHOLE_SHARE
        self.is_changed = base is None

    @property
    def name(self) -> str:
        """The name of the blob."""
        return self._staging.name

    @name.setter
    def name(self, name: str) -> None:
        self._staging.name = name

    @property
    def size_bytes(self) -> int:
        """The size the file would have if it were committed now."""
        return self._draft.size_bytes

    @property
    def buffered_bytes(self) -> int:
        """How much of the pool the content takes."""
        return self._draft.buffered_bytes

    @property
    def uncommitted_bytes(self) -> int:
        """How many bytes were written that the committed blob does not have. Needs no lock."""
        return self._draft.extents.uncommitted_bytes

    @property
    def has_staged(self) -> bool:
        """Blocks of a file never committed may be on the service, under its name."""
        return self._staging.has_blocks

    def resume(self) -> None:
        """Do not send blocks again that an earlier process has staged and not committed."""
        self._know_blocks()
        self._staging.resume()

    def read_into(self, offset: int, target: memoryview, stream: Stream) -> int:
        """Copy bytes to `target`; return how many there are before the end.

        Raises OnlyStaged, or what reading the committed blob raises.
        """
        return self._draft.read_into(offset, target, stream)

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes at `offset`, growing the file if need be.

        Waits while too much is in flight or memory is short. Raises OnlyStaged, or what
        staging an earlier block raised; the bytes of this call may then be partly in place.
        Raises TooLarge, having changed nothing, for a file that no blob can hold.
        """
        self._check_size(offset + len(data))
        self._know_blocks()
        self._staging.finish_staged()
        self.is_changed = True
        self._whole_md5.forget_from(offset)
        self._draft.write(offset, data)

    def truncate(self, size_bytes: int) -> None:
        """Cut the file, or let it grow by a hole. Raises OnlyStaged, TooLarge."""
        self._check_size(size_bytes)
        if size_bytes == self.size_bytes:
            return
        if size_bytes > 0:
            self._know_blocks()
        self._blocks_known = True
        self._whole_md5.forget_from(size_bytes)
        self._draft.truncate(size_bytes)
        self.is_changed = True

    def commit(self, properties: Properties, condition: Condition) -> BlobInfo:
        """Make the content the blob, in one atomic step, and return what the blob is now.

        Blocks until the service has acknowledged every byte. After a failure the bytes are
        still here and commit may be called again.
        """
        whole = self._draft.whole_buffer() if self._goes_whole() else None
        try:
            if whole is None:
                info = self._commit_blocks(properties, condition)
            else:
                info = self._put_whole(whole, properties, condition)
        except AlreadyExists:
            if whole is None or self._is_taken():
                raise
            info = self._commit_blocks(properties, condition)
        self._draft.base = info
        self._blocks_known = True
        self.is_changed = False
        return info

    def rebase(self, info: BlobInfo) -> None:
        """Take note that the committed blob has a new name or new metadata, but the same bytes."""
        self._draft.base = info
        self.name = info.name

    def adopt(self, info: BlobInfo) -> None:
        """Take note that the blob is what a commit without a reply has made of it.

        Blocks to ask which blocks that has; a Put Blob leaves none. Raises Changed.
        """
        if self._blocks_known:
            blocks = self._store.committed_blocks(info.version)
            self._staging.know(block.block_id for block in blocks)
            self._draft.extents.adopt(_extents_of(blocks))
        self.rebase(info)

    def detach(self) -> None:
        """Take all bytes to the local disk, because the blob is about to go. Raises OnlyStaged, NoSpace."""
        self._draft.detach()
        self._blocks_known = True

    def release_memory(self) -> None:
        """Let go of copies; if there are none, send dirty bytes on their way. Does not wait."""
        self._draft.release_memory()

    def _check_size(self, size_bytes: int) -> None:
        largest_bytes = MAX_BLOCKS_PER_BLOB * self._largest_block_bytes
        if size_bytes > largest_bytes:
            raise TooLarge(f"{self.name}: {size_bytes} bytes, with this --memory at most {largest_bytes}")

    def _know_blocks(self) -> None:
        """Learn the committed blob's blocks before the first change of a part of it."""
        base = self._draft.base
        if self._blocks_known or base is None:
            return
        blocks = self._store.committed_blocks(base.version)
        if blocks:
            self._draft.extents = Extents(_extents_of(blocks))
            self._staging.id_bytes = id_length(blocks[0].block_id)
            self._staging.know(block.block_id for block in blocks)
        self._blocks_known = True

    def _goes_whole(self) -> bool:
        """Tell whether to send all in one request: unless that sends again much of what the service has."""
        is_small = self.size_bytes <= self._block_bytes // WHOLE_SHARE
        return is_small or (len(self._draft.extents) == 1 and self.size_bytes <= self._block_bytes)

    def _is_taken(self) -> bool:
        """Tell whether there is a blob: Azurite's Put Blob takes mere uncommitted blocks for one."""
        return head_or_none(self._store, self.name) is not None

    def _put_whole(self, buffer: Buffer, properties: Properties, condition: Condition) -> BlobInfo:
        size_bytes = self.size_bytes
        body = buffer.view[:size_bytes]
        self._staging.forget()
        properties = properties._replace(content_md5=self._whole_md5.restart(body))
        info = self._store.put_blob(self.name, body, properties, condition)
        self._reader.keep(info, body)
        self._draft.extents = Extents([Extent(0, size_bytes, buffer, base_offset=0)] if size_bytes else [])
        self._staging.id_bytes = ID_BYTES
        return info

    def _commit_blocks(self, properties: Properties, condition: Condition) -> BlobInfo:
        self._staging.note_staged()
        try:
            info = self._commit_list(properties, condition)
        except StagedGone:
            # The condition tells whether the blob is another one by now: this is about our blocks only.
            self._stage_all_again()
            info = self._commit_list(properties, condition)
        for extent in self._draft.extents:
            extent.base_offset = extent.start
        return info

    def _commit_list(self, properties: Properties, condition: Condition) -> BlobInfo:
        self._make_blocks()
        ids = [extent.block_id for extent in self._draft.extents]
        properties = properties._replace(content_md5=self._whole_md5.digest(self.size_bytes))
        info = self._store.commit_blocks(self.name, ids, properties, condition, self.size_bytes)
        self._staging.know(ids)
        return info

    def _make_blocks(self) -> None:
        """Have the service hold every extent as a block."""
        while lacking := [extent for extent in self._draft.extents if not self._staging.holds(extent)]:
            # A second round only if the ids turn out to need another length than the committed ones have.
            for extent in lacking:
                self._drop_id(extent)
            self._copy_ranges()
            self._seal_rest()
            self._staging.finish_all()

    def _drop_id(self, extent: Extent) -> None:
        if extent.is_only_staged:
            self._stage_again(extent)
        else:
            extent.block_id = ""

    def _stage_all_again(self) -> None:
        self._staging.forget()
        for extent in self._draft.extents:
            if extent.block_id and not extent.is_committed:
                self._stage_again(extent)

    def _stage_again(self, extent: Extent) -> None:
        """Send a block once more. Raises StagedGone if its bytes are nowhere else."""
        try:
            self._draft.make_resident(extent)
        except OnlyStaged:
            what = "staged blocks are gone: somebody else wrote this name meanwhile"
            raise StagedGone(f"{self.name}: {what}") from None
        extent.block_id = ""
        self._staging.seal(extent)

    def _copy_ranges(self) -> None:
        """Have the service copy what is long and untouched. Through us, a short stretch gets a checksum."""
        base = self._draft.base
        for extent in list(self._draft.extents):
            if base is not None and extent.is_mere_range and extent.length >= self._block_bytes:
                parts = self._draft.parts_of(extent)
                self._draft.extents.replace(extent, parts)
                for part in parts:
                    self._staging.copy(part, base.version)
        self._staging.finish_all()

    def _seal_rest(self) -> None:
        """Send every extent on its way that the service does not hold as a block."""
        self._cut_into_blocks()
        zero_blocks: dict[int, Extent] = {}
        for extent in self._draft.extents:
            if extent.block_id or extent.staging is not None:
                continue
            if extent.is_hole and extent.length in zero_blocks:
                continue
            if extent.is_hole:
                zero_blocks[extent.length] = extent
            self._draft.make_resident(extent)
            extent.base_offset = -1
            self._staging.seal(extent)
        self._share_zero_blocks(zero_blocks)

    def _cut_into_blocks(self) -> None:
        """Cut holes, and ranges that the service did not copy, into pieces of one block."""
        parts: list[Extent] = []
        for extent in self._draft.extents:
            if extent.is_hole or extent.is_mere_range:
                parts += self._draft.parts_of(extent)
            elif extent.length:
                parts.append(extent)
        if len(parts) > MAX_BLOCKS_PER_BLOB:
            raise TooLarge(f"{self.name}: {len(parts)} blocks, a blob has at most {MAX_BLOCKS_PER_BLOB}")
        self._draft.extents = Extents(parts)

    def _share_zero_blocks(self, zero_blocks: dict[int, Extent]) -> None:
        """One block of zeros is staged once and listed as often as it occurs."""
        for extent in [extent for extent in self._draft.extents if extent.is_hole]:
            staged = zero_blocks[extent.length]
            if staged.staging is not None:
                self._staging.finish(staged)
            extent.block_id = staged.block_id


class MakeWriter(Protocol):
    """How the writer for a blob's new content is made."""

    def __call__(
        self, name: str, base: BlobInfo | None, read_spooled: ReadSpooled = nothing_spooled, /
    ) -> BlobWriter:
        """Return a writer whose content is `base`, or nothing."""
        ...


def _extents_of(blocks: Iterable[CommittedBlock]) -> Iterator[Extent]:
    start = 0
    for block in blocks:
        yield Extent(start, block.size_bytes, None, block.block_id, start)
        start += block.size_bytes
