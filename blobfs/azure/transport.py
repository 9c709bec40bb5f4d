"""One request, one attempt: HTTP over kept connections, with bodies received in place."""

import http.client
import logging
import os
import socket
import ssl
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeout

from blobfs.azure.addresses import is_loopback
from blobfs.azure.credentials import Authorization
from blobfs.azure.messages import Reply, Request
from blobfs.azure.pace import Pace, paced
from blobfs.blocks import KiB, MiB
from blobfs.callers import Callers
from blobfs.errors import InvalidArgument, InvalidName, Unavailable

# Known to the service and to Azurite 3.35; from 2021-02-12 on listings encode names that XML cannot carry.
API_VERSION = "2023-11-03"

# A socket's timeout covers the whole of one sendall(): so much gets through a slow line in that time.
PIECE_BYTES = 256 * KiB

# So much of a body that breaks off is lost at most. The rest stays where it is.
RECEIVED_BYTES = 128 * KiB

LARGEST_BODY_BYTES = 256 * MiB  # of a listing: 5,000 blobs with all the metadata there can be, as XML

# Its debug lines show the query of every request, and a SAS is part of that.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)


@dataclass(slots=True)
class Progress:
    """How far a reply got."""

    headers: Mapping[str, str] = field(default_factory=dict)  # empty if it did not begin
    received_bytes: int = 0  # into the request's memory


class Interrupted(Exception):
    """The attempt ended without a whole reply. The message has no secret in it."""

    def __init__(self, reason: str, progress: Progress, *, timed_out: bool, sent: bool) -> None:
        super().__init__(reason)
        self.progress = progress
        self.timed_out = timed_out
        self.sent = sent  # so the service may have acted on it


