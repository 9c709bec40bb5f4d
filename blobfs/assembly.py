"""The service, which mounts, copies, recoveries and the doctor use, and the parts that move their bytes."""

from dataclasses import dataclass

from blobfs.azure.assembly import open_store
from blobfs.azure.store import AzureStore
from blobfs.blocks import MiB
from blobfs.content.checksums import Checksums
from blobfs.content.disk_cache import DiskCache
from blobfs.content.draft import ReadSpooled, nothing_spooled
from blobfs.content.fetcher import Fetcher
from blobfs.content.first_bytes import FirstBytes
from blobfs.content.memory import SMALLEST_BYTES, BufferPool, power_of_two
from blobfs.content.range_cache import RangeCache
from blobfs.content.reader import BlobReader
from blobfs.content.warming import Warming
from blobfs.content.writer import BlobWriter
from blobfs.settings import ContentSettings, ServiceSettings
from blobfs.store import BlobInfo, BlobStore
from blobfs.transfers import Transfers
from blobfs.waits import Waits

NAMES_SHARE = 8  # an eighth of --memory is for names and attributes
KERNEL_THREADS = 32  # requests of the kernel served at once; slow ones must not stop the others
KERNEL_THREAD_BYTES = 2 * MiB  # libfuse's own buffers for the request and the reply of one thread
LARGEST_BLOCK_BYTES = 128 * MiB


def open_service(settings: ServiceSettings, waits: Waits) -> AzureStore:
    """Return the store of the settings' container, having sent nothing yet. Raises InvalidArgument."""
    retry = settings.retry
    return open_store(
        settings.account,
        settings.container,
        endpoint=settings.endpoint,
        credential=settings.credential,
        ca_file=settings.ca_file,
        connections=settings.transfers.connections,
        total_seconds=retry.total_seconds,
        first_wait_seconds=retry.first_wait_seconds,
        longest_wait_seconds=retry.longest_wait_seconds,
        connect_seconds=retry.connect_seconds,
        read_seconds=retry.read_seconds,
        stall_seconds=retry.stall_seconds,
        waits=waits,
    )


@dataclass(frozen=True, slots=True)
class Content:
    """The parts that read and write bytes, with the memory that they share."""

    pool: BufferPool
    ranges: RangeCache
    reader: BlobReader
    first_bytes: FirstBytes
    warming: Warming
    block_bytes: int
    largest_block_bytes: int
    file_md5: bool
    store: BlobStore
    transfers: Transfers

    def make_writer(
        self, name: str, base: BlobInfo | None, read_spooled: ReadSpooled = nothing_spooled
    ) -> BlobWriter:
        """Return a writer whose content is `base`, or nothing."""
        return BlobWriter(
            name,
            base,
            store=self.store,
            transfers=self.transfers,
            pool=self.pool,
            reader=self.reader,
            block_bytes=self.block_bytes,
            largest_block_bytes=self.largest_block_bytes,
            file_md5=self.file_md5,
            read_spooled=read_spooled,
        )


def fetcher_of(
    settings: ContentSettings, service: ServiceSettings, store: BlobStore, transfers: Transfers
) -> Fetcher:
    """Return what fetches bytes, from disk if the settings name a cache there. Raises InvalidArgument."""
    disk = None
    if settings.cache_dir is not None:
        disk = DiskCache(
            settings.cache_dir,
            # Bytes that one mount did not verify must not be believed by another that would have.
            f"{service.endpoint}/{service.account}/{service.container} {settings.verify}",
            transfers,
            capacity_bytes=settings.cache_bytes,
            waiting_pieces=settings.reads.waiting_pieces,
        )
    return Fetcher(store, disk, range_md5=settings.verify == "all", attempts=settings.reads.damage_attempts)


def content_of(
    settings: ContentSettings, store: BlobStore, fetcher: Fetcher, transfers: Transfers, waits: Waits
) -> Content:
    """Put the parts together. They take memory only when there are bytes."""
    libfuse_bytes = kernel_threads(settings.memory_bytes) * KERNEL_THREAD_BYTES
    pool = BufferPool(settings.memory_bytes - names_bytes(settings.memory_bytes) - libfuse_bytes)
    largest_read_bytes = power_of_two(pool.budget_bytes // 4)
    read_bytes = min(settings.reads.block_bytes, largest_read_bytes)
    ranges = RangeCache(
        fetcher,
        pool,
        fragment_bytes=settings.reads.fragment_bytes,
        capacity_bytes=pool.budget_bytes // 2,
        smallest_bytes=SMALLEST_BYTES,
        waits=waits,
    )
    checksums = Checksums(
        store, enabled=settings.verify != "off", unit_bytes=read_bytes, largest_bytes=largest_read_bytes
    )
    reader = BlobReader(
        ranges,
        checksums,
        fetcher,
        transfers,
        block_bytes=read_bytes,
        portion_bytes=settings.reads.portion_bytes,
        whole_bytes=settings.reads.whole_bytes,
        sequential_bytes=settings.reads.sequential_bytes,
        mid_file_sequential_bytes=settings.reads.mid_file_sequential_bytes,
        tolerance_bytes=settings.reads.tolerance_bytes,
        most_tolerance_bytes=settings.reads.most_tolerance_bytes,
        ahead_blocks=settings.reads.ahead_blocks,
    )
    return Content(
        pool=pool,
        ranges=ranges,
        reader=reader,
        first_bytes=FirstBytes(ranges, checksums, fetcher, whole_bytes=settings.reads.whole_bytes),
        warming=Warming(ranges, checksums, fetcher),
        block_bytes=settings.block_size_bytes,
        largest_block_bytes=min(LARGEST_BLOCK_BYTES, pool.budget_bytes // 4),
        file_md5=settings.file_md5,
        store=store,
        transfers=transfers,
    )


def names_bytes(memory_bytes: int) -> int:
    """Return how much of the memory is for names and attributes."""
    return memory_bytes // NAMES_SHARE


def kernel_threads(memory_bytes: int) -> int:
    """As many as an eighth of the memory has room for."""
    return max(2, min(KERNEL_THREADS, memory_bytes // (8 * KERNEL_THREAD_BYTES)))
