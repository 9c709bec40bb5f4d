"""The whole examination, in the order in which one thing depends on another."""

from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from blobfs.assembly import open_service
from blobfs.azure.addresses import is_loopback
from blobfs.azure.inspection import Inspector
from blobfs.azure.store import AzureStore
from blobfs.doctor.findings import Finding, Level, note, ok, problem
from blobfs.doctor.machine import Machine
from blobfs.doctor.network import examine_address, examine_bandwidth, examine_latency
from blobfs.doctor.service import examine_account, examine_clock, examine_credential
from blobfs.errors import Failure
from blobfs.kernel.versions import libfuse_versions
from blobfs.settings import ServiceSettings
from blobfs.store import BlobInfo
from blobfs.waits import TO_THE_END

CURE_OF_SILENCE = (
    "Check the account's name, --endpoint, firewalls and private endpoints, then run this again."
)


def check(settings: ServiceSettings) -> None:
    """Raise InvalidArgument for settings that cannot work. Sends nothing."""
    open_service(settings, TO_THE_END).close()


def examine(settings: ServiceSettings, *, memory_bytes: int, measures_bandwidth: bool) -> Iterator[Finding]:
    """Yield findings as they are made, for a mount that may take so much memory.

    Blocks for requests; none of them changes anything.
    """
    yield from Machine(libfuse_versions(), memory_bytes).examine()
    with closing(open_service(settings, TO_THE_END)) as store:
        try:
            yield from _examine_service(store, measures_bandwidth=measures_bandwidth)
        except Failure as failure:
            yield problem("service", str(failure), CURE_OF_SILENCE)


def _examine_service(store: AzureStore, *, measures_bandwidth: bool) -> Iterator[Finding]:
    inspector = store.inspector()
    parts = urlsplit(store.origin)
    host = parts.hostname or ""
    if proxy := _proxy(parts.scheme, host):
        yield ok("proxy", f"requests go through {_without_secrets(proxy)}")
    else:
        address = examine_address(host)
        yield address
        if address.level is Level.PROBLEM:
            return
    first = inspector.try_to("list")
    yield ok("connection", f"{parts.netloc} answers by {parts.scheme}")
    yield examine_clock(first)
    yield examine_latency(inspector)
    yield from examine_credential(inspector, store.dealings(), first)
    if not first.refusal:
        blobs = list(inspector.some_blobs())
        yield from examine_account(inspector, blobs)
        if measures_bandwidth:
            yield from _examine_bandwidth(inspector, blobs)


def _examine_bandwidth(inspector: Inspector, blobs: list[BlobInfo]) -> Iterator[Finding]:
    try:
        yield from examine_bandwidth(inspector, blobs)
    except Failure as failure:
        yield note("bandwidth", f"not measured: {failure}")


def _proxy(scheme: str, host: str) -> str:
    """Return the proxy through which requests go, empty for none."""
    if scheme != "https" or is_loopback(host) or proxy_bypass(host):
        return ""
    return getproxies_environment().get("https", "")


def _without_secrets(proxy: str) -> str:
    """Return the proxy's address without the user and password that may stand in it."""
    parts = urlsplit(proxy)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
