"""The way to the service: its address, how long an answer takes, and how many bytes come through."""

import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from blobfs.azure.inspection import Inspector
from blobfs.blocks import KiB, MiB
from blobfs.doctor.findings import Finding, note, ok, problem
from blobfs.store import BlobInfo

LATENCY_QUESTIONS = 5
SLOW_SECONDS = 0.2  # as between continents
BANDWIDTH_SECONDS = 2.0
CONNECTIONS = 16  # as many as a mount reads with
PIECE_BYTES = 4 * MiB
LEAST_BYTES = 256 * KiB  # of a blob that bandwidth can be measured with
ARCHIVE = "Archive"  # the tier whose blobs cannot be read


def examine_address(host: str) -> Finding:
    """Look the host's name up."""
    began = time.monotonic()
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        cure = "Is the account's name right, and does this machine reach a name server (/etc/resolv.conf)?"
        return problem("DNS", f"{host} cannot be found: {error.strerror}", cure)
    milliseconds = (time.monotonic() - began) * 1000
    addresses = ", ".join(sorted({str(entry[4][0]) for entry in found}))
    return ok("DNS", f"{host} is {addresses}, in {milliseconds:.0f} ms")


def examine_latency(inspector: Inspector) -> Finding:
    """Ask something small several times over a connection that is open."""
    seconds = [inspector.try_to("read").seconds for _ in range(LATENCY_QUESTIONS)]
    middle = statistics.median(seconds)
    text = f"{middle * 1000:.1f} ms for a small request, at best {min(seconds) * 1000:.1f} ms"
    if middle > SLOW_SECONDS:
        return note("latency", text, "Run jobs in the region of the account; small files will be slow.")
    return ok("latency", text)


def examine_bandwidth(inspector: Inspector, blobs: Sequence[BlobInfo]) -> Iterator[Finding]:
    """Read from the largest of these blobs that can be read, by one connection and by several.

    Raises Failure.
    """
    online = [blob for blob in blobs if blob.tier != ARCHIVE]
    blob = max(online, key=lambda each: each.size_bytes, default=None)
    if blob is None or blob.size_bytes < LEAST_BYTES:
        yield note("bandwidth", f"not measured: no blob of {LEAST_BYTES // KiB} KiB was found to read from")
        return
    for connections in (1, CONNECTIONS):
        bytes_per_second = _measure(lambda ends_at: _read_until(inspector, blob, ends_at), connections)
        plural = "s" if connections > 1 else ""
        text = f"{bytes_per_second / MiB:.1f} MiB/s received by {connections} connection{plural}"
        yield ok("bandwidth", text)


def _measure(task: Callable[[float], int], workers: int) -> float:
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as threads:
        received = sum(threads.map(task, [began + BANDWIDTH_SECONDS] * workers))
    return received / (time.monotonic() - began)


def _read_until(inspector: Inspector, blob: BlobInfo, ends_at: float) -> int:
    """Read pieces of the blob, again and again, until that time; return how many bytes came."""
    buffer = memoryview(bytearray(min(PIECE_BYTES, blob.size_bytes)))
    received = start = 0
    while time.monotonic() < ends_at:
        received += inspector.read(blob, start, buffer)
        start = start + len(buffer) if start + 2 * len(buffer) <= blob.size_bytes else 0
    return received
