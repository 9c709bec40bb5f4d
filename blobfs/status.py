"""What a mount says of itself: one value with everything, gathered when somebody asks, and kept nowhere."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from blobfs import __version__
from blobfs.assembly import Content
from blobfs.azure.client import Dealings
from blobfs.azure.store import AzureStore
from blobfs.blocks import KiB
from blobfs.content.fetcher import Fetcher
from blobfs.filesystem.commits import Uncommitted
from blobfs.filesystem.filesystem import Filesystem
from blobfs.prices import cost_usd
from blobfs.settings import MountSettings

# An extended attribute has room for 64 KiB (xattr(7)), and settings and counters want some of it.
NAMED_BYTES = 32 * KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSource:
    """The parts of a mount that know something. `gather` may be called from any thread at any time."""

    settings: MountSettings
    filesystem: Filesystem
    store: AzureStore
    fetcher: Fetcher
    content: Content
    binding_name: str
    read_only: bool
    began_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    began_monotonic: float = field(default_factory=time.monotonic)

    def gather(self) -> dict[str, Any]:
        """Return everything, as JSON knows it. Waits for no request and no file."""
        dealings = self.store.dealings()
        return {
            **self._mount(),
            **_credential(dealings),
            **_service(dealings),
            **self._caches(),
            **_uncommitted(list(self.filesystem.uncommitted())),
        }

    def _mount(self) -> dict[str, Any]:
        settings, programs = self.settings, self.filesystem.handles.counts.totals()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "account": settings.service.account,
            "container": settings.service.container,
            "prefix": settings.prefix,
            "read_only": self.read_only,
            "binding": self.binding_name,
            "began": self.began_at.isoformat(timespec="seconds"),
            "uptime_seconds": round(time.monotonic() - self.began_monotonic, 3),
            "settings": {name: _plain(value) for name, value in settings.by_name().items()},
            "program_read_bytes": programs["read_bytes"],
            "program_written_bytes": programs["written_bytes"],
        }

    def _caches(self) -> dict[str, Any]:
        ranges, pool, disk = self.content.ranges, self.content.pool, self.fetcher.disk
        memory, fetched = ranges.counts.totals(), self.fetcher.counts.totals()
        status: dict[str, Any] = {
            "memory_bytes": pool.in_use_bytes,
            "memory_limit_bytes": pool.budget_bytes,
            "memory_cache_hits": memory["hits"],
            "memory_cache_misses": memory["misses"],
            "memory_cache_bytes": ranges.held_bytes,
            "memory_cache_limit_bytes": ranges.capacity_bytes,
            "damaged_replies": fetched["damaged"],
        }
        if disk is not None:
            status |= {
                "disk_cache_hits": fetched["hits"],
                "disk_cache_misses": fetched["misses"],
                "disk_cache_bytes": disk.held_bytes,
                "disk_cache_limit_bytes": disk.capacity_bytes,
            }
        return status


def _credential(dealings: Dealings) -> dict[str, Any]:
    ends = dealings.expires_at
    left_seconds = None if ends is None else round((ends - datetime.now(timezone.utc)).total_seconds())
    return {
        "credential": dealings.credential_name,
        "credential_kind": dealings.credential_kind,
        "credential_expires": None if ends is None else ends.isoformat(timespec="seconds"),
        "credential_left_seconds": left_seconds,
    }


def _service(dealings: Dealings) -> dict[str, Any]:
    traffic = dealings.traffic
    return {
        "service_answers": dealings.is_answering,
        "requests": dict(dealings.requests),
        "requests_in_flight": dealings.in_flight,
        "requests_in_flight_limit": dealings.in_flight_limit,
        "retries": traffic["retries"],
        "busy_replies": traffic["busy_replies"],
        "received_bytes": traffic["received_bytes"],
        "sent_bytes": traffic["sent_bytes"],
        "cost_usd": round(cost_usd(dealings.requests), 6),
    }


def _uncommitted(files: Iterable[Uncommitted]) -> dict[str, Any]:
    """Count all files, and name as many as there is room for, those first that have failed."""
    named: list[Mapping[str, Any]] = []
    room_bytes, count, size_bytes = NAMED_BYTES, 0, 0
    for file in sorted(files, key=lambda file: not file.has_failed):
        count, size_bytes = count + 1, size_bytes + file.size_bytes
        entry = {"path": file.path, "reason": file.reason, "has_failed": file.has_failed}
        room_bytes -= len(json.dumps(entry))
        if room_bytes >= 0:
            named.append(entry)
    return {"uncommitted_files": count, "uncommitted_bytes": size_bytes, "uncommitted": named}


def _plain(value: Any) -> Any:
    """Return a setting as JSON knows it."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, Path) else value
