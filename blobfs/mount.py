"""The composition root: every object is made here, once, and handed the numbers it needs."""

import contextlib
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from blobfs.assembly import Content, content_of, fetcher_of, kernel_threads, names_bytes, open_service
from blobfs.azure.addresses import max_name_characters
from blobfs.callers import Callers
from blobfs.content.disk_cache import place_in
from blobfs.errors import CannotRun, Failure, Incomplete, raise_first
from blobfs.filesystem.asked_ahead import AskedAhead
from blobfs.filesystem.commits import WriteBack
from blobfs.filesystem.early_opens import EarlyOpens
from blobfs.filesystem.files import File
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.next_files import NextFiles
from blobfs.filesystem.own_writes import OwnWrites
from blobfs.filesystem.volume import Volume
from blobfs.format.attributes import Attributes, Defaults
from blobfs.format.headers import guessed_headers
from blobfs.format.names import NameMap, normalized_prefix
from blobfs.kernel import binding
from blobfs.kernel.device import is_unmounted
from blobfs.kernel.operations import Operations
from blobfs.kernel.read_ahead import raise_read_ahead
from blobfs.metrics import listen
from blobfs.open_files import raise_open_files, require_open_files
from blobfs.recover import open_spool, recover_before
from blobfs.settings import MountSettings
from blobfs.spool.directory import Spool
from blobfs.spool.journal import Unspooled
from blobfs.status import StatusSource
from blobfs.store import BlobInfo
from blobfs.transfers import Transfers
from blobfs.tree.cache import TreeCache
from blobfs.tree.copy_detector import CopyDetector
from blobfs.tree.namespace import Namespace
from blobfs.waits import TO_THE_END

logger = logging.getLogger(__name__)

AHEAD_SHARE = 4  # a quarter of the memory for reads may be taken by files that one copy has not come to
# Python's own 700 has every known name of a listing looked at again and again, and names are in no cycles.
OBJECTS_BEFORE_COLLECTION = 10_000
WAITING_SHARE = 4  # a quarter of the memory for data may be taken by closed files on their way


def check(settings: MountSettings) -> None:
    """Raise the Failure that `serve` would raise before it asks the service anything.

    InvalidArgument for a setting that cannot work, CannotRun without libfuse, with too few files that may
    be open, and for a taken address.
    """
    require_open_files()
    binding.load(settings.binding)
    open_service(settings.service, TO_THE_END).close()
    open_spool(settings)
    if settings.content.cache_dir is not None:
        place_in(settings.content.cache_dir)
    if settings.metrics is not None:
        listen(settings.metrics, dict).server_close()


def serve(settings: MountSettings, ready: Callable[[str], None], tell: Callable[[str], None]) -> None:
    """Mount and serve until unmounted (blocks). Calls ``ready(message)`` once the mount answers.

    Before that, ``tell(message)`` says what takes its time.

    Raises Failure when the mount cannot be made, or, after serving, when something could not
    be committed; each such file is in the log.
    """
    gc.set_threshold(OBJECTS_BEFORE_COLLECTION)
    library = binding.load(settings.binding)
    callers = Callers(lambda: binding.caller_of(library)[2], is_unmounted)
    service = settings.service
    store = open_service(service, callers)
    if settings.create_container:
        store.create_container()
    access = store.probe()
    read_only = settings.read_only or access.read_only
    transfers = Transfers(
        reads=service.transfers.reads,
        writes=service.transfers.writes,
        begin_read=callers.work_for_all,
    )
    spool = open_spool(settings)
    fetcher = fetcher_of(settings.content, service, store, transfers)
    own_writes = OwnWrites(store)
    content = content_of(settings.content, own_writes, fetcher, transfers, callers)
    volume = _volume(settings, own_writes, content, callers, spool, read_only=read_only)
    filesystem = _filesystem(settings, volume, content, callers)
    status = StatusSource(
        settings=settings,
        filesystem=filesystem,
        store=store,
        fetcher=fetcher,
        content=content,
        binding_name=library.kind,
        read_only=read_only,
    )
    message = f"{service.account}/{service.container} is mounted on {settings.mountpoint} by {library.kind}"
    label = "read-only" if access.read_only and not settings.read_only else "credential"
    message += f"\n{label}: {access.reason}"
    if spool is not None:
        message += recover_before(settings, store, spool, tell, read_only=read_only)
    endpoint = listen(settings.metrics, status.gather) if settings.metrics is not None else None

    refusals: list[Failure] = []

    def on_init() -> None:
        try:
            transfers.start()
            if endpoint is not None:
                endpoint.start()
            announcing = (settings.mountpoint, ready, message)
            threading.Thread(target=_announce, args=announcing, daemon=True).start()
        except RuntimeError as error:  # otherwise the kernel would wait for who cannot answer
            cure = "Raise the limit on processes (ulimit -u) or on memory (ulimit -v), or that of the job."
            refusals.append(CannotRun(f"{settings.mountpoint}: cannot be served: {error}. {cure}"))
            os.kill(os.getpid(), signal.SIGTERM)

    operations = Operations(
        filesystem,
        status=status.gather,
        caller=lambda: binding.caller_of(library),
        on_ready=on_init,
    )
    try:
        options = _mount_options(settings, read_only=read_only)
        binding.serve(
            library,
            operations,
            str(settings.mountpoint),
            options,
            callers,
            timeout_seconds=settings.attr_timeout_seconds,
            kernel_threads=kernel_threads(settings.content.memory_bytes),
        )
        raise_first(refusals)
        _finish(filesystem)
    finally:
        callers.dismiss()
        transfers.close()
        store.close()
        if spool is not None:
            spool.close()
        if endpoint is not None:
            endpoint.server_close()


