"""The composition root: every object is made here, once, and handed the numbers it needs."""

import contextlib
import logging
import mimetypes
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blobfs.azure.assembly import open_store
from blobfs.azure.sources import CredentialSources
from blobfs.azure.store import AzureStore
from blobfs.blocks import MAX_BLOB_NAME_CHARACTERS, MiB
from blobfs.callers import Callers
from blobfs.content.checksums import Checksums
from blobfs.content.disk_cache import DiskCache
from blobfs.content.fetcher import Fetcher
from blobfs.content.memory import BufferPool
from blobfs.content.range_cache import RangeCache
from blobfs.content.reader import BlobReader
from blobfs.content.writer import BlobWriter
from blobfs.errors import Failure, Unavailable
from blobfs.filesystem.files import File
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.own_writes import OwnWrites
from blobfs.filesystem.volume import Volume
from blobfs.format.attributes import Attributes, Defaults
from blobfs.format.names import NameMap, normalized_prefix
from blobfs.kernel import binding
from blobfs.kernel.operations import Operations
from blobfs.settings import MountSettings
from blobfs.store import BlobInfo, BlobStore, ContentHeaders
from blobfs.transfers import Transfers
from blobfs.tree.cache import TreeCache
from blobfs.tree.creators import Creators
from blobfs.tree.namespace import Namespace

logger = logging.getLogger(__name__)

NAMES_SHARE = 8  # an eighth of --memory is for names and attributes
KERNEL_THREADS = 32  # requests of the kernel served at once; slow ones must not stop the others
KERNEL_THREAD_BYTES = 2 * MiB  # libfuse's own buffers for the request and the reply of one thread
LARGEST_BLOCK_BYTES = 128 * MiB
READ_AHEAD_KIB = 1024  # the largest request of libfuse 3; more was not faster, and costs mmap readers
DEFAULT_CONTENT_TYPE = "application/octet-stream"


def check(settings: MountSettings) -> None:
    """Raise the Failure that `serve` would raise before it asks the service anything.

    InvalidArgument for a setting that cannot work, Unavailable without libfuse.
    """
    binding.load(settings.binding)
    _open(settings, Callers(lambda: 0)).close()


def serve(settings: MountSettings, ready: Callable[[str], None]) -> None:
    """Mount and serve until unmounted (blocks). Calls ``ready(message)`` once the mount answers.

    Raises Failure when the mount cannot be made, or, after serving, when something could not
    be committed; each such file is in the log.
    """
    library = binding.load(settings.binding)
    callers = Callers(lambda: binding.caller_of(library)[2])
    store = _open(settings, callers)
    if settings.create_container:
        store.create_container()
    access = store.probe()
    read_only = settings.read_only or access.read_only
    transfers = Transfers(reads=settings.transfers.reads, writes=settings.transfers.writes)
    attempts = settings.reads.damage_attempts
    disk = _disk_cache(settings, transfers)
    fetcher = Fetcher(store, disk, range_md5=settings.verify == "all", attempts=attempts)
    filesystem = _filesystem(settings, store, fetcher, transfers, callers, read_only=read_only)
    message = f"{settings.account}/{settings.container} is mounted on {settings.mountpoint} by {library[0]}"
    label = "read-only" if access.read_only and not settings.read_only else "credential"
    message += f"\n{label}: {access.reason}"

    def on_init() -> None:
        transfers.start()
        announce = threading.Thread(target=_announce, args=(settings.mountpoint, ready, message), daemon=True)
        announce.start()

    operations = Operations(
        filesystem,
        status=lambda: _status(settings, filesystem, store, fetcher, library[0], read_only),
        caller=lambda: binding.caller_of(library),
        on_ready=on_init,
    )
    try:
        options = _mount_options(settings, read_only)
        binding.serve(
            library,
            operations,
            str(settings.mountpoint),
            options,
            callers,
            timeout_seconds=settings.attr_timeout_seconds,
            kernel_threads=_kernel_threads(settings.memory_bytes),
        )
        _finish(filesystem)
    finally:
        transfers.close()
        store.close()


def _open(settings: MountSettings, callers: Callers) -> AzureStore:
    credential, retry = settings.credential, settings.retry
    return open_store(
        settings.account,
        settings.container,
        endpoint=settings.endpoint,
        credential=CredentialSources(
            connection_string_file=credential.connection_string_file,
            account_key_file=credential.account_key_file,
            sas_file=credential.sas_file,
            auth=credential.auth,
        ),
        ca_file=settings.ca_file,
        connections=settings.transfers.connections,
        total_seconds=retry.total_seconds,
        first_wait_seconds=retry.first_wait_seconds,
        longest_wait_seconds=retry.longest_wait_seconds,
        connect_seconds=retry.connect_seconds,
        read_seconds=retry.read_seconds,
        stall_seconds=retry.stall_seconds,
        callers=callers,
    )


def _disk_cache(settings: MountSettings, transfers: Transfers) -> DiskCache | None:
    if settings.cache_dir is None:
        return None
    return DiskCache(
        settings.cache_dir,
        # Bytes that one mount did not verify must not be believed by another that would have.
        f"{settings.endpoint}/{settings.account}/{settings.container} {settings.verify}",
        transfers,
        capacity_bytes=settings.cache_bytes,
        waiting_pieces=settings.reads.waiting_pieces,
    )


