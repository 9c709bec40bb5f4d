"""The composition root of recovery: what a crash left in a spool directory, before a mount or on command."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice

from blobfs.assembly import content_of, fetcher_of, open_service
from blobfs.errors import Failure
from blobfs.format.names import normalized_prefix
from blobfs.settings import ContentSettings, MountSettings, ServiceSettings
from blobfs.spool.directory import Spool
from blobfs.spool.leftovers import Leftover, State
from blobfs.spool.recovery import Recovery
from blobfs.store import BlobStore
from blobfs.transfers import Transfers
from blobfs.waits import TO_THE_END

logger = logging.getLogger(__name__)

OPEN_LEFTOVERS = 64  # held at a time: more than are committed at once


def open_spool(settings: MountSettings) -> Spool | None:
    """Return the spool of a mount, None if it has none. Raises InvalidArgument unless it is private."""
    if settings.spool_dir is None:
        return None
    service, prefix = settings.service, normalized_prefix(settings.prefix)
    return Spool(settings.spool_dir, service.account, service.container, prefix)


@contextmanager
def _threads(service: ServiceSettings) -> Iterator[Transfers]:
    """Give the threads, which must not be there before the last fork."""
    transfers = Transfers(reads=service.transfers.reads, writes=service.transfers.writes)
    transfers.start()
    try:
        yield transfers
    finally:
        transfers.close()


def _recovery(
    settings: ContentSettings, service: ServiceSettings, store: BlobStore, transfers: Transfers
) -> Recovery:
    fetcher = fetcher_of(settings, service, store, transfers)
    content = content_of(settings, store, fetcher, transfers, TO_THE_END)
    return Recovery(store, make_writer=content.make_writer, reader=content.reader, pool=content.pool)


@contextmanager
def recovery_on_command(service: ServiceSettings, settings: ContentSettings) -> Iterator[Recovery]:
    """Give what commits and saves leftovers, with a connection of its own. Raises InvalidArgument."""
    with closing(open_service(service, TO_THE_END)) as store, _threads(service) as transfers:
        yield _recovery(settings, service, store, transfers)


def recover_before(
    settings: MountSettings, store: BlobStore, spool: Spool, tell: Callable[[str], None], *, read_only: bool
) -> str:
    """Commit what crashed mounts were asked to commit; return lines that tell of it, and of what is left.

    Blocks, and tells what it is doing. A failure is logged, and what it concerns is left.
    """
    committed_count = 0 if read_only else _commit_all(settings, store, spool, tell)
    lines = [f"\nspool: files committed that a crash had left: {committed_count}"] if committed_count else []
    left = []
    for leftover in spool.leftovers():
        with closing(leftover):
            logger.warning("%s is left in the spool: %s", leftover.name, leftover.state.value)
            left.append(leftover)
    lines += [f"\nspool: {leftover.name} is left: {leftover.state.value}" for leftover in left]
    return "".join([*lines, f"\nsee: {spool.cure}"] if left else lines)


def _commit_all(settings: MountSettings, store: BlobStore, spool: Spool, tell: Callable[[str], None]) -> int:
    count = 0
    with _threads(settings.service) as transfers:
        recovery = _recovery(settings.content, settings.service, store, transfers)
        commit = partial(_commit, recovery, tell)
        leftovers = spool.leftovers()
        while batch := list(islice(leftovers, OPEN_LEFTOVERS)):
            count += sum(transfers.for_each(commit, batch))
    return count


def _commit(recovery: Recovery, tell: Callable[[str], None], leftover: Leftover) -> bool:
    """Commit a leftover that somebody closed; tell whether that was done."""
    with closing(leftover):
        if leftover.state is not State.TO_COMMIT:
            return False
        tell(f"committing {leftover.name}, which a crash had left: {leftover.journal_bytes} bytes")
        try:
            recovery.commit(leftover)
        except Failure as failure:
            logger.error("%s was left by a crash and is not committed: %s", leftover.name, failure)
            return False
        logger.info("%s was left by a crash and is committed now", leftover.name)
        return True