class Transport:
    """Connections to one container's endpoint. Opens none before the first request."""

    def __init__(
        self,
        endpoint: str,
        container: str,
        *,
        connections: int,
        connect_seconds: float,
        read_seconds: float,
        stall_seconds: float,
        callers: Callers,
        ca_file: Path | None = None,
    ) -> None:
        """Raises InvalidArgument for a file of certificates that does not exist, or an impossible proxy."""
        parts = urlsplit(endpoint)
        self._host = parts.netloc
        self._root = f"{parts.path.rstrip('/')}/{quote(container)}"
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._session = requests.Session()
        self._pool = _connection_pool(self._session, endpoint, connections, ca_file)
        pool: Any = self._pool  # its type forbids what its attribute is for
        pool.ConnectionCls = paced(pool.ConnectionCls, Pace(stall_seconds, callers.check))

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def url(self, name: str) -> str:
        """Return the address of a blob, without any query. Raises InvalidName if it is not Unicode."""
        return self._origin + self._path(name)

    def send(self, request: Request, authorization: Authorization, *, within_seconds: float) -> Reply:
        """Make one attempt and return the whole reply, whatever its status.

        A success's body is in `request.into`, where there is one. A reply has to begin within the
        time given, and to go on at a least speed from then on. Raises Interrupted, Abandoned, and
        Unavailable when the server's certificate is not trusted.
        """
        request_id = str(uuid.uuid4())
        target = self._target(request, authorization)
        headers = _headers(request, authorization, request_id)
        timeout = urllib3.Timeout(
            connect=min(self._connect_seconds, within_seconds), read=min(self._read_seconds, within_seconds)
        )
        with _interruptions(self._host, self._origin) as progress:
            response = self._pool.urlopen(
                request.method,
                target,
                body=_pieces(request.body) if request.body else None,
                headers=headers,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            progress.headers = response.headers
            return _whole_reply(response, request.into, request_id, progress)

    def _target(self, request: Request, authorization: Authorization) -> str:
        query = "&".join(filter(None, (urlencode(request.query, quote_via=quote), authorization.sas)))
        return f"{self._path(request.name)}?{query}"

    def _path(self, name: str) -> str:
        try:
            return f"{self._root}/{quote(name)}" if name else self._root
        except UnicodeEncodeError as error:
            raise InvalidName(f"{name!r}: a blob name is Unicode, and these bytes are not") from error


def _connection_pool(
    session: requests.Session, endpoint: str, connections: int, ca_file: Path | None
) -> urllib3.HTTPConnectionPool:
    """Return the connections that requests would use, with its reading of proxies and certificates."""
    bundle = str(ca_file) if ca_file else None
    settings = session.merge_environment_settings(endpoint, {}, True, bundle, None)
    if not isinstance(settings["verify"], str):
        settings["verify"] = os.environ.get("SSL_CERT_FILE", True)
    if is_loopback(urlsplit(endpoint).hostname or ""):
        settings["proxies"] = {}
    # Any, because the published types of these two methods are behind the methods.
    adapter: Any = HTTPAdapter(pool_maxsize=connections, pool_block=True)
    session.mount(endpoint, adapter)
    try:
        pool: urllib3.HTTPConnectionPool = adapter.get_connection_with_tls_context(
            requests.Request("GET", endpoint).prepare(), settings["verify"], settings["proxies"]
        )
    except (requests.RequestException, HTTPError) as error:
        raise InvalidArgument(
            "the proxy in HTTPS_PROXY is no address; it looks like http://HOST:PORT"
        ) from error
    try:
        adapter.cert_verify(pool, endpoint, settings["verify"], None)
    except OSError as error:
        raise InvalidArgument(f"there is no file of certificates {settings['verify']}") from error
    return pool


def _headers(request: Request, authorization: Authorization, request_id: str) -> dict[str, str]:
    headers = {
        **request.headers,
        "User-Agent": "blobfs",
        "x-ms-version": API_VERSION,
        "x-ms-client-request-id": request_id,
    }
    if request.method == "PUT":
        headers["Content-Length"] = str(memoryview(request.body).nbytes)
    if authorization.bearer:
        headers["Authorization"] = f"Bearer {authorization.bearer}"
    return headers


def _pieces(body: memoryview | bytes) -> Iterable[bytes]:
    view = memoryview(body)
    pieces = (view[start : start + PIECE_BYTES] for start in range(0, len(view), PIECE_BYTES))
    return cast("Iterable[bytes]", pieces)


def _whole_reply(
    response: urllib3.BaseHTTPResponse, into: memoryview | None, request_id: str, progress: Progress
) -> Reply:
    body = b""
    try:
        if into is not None and response.status in (200, 206):
            _receive(response, into, progress)
        else:
            body = _body(response)
    finally:
        if not _is_read_to_the_end(response):
            response.close()  # what is left would be taken for the next reply
        response.release_conn()
    return Reply(response.status, response.headers, request_id, body, progress.received_bytes)


def _body(response: urllib3.BaseHTTPResponse) -> bytes:
    """Return a body that is no blob's. Raises HTTPException for one that nobody could mean."""
    body = response.read(LARGEST_BODY_BYTES)
    if not _is_read_to_the_end(response) and response.read(1):
        raise http.client.HTTPException(f"the reply has more than {LARGEST_BODY_BYTES} bytes")
    return body


def _receive(response: urllib3.BaseHTTPResponse, into: memoryview, progress: Progress) -> None:
    """Read the body into `into`, counting. Raises HTTPException unless it is whole."""
    expected_bytes = cast("urllib3.HTTPResponse", response).length_remaining
    if expected_bytes is None or expected_bytes > len(into):
        raise http.client.HTTPException("the reply is not of the length asked for")
    # urllib3's own readinto() reads elsewhere and copies; the innermost one receives in place.
    innermost = cast("Any", response)._fp
    while progress.received_bytes < expected_bytes:
        start = progress.received_bytes
        count = innermost.readinto(into[start : min(start + RECEIVED_BYTES, expected_bytes)])
        if not count:
            raise http.client.HTTPException(f"the reply ended {expected_bytes - start} bytes early")
        progress.received_bytes += count


def _is_read_to_the_end(response: urllib3.BaseHTTPResponse) -> bool:
    return cast("urllib3.HTTPResponse", response).isclosed()


@contextmanager
def _interruptions(host: str, origin: str) -> Iterator[Progress]:
    """Turn what goes wrong on the way into Interrupted, or Unavailable if trying again is pointless."""
    progress = Progress()
    try:
        yield progress
    except (HTTPError, http.client.HTTPException, OSError) as error:
        cause = _innermost(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise Unavailable(
                f"the certificate of {host} is not trusted ({cause.verify_message}); "
                "name the authority's certificate with --ca-file"
            ) from error
        if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
            raise Unavailable(f"{host} does not speak https; is the endpoint's port right?") from error
        if isinstance(cause, http.client.RemoteDisconnected) and origin.startswith("http:"):
            reason = f"{host} closed the connection without a reply; does it speak https there?"
            raise Interrupted(reason, progress, timed_out=False, sent=True) from error
        raise _interrupted(host, error, cause, progress) from error


def _interrupted(host: str, error: Exception, cause: BaseException, progress: Progress) -> Interrupted:
    if isinstance(cause, socket.gaierror):
        reason = f"{host} cannot be found ({cause.strerror}); is the account's name right?"
        return Interrupted(reason, progress, timed_out=False, sent=False)
    if isinstance(error, NewConnectionError):  # to urllib3 this is a timeout as well
        return Interrupted(f"{host}: {cause}", progress, timed_out=False, sent=False)
    if isinstance(error, (HTTPTimeout, TimeoutError)):
        sent = not isinstance(error, ConnectTimeoutError)
        return Interrupted(f"{host} did not answer in time", progress, timed_out=True, sent=sent)
    return Interrupted(f"{host}: {cause}", progress, timed_out=False, sent=True)


def _innermost(error: BaseException) -> BaseException:
    """Return what happened at the socket; the outer messages show addresses in memory, not more."""
    if isinstance(error, SSLError) and error.args and isinstance(error.args[0], BaseException):
        return error.args[0]
    return error.__cause__ or error.__context__ or error
