"""The numbers of a mount's status as Prometheus text, and an endpoint on this machine to read them from."""

import errno
import os
import socket
import socketserver
from collections.abc import Callable, Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import MetricsHandler
from prometheus_client.registry import Collector

from blobfs.errors import CannotRun, InvalidArgument

REQUEST_SECONDS = 10.0  # for a reader to say what it wants

COUNTERS = {
    "program_read_bytes": "Bytes that programs have read.",
    "program_written_bytes": "Bytes that programs have written.",
    "received_bytes": "Bytes of replies' bodies from the service.",
    "sent_bytes": "Bytes of requests' bodies to the service.",
    "retries": "Attempts after the first one of a request.",
    "busy_replies": "Replies by which the service asked for fewer requests.",
    "damaged_replies": "Times that bytes did not match their checksum.",
    "memory_cache_hits": "Reads that found their bytes in memory.",
    "memory_cache_misses": "Reads that waited for bytes from disk or the service.",
    "disk_cache_hits": "Fetches that found their bytes on disk.",
    "disk_cache_misses": "Fetches that did not find their bytes on disk.",
    "cost_usd": "What the requests would cost by the service's sample prices.",
}
GAUGES = {
    "uptime_seconds": "Time since the mount began.",
    "credential_left_seconds": "Time until the credential ends; absent if it is renewed or does not say.",
    "service_answers": "1 unless the service is given up for now.",
    "requests_in_flight": "Requests under way.",
    "requests_in_flight_limit": "Requests that may be under way; fewer while the service is busy.",
    "uncommitted_files": "Files and directories of which the service does not have everything.",
    "uncommitted_bytes": "Bytes written that the service does not have as part of their file.",
    "memory_bytes": "Memory in use for data.",
    "memory_limit_bytes": "Memory for data.",
    "memory_cache_bytes": "Bytes in the memory cache.",
    "memory_cache_limit_bytes": "Room of the memory cache.",
    "disk_cache_bytes": "Bytes in the disk cache; absent until the mount has written there.",
    "disk_cache_limit_bytes": "Room of the disk cache.",
}

Gather = Callable[[], Mapping[str, Any]]


class StatusCollector(Collector):
    """Turns a status into metrics; what the status does not know is left out."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of a status gathered now."""
        status = self._gather()
        about = {name: str(status[name]) for name in ("account", "container", "prefix", "version", "binding")}
        mount = GaugeMetricFamily("blobfs_mount", "What is mounted.", labels=list(about))
        mount.add_metric(list(about.values()), 1)
        yield mount
        requests = CounterMetricFamily("blobfs_requests", "Requests sent, by kind.", labels=["kind"])
        for kind, count in status["requests"].items():
            requests.add_metric([kind], count)
        yield requests
        for name, description in COUNTERS.items():
            if name in status:
                yield CounterMetricFamily(f"blobfs_{name}", description, status[name])
        for name, description in GAUGES.items():
            if status.get(name) is not None:
                yield GaugeMetricFamily(f"blobfs_{name}", description, status[name])


def registry_of(gather: Gather) -> CollectorRegistry:
    """Return a registry with nothing but the mount's numbers, gathered at each reading."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(gather))
    return registry


class Endpoint(ThreadingHTTPServer):
    """Answers scrapes on a loopback address. Bound when it is made; answers from `start` on."""

    daemon_threads = True

    def __init__(self, host: str, port: int, gather: Gather) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _handler_of(gather))

    def server_bind(self) -> None:
        """Bind, without asking a name server who we are."""
        socketserver.TCPServer.server_bind(self)

    def start(self) -> None:
        """Answer from a thread of its own."""
        Thread(target=self.serve_forever, name="blobfs-metrics", daemon=True).start()


class SocketEndpoint(Endpoint):
    """The same on a UNIX socket, for its owner only."""

    address_family = socket.AF_UNIX

    def __init__(self, path: Path, gather: Gather) -> None:
        self._path = path
        # The published types know of hosts and ports only.
        ThreadingHTTPServer.__init__(self, cast(Any, str(path)), _handler_of(gather))

    def server_bind(self) -> None:
        """Bind, in the place of a socket on which nobody listens any more. Raises OSError."""
        if self._path.is_socket() and not _is_served(self._path):
            self._path.unlink()
        mask = os.umask(0o177)
        try:
            super().server_bind()
        finally:
            os.umask(mask)

    def server_close(self) -> None:
        """Stop listening, and leave no file behind; what kept the socket from being made is not ours."""
        was_made = bool(self.socket.getsockname())
        super().server_close()
        if was_made:
            self._path.unlink(missing_ok=True)


def listen(address: tuple[str, int] | Path, gather: Gather) -> Endpoint:
    """Return an endpoint that is to be started.

    Raises CannotRun if somebody else has the address, InvalidArgument if it cannot be had.
    """
    place = address if isinstance(address, Path) else "{}:{}".format(*address)
    try:
        if isinstance(address, Path):
            return SocketEndpoint(address, gather)
        return Endpoint(*address, gather)
    except OSError as error:
        failure = CannotRun if error.errno == errno.EADDRINUSE else InvalidArgument
        reason = error.strerror or error
        raise failure(f"cannot serve metrics on {place}: {reason}; give --metrics another one") from error


def _handler_of(gather: Gather) -> type[MetricsHandler]:
    class Handler(MetricsHandler):
        registry = registry_of(gather)
        timeout = REQUEST_SECONDS

    return Handler


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