def _filesystem(
    settings: MountSettings,
    service: BlobStore,
    fetcher: Fetcher,
    transfers: Transfers,
    callers: Callers,
    *,
    read_only: bool,
) -> Filesystem:
    store = OwnWrites(service)
    names_bytes = settings.memory_bytes // NAMES_SHARE
    libfuse_bytes = _kernel_threads(settings.memory_bytes) * KERNEL_THREAD_BYTES
    pool = BufferPool(settings.memory_bytes - names_bytes - libfuse_bytes)
    largest_read_bytes = _power_of_two(pool.budget_bytes // 4)
    read_bytes = min(settings.reads.block_bytes, largest_read_bytes)
    checksums = Checksums(
        store, enabled=settings.verify != "off", unit_bytes=read_bytes, largest_bytes=largest_read_bytes
    )
    reader = BlobReader(
        RangeCache(
            fetcher,
            pool,
            fragment_bytes=settings.reads.fragment_bytes,
            capacity_bytes=pool.budget_bytes // 2,
            callers=callers,
        ),
        checksums,
        fetcher,
        transfers,
        block_bytes=read_bytes,
        sequential_bytes=settings.reads.sequential_bytes,
        settled_bytes=settings.reads.settled_bytes,
        tolerance_bytes=settings.reads.tolerance_bytes,
        most_tolerance_bytes=settings.reads.most_tolerance_bytes,
        ahead_blocks=settings.reads.ahead_blocks,
    )

    def make_writer(name: str, base: BlobInfo | None) -> BlobWriter:
        return BlobWriter(
            name,
            base,
            store=store,
            transfers=transfers,
            pool=pool,
            reader=reader,
            block_bytes=settings.block_size_bytes,
            largest_block_bytes=min(LARGEST_BLOCK_BYTES, pool.budget_bytes // 4),
            file_md5=settings.file_md5,
        )

    def make_file(name: str, inode: int, base: BlobInfo | None, attributes: Attributes) -> File:
        return File(
            name,
            inode,
            base,
            attributes,
            store=store,
            reader=reader,
            make_writer=make_writer,
            guess_headers=_guess_headers,
        )

    cache = TreeCache(ttl_seconds=settings.attr_timeout_seconds, capacity_bytes=names_bytes)
    limit = None if _is_emulator(settings) else MAX_BLOB_NAME_CHARACTERS
    uid = os.getuid() if settings.uid is None else settings.uid
    gid = os.getgid() if settings.gid is None else settings.gid
    volume = Volume(
        store=store,
        namespace=Namespace(store, cache, NameMap(normalized_prefix(settings.prefix), limit)),
        creators=Creators(within_seconds=settings.attr_timeout_seconds),
        reader=reader,
        transfers=transfers,
        defaults=Defaults.for_umask(uid, gid, settings.umask),
        read_only=read_only,
        make_file=make_file,
    )
    pool.add_reclaimer(volume.files.release_memory)
    return Filesystem(
        volume, open_bytes=settings.reads.open_bytes, exclusive_create=settings.exclusive_create
    )


def _power_of_two(limit_bytes: int) -> int:
    """Return the largest power of two up to the limit: what a buffer of the pool can be."""
    return 1 << (limit_bytes.bit_length() - 1)


def _kernel_threads(memory_bytes: int) -> int:
    """As many as an eighth of the memory has room for."""
    return max(2, min(KERNEL_THREADS, memory_bytes // (8 * KERNEL_THREAD_BYTES)))


def _is_emulator(settings: MountSettings) -> bool:
    """The emulator has no limit on names."""
    return settings.account == "devstoreaccount1"


def _guess_headers(name: str) -> ContentHeaders:
    content_type, encoding = mimetypes.guess_type(name, strict=False)
    if encoding is not None or content_type is None:
        # A .tar.gz is stored as it is: a Content-Encoding would have browsers unpack it.
        content_type = DEFAULT_CONTENT_TYPE
    return ContentHeaders(content_type=content_type)


def _mount_options(settings: MountSettings, read_only: bool) -> dict[str, str | bool]:
    options: dict[str, str | bool] = {
        "fsname": f"{settings.account}/{settings.container}",
        "subtype": "blobfs",
        "allow_other": settings.allow_other,
        "ro": read_only,
    }
    return {**options, **dict.fromkeys(settings.kernel_options, True)}


def _announce(mountpoint: Path, ready: Callable[[str], None], message: str) -> None:
    """Once the mount answers, raise its kernel read-ahead if that is allowed, and say that it is there."""
    with contextlib.suppress(OSError):  # the message says what users wait for; a lost mount says so itself
        device = os.stat(mountpoint).st_dev
        _raise_read_ahead(device)
    ready(message)


def _raise_read_ahead(device: int) -> None:
    path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        path.write_text(f"{READ_AHEAD_KIB}\n")
    except OSError as error:
        logger.info("kernel read-ahead stays as it is (%s): reads come in smaller requests", error.strerror)


def _status(
    settings: MountSettings,
    filesystem: Filesystem,
    store: AzureStore,
    fetcher: Fetcher,
    binding_name: str,
    read_only: bool,
) -> Mapping[str, Any]:
    uncommitted = filesystem.handles.uncommitted()
    return {
        "pid": os.getpid(),
        "account": settings.account,
        "container": settings.container,
        "prefix": settings.prefix,
        "read_only": read_only,
        "binding": binding_name,
        "requests": dict(store.requests),
        "damaged_replies": fetcher.damaged_replies,
        "uncommitted": [{"path": file.path, "reason": file.reason} for file in uncommitted],
    }


def _finish(filesystem: Filesystem) -> None:
    """Commit what is still open after the mount is gone. Raises Unavailable if something is not."""
    with contextlib.suppress(Failure):  # each file's own failure is named below
        filesystem.handles.sync("/")
    left = list(filesystem.handles.uncommitted())
    for file in left:
        logger.error("%s is not committed: %s", file.path, file.reason)
    if left:
        raise Unavailable(f"not committed: {', '.join(file.path for file in left)}")