def _volume(
    settings: MountSettings,
    store: OwnWrites,
    content: Content,
    callers: Callers,
    spool: Spool | None,
    *,
    read_only: bool,
) -> Volume:
    def make_file(name: str, inode: int, base: BlobInfo | None, attributes: Attributes) -> File:
        return File(
            name,
            inode,
            base,
            attributes,
            store=store,
            reader=content.reader,
            make_writer=content.make_writer,
            guess_headers=guessed_headers,
            make_journal=spool.journal if spool is not None else Unspooled,
        )

    cache = TreeCache(
        ttl_seconds=settings.attr_timeout_seconds, capacity_bytes=names_bytes(settings.content.memory_bytes)
    )
    names = NameMap(normalized_prefix(settings.prefix), max_name_characters(settings.service.account))
    uid = os.getuid() if settings.uid is None else settings.uid
    gid = os.getgid() if settings.gid is None else settings.gid
    volume = Volume(
        store=store,
        namespace=Namespace(
            store, cache, names, content.transfers, callers, close_to_open=settings.close_to_open
        ),
        copy_detector=CopyDetector(within_seconds=settings.attr_timeout_seconds, program=callers.program),
        reader=content.reader,
        first_bytes=content.first_bytes,
        warming=content.warming,
        transfers=content.transfers,
        defaults=Defaults.for_umask(uid, gid, settings.umask),
        read_only=read_only,
        make_file=make_file,
    )
    content.pool.add_reclaimer(volume.files.release_memory)
    return volume


def _filesystem(settings: MountSettings, volume: Volume, content: Content, callers: Callers) -> Filesystem:
    asked_ahead = AskedAhead(volume, callers)
    next_files = NextFiles(
        volume,
        callers,
        asked_ahead,
        open_bytes=settings.content.reads.open_bytes,
        whole_bytes=_whole_ahead_bytes(settings, content),
        ahead_files=settings.content.reads.ahead_files,
        within_seconds=settings.attr_timeout_seconds,
    )
    return Filesystem(
        volume,
        next_files,
        EarlyOpens(volume, callers, asked_ahead, open_bytes=settings.content.reads.open_bytes),
        open_bytes=settings.content.reads.open_bytes,
        exclusive_create=settings.exclusive_create,
        write_back=_write_back(settings, content) if settings.writeback else None,
    )


def _write_back(settings: MountSettings, content: Content) -> WriteBack:
    return WriteBack(
        files=min(settings.service.transfers.waiting_files, raise_open_files() // 2),
        buffered_bytes=content.pool.budget_bytes // WAITING_SHARE,
    )


def _whole_ahead_bytes(settings: MountSettings, content: Content) -> int:
    """Return up to which size files come whole ahead: those of one copy must leave memory to others."""
    share_bytes = content.ranges.capacity_bytes // (AHEAD_SHARE * settings.content.reads.ahead_files)
    return min(settings.content.reads.ahead_bytes, share_bytes)


def _mount_options(settings: MountSettings, *, read_only: bool) -> dict[str, str | bool]:
    options: dict[str, str | bool] = {
        "fsname": f"{settings.service.account}/{settings.service.container}",
        "subtype": "blobfs",
        "allow_other": settings.allow_other,
        "ro": read_only,
    }
    return {**options, **dict.fromkeys(settings.kernel_options, True)}


def _announce(mountpoint: Path, ready: Callable[[str], None], message: str) -> None:
    """Once the mount answers, raise its kernel read-ahead if that is allowed, and say that it is there."""
    with contextlib.suppress(OSError):  # the message says what users wait for; a lost mount says so itself
        device = os.stat(mountpoint).st_dev
        raise_read_ahead(device)
    ready(message)


def _finish(filesystem: Filesystem) -> None:
    """Commit what is still open after the mount is gone. Raises Incomplete if something is not."""
    with contextlib.suppress(Failure):  # each file's own failure is named below
        filesystem.sync("/")
    left = list(filesystem.uncommitted())
    for file in left:
        logger.error("%s is not committed: %s", file.path, file.reason)
    if left:
        raise Incomplete(f"not committed: {', '.join(file.path for file in left)}")
