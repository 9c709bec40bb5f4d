"""How fast the responder itself is: ``python -m responder.measure``. Needs curl.

Figures are of this machine and moment; clients and responder share its processors.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import urlsplit

from certificates import make_certificate

from responder.control import Responder
from responder.memory import MiB
from responder.recipes import Recipe

RANGE_BYTES = 8 * MiB
LARGE_BYTES = 2048 * MiB
SMALL_BYTES = 4096
SMALL_REQUESTS = 20_000
LISTED_BLOBS = 100_000
WORKERS = (1, 2, 4)


def main() -> None:
    """Print one line for each figure."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        for title, responder in (("plain", Responder()), ("TLS", Responder(*certificate))):
            with prepared(responder):
                for workers in WORKERS:
                    measure_reads(title, responder, workers, Path(folder))
        for title, responder in (("kept", Responder()), ("discarded", Responder(discards_bodies=True))):
            with prepared(responder):
                for workers in WORKERS:
                    measure_uploads(title, responder, workers, Path(folder))
        with prepared(Responder()) as responder:
            for workers in WORKERS:
                measure_small_reads(responder, workers)
            measure_listing(responder)


@contextmanager
def prepared(responder: Responder) -> Iterator[Responder]:
    """Start a responder with one large blob, touched once."""
    with responder:
        responder.create_container("bench")
        responder.make_blobs("bench", Recipe("large", size_bytes=LARGE_BYTES, has_md5=False))
        yield responder


def measure_reads(title: str, responder: Responder, workers: int, folder: Path) -> None:
    """Read the large blob in ranges by several curl processes."""
    ranges = [
        f'url = "{responder.endpoint}/bench/large"\nrange = "{start}-{start + RANGE_BYTES - 1}"\n'
        'output = "/dev/null"\n'
        for start in range(0, LARGE_BYTES, RANGE_BYTES)
    ]
    seconds, cpu_seconds = curl(responder, ranges, workers, folder)
    report_bytes(f"GET 8 MiB ranges, {title}", workers, seconds, cpu_seconds)


def measure_uploads(title: str, responder: Responder, workers: int, folder: Path) -> None:
    """Put as many blobs of 8 MiB, without a checksum of the client's."""
    source = folder / "body"
    source.write_bytes(bytes(RANGE_BYTES))
    uploads = [
        f'url = "{responder.endpoint}/bench/staged?comp=block&blockid={number:08d}"\n'
        f'upload-file = "{source}"\noutput = "/dev/null"\nheader = "Expect:"\n'
        for number in range(LARGE_BYTES // RANGE_BYTES // 2)
    ] * 2
    seconds, cpu_seconds = curl(responder, uploads, workers, folder)
    report_bytes(f"PUT 8 MiB blocks, {title}", workers, seconds, cpu_seconds)


def curl(responder: Responder, requests: Sequence[str], workers: int, folder: Path) -> tuple[float, float]:
    """Share requests among curl processes; return the time that took, and the responder's CPU time."""
    commands = []
    for worker in range(workers):
        configuration = folder / f"curl-{worker}"
        share = (f"silent\ninsecure\n{request}" for request in requests[worker::workers])
        configuration.write_text("next\n".join(share))
        commands.append(["curl", "--config", str(configuration)])
    before, started_at = responder.counters, time.monotonic()
    processes = [subprocess.Popen(command) for command in commands]
    for process in processes:
        process.wait()
    seconds = time.monotonic() - started_at
    after = responder.counters
    answered = sum(after.requests.values()) - sum(before.requests.values())
    if answered != len(requests) or max(after.statuses) >= 300:
        raise RuntimeError(f"{answered} of {len(requests)} requests were answered: {after.statuses}")
    return seconds, after.cpu_seconds - before.cpu_seconds


def report_bytes(title: str, workers: int, seconds: float, cpu_seconds: float) -> None:
    """Print throughput, and what a GiB cost the responder."""
    rate = LARGE_BYTES / seconds / 1e9
    cost = cpu_seconds / (LARGE_BYTES / 1024**3)
    print(f"{title:32} {workers:2} curl  {rate:6.2f} GB/s  {cost:6.3f} CPU s/GiB")


def measure_small_reads(responder: Responder, workers: int) -> None:
    """Read 4 KiB again and again, with a client that does nothing else."""
    before = responder.counters.cpu_seconds
    share = SMALL_REQUESTS // workers
    started_at = time.monotonic()
    with get_context("fork").Pool(workers) as pool:
        pool.starmap(read_small, [(responder.endpoint, share)] * workers)
    seconds = time.monotonic() - started_at
    cost = (responder.counters.cpu_seconds - before) / SMALL_REQUESTS * 1e6
    rate = SMALL_REQUESTS / seconds
    print(f"{'GET 4 KiB ranges, plain':32} {workers:2} proc  {rate:6.0f} /s     {cost:6.1f} CPU µs each")


def read_small(endpoint: str, count: int) -> None:
    """Send one request after the other over one connection, as fast as it goes."""
    parts = urlsplit(endpoint)
    request = (
        f"GET {parts.path}/bench/large HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: measure\r\n"
        "x-ms-version: 2023-11-03\r\nx-ms-client-request-id: 00000000-0000-0000-0000-000000000000\r\n"
        f"x-ms-range: bytes=0-{SMALL_BYTES - 1}\r\nIf-Match: *\r\nAccept-Encoding: identity\r\n\r\n"
    ).encode()
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        for _ in range(count):
            connection.sendall(request)
            received = connection.recv(2 * SMALL_BYTES)
            end = received.index(b"\r\n\r\n") + 4 + SMALL_BYTES
            while len(received) < end:
                received += connection.recv(end - len(received))


def measure_listing(responder: Responder) -> None:
    """List very many blobs, page by page, with metadata; the second time is the one that counts."""
    recipe = Recipe("d{directory:04}/f{index:06}", LISTED_BLOBS, 1000, size_bytes=SMALL_BYTES)
    responder.make_blobs("bench", recipe)
    for title in ("first", "again"):
        seconds, pages = list_all(responder)
        print(f"{f'LIST {LISTED_BLOBS} blobs, {title}':32} {pages:2} pages {seconds:6.2f} s")


def list_all(responder: Responder) -> tuple[float, int]:
    """Return how long a complete listing took, and of how many pages it was."""
    connection, marker, pages = responder.connection(), "", 0
    path = f"/{responder.account}/bench?restype=container&comp=list&include=metadata"
    started_at = time.monotonic()
    while pages == 0 or marker:
        connection.request("GET", f"{path}&marker={marker}")
        page = connection.getresponse().read().decode()
        marker = page.partition("<NextMarker>")[2].partition("<")[0]
        pages += 1
    connection.close()
    return time.monotonic() - started_at, pages


if __name__ == "__main__":
    main()
