"""The composition root of copies and comparisons without a mount."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from blobfs.assembly import Content, content_of, fetcher_of, open_service
from blobfs.azure.addresses import max_name_characters
from blobfs.azure.store import AzureStore
from blobfs.copy_session import Session, Trees
from blobfs.copying.comparing import Comparer
from blobfs.copying.interruption import Interruption
from blobfs.copying.meter import Meter
from blobfs.copying.report import Report
from blobfs.copying.selection import Selection
from blobfs.copying.units import Units
from blobfs.copying.uploading import Style, Uploader
from blobfs.format.headers import guessed_headers
from blobfs.proc import umask
from blobfs.settings import CopySettings, ServiceSettings, SessionSettings
from blobfs.store import ContentHeaders
from blobfs.transfers import Transfers


class Containers:
    """Those of one account that a copy has to do with, each opened once. Safe to use from many threads."""

    def __init__(self, service: ServiceSettings, interruption: Interruption) -> None:
        self._service = service
        self._interruption = interruption
        self._lock = threading.Lock()  # guards the map
        self._stores: dict[str, AzureStore] = {}

    def store_of(self, name: str) -> AzureStore:
        """Return the store of a container, which `close` closes. Sends nothing. Raises InvalidArgument."""
        with self._lock:
            if name not in self._stores:
                service = replace(self._service, container=name)
                self._stores[name] = open_service(service, self._interruption)
            return self._stores[name]

    def close(self) -> None:
        """Close all that were opened."""
        for store in self._stores.values():
            store.close()


@contextmanager
def session(
    settings: SessionSettings,
    report: Report,
    interruption: Interruption,
) -> Iterator[Session]:
    """Give what copies and checks; the report has what becomes of it, and its watcher hears of it at once.

    Raises InvalidArgument for settings that cannot work, before anything is sent.
    """
    service, wishes = settings.service, settings.copy
    selection = Selection(wishes.include, wishes.exclude)
    meter = Meter(
        interruption, limit_bytes_per_second=wishes.limit_bytes_per_second, watch=report.watcher.moved
    )
    transfers = Transfers(reads=service.transfers.reads, writes=service.transfers.writes)
    with closing(Containers(service, interruption)) as containers, closing(transfers):
        store = containers.store_of(service.container)
        transfers.start()
        # What no stored checksum covers comes with one that the service makes of the reply.
        verify = "all" if settings.content.verify == "blocks" else settings.content.verify
        fetcher = fetcher_of(replace(settings.content, verify=verify), service, store, transfers)
        content = content_of(settings.content, store, fetcher, transfers, interruption)
        units = Units(
            content.reader,
            content.pool,
            transfers,
            meter,
            ahead=settings.content.reads.ahead_blocks,
            verifies=settings.content.verify != "off",
        )
        comparer = Comparer(units, content.pool, meter, reads_all=wishes.reads_all)
        yield Session(
            settings=settings,
            interruption=interruption,
            report=report,
            meter=meter,
            trees=Trees(
                store,
                containers.store_of,
                max_name_characters(service.account),
                selection,
                wishes.symlinks,
                follows_sources=not wishes.recursive,
            ),
            content=content,
            units=units,
            comparer=comparer,
            uploader=_uploader(wishes, store, content, meter),
        )


def _uploader(wishes: CopySettings, store: AzureStore, content: Content, meter: Meter) -> Uploader:
    def headers_for(name: str) -> ContentHeaders:
        given = wishes.content_type
        return ContentHeaders(content_type=given) if given else guessed_headers(name)

    return Uploader(
        store,
        content.pool,
        meter,
        Style(
            preserves=wishes.preserves,
            uid=os.getuid(),
            gid=os.getgid(),
            umask=umask(),
            headers_for=headers_for,
            tier=wishes.tier,
        ),
        make_writer=content.make_writer,
        block_bytes=content.block_bytes,
        largest_block_bytes=content.largest_block_bytes,
    )
