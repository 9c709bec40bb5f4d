"""One request, one attempt: over kept connections, with bodies received in place."""

import http.client
import io
import itertools
import os
import socket
import ssl
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeout

from blobfs.azure.addresses import is_loopback
from blobfs.azure.credentials import Authorization
from blobfs.azure.exchange import (
    receive_body,
    receive_head,
    received_counts,
    request_head,
    send_request,
)
from blobfs.azure.messages import Reply, Request
from blobfs.azure.pace import Pace, paced_file
from blobfs.azure.tls import TlsConnection
from blobfs.errors import InvalidArgument, InvalidName, Unavailable
from blobfs.waits import Waits

# Known to the service and to Azurite 3.35; from 2021-02-12 on listings encode names that XML cannot carry.
API_VERSION = "2023-11-03"


@dataclass(slots=True)
class ReplyProgress:
    """How far a reply got."""

    sent: bool = False  # the request, or some of it
    headers: Mapping[str, str] = field(default_factory=dict)  # empty if it did not begin
    received_bytes: int = 0  # into the request's memory


class Interrupted(Exception):
    """The attempt ended without a whole reply. The message has no secret in it."""

    def __init__(self, reason: str, progress: ReplyProgress, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.progress = progress
        self.timed_out = timed_out


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
        waits: Waits,
        ca_file: Path | None = None,
    ) -> None:
        """Raises InvalidArgument for a file of certificates that does not exist, or an impossible proxy."""
        parts = urlsplit(endpoint)
        self._host = parts.netloc
        self._headers = {
            "Host": parts.netloc,
            "Accept-Encoding": "identity",
            "User-Agent": "blobfs",
            "x-ms-version": API_VERSION,
        }
        self._id = uuid.uuid4().hex
        self._numbers = itertools.count(1)  # tell the requests of this process apart
        self._root = f"{parts.path.rstrip('/')}/{quote(container)}"
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._session = requests.Session()
        self._pool = _connection_pool(self._session, endpoint, connections, ca_file)
        self._pace = Pace(stall_seconds, waits.check)

    @property
    def origin(self) -> str:
        """Scheme and host of the endpoint."""
        return self._origin

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def url(self, name: str) -> str:
        """Return the address of a blob, without any query. Raises InvalidName if it is not Unicode."""
        return self._origin + self._path(name)

    def part_head(self, request: Request, authorization: Authorization) -> bytes:
        """Return the head of a request without a body that is part of a batch. It has a secret in it."""
        headers = {**request.headers, **_bearer_header(authorization), "Content-Length": "0"}
        return request_head(request.method, self._target(request, authorization), headers)

    def send(self, request: Request, authorization: Authorization, *, within_seconds: float) -> Reply:
        """Make one attempt and return the whole reply, whatever its status.

        A success's body is in `request.into`, where there is one. A reply has to begin within the
        time given, and to go on at a least speed from then on. Raises Interrupted, Abandoned, and
        Unavailable when the server's certificate is not trusted.
        """
        request_id = f"{self._id}-{next(self._numbers)}"
        head = self._head(request, authorization, request_id)
        with (
            _interruptions(self._host, self._origin) as progress,
            self._connection(within_seconds) as connection,
        ):
            sock = connection.sock
            sock.settimeout(self._pace.window_seconds)
            progress.sent = True
            send_request(sock, head, request.body)
            begin_seconds = min(self._read_seconds, within_seconds)
            records = connection.records if isinstance(connection, TlsConnection) else None
            with paced_file(sock, records, self._pace, begin_seconds) as file:
                reply, is_reusable = _received(file, request, request_id, progress)
            if not is_reusable:
                connection.close()
            return reply

    @contextmanager
    def _connection(self, within_seconds: float) -> Iterator[HTTPConnection]:
        """Lend a connection that is open. It is closed if the exchange breaks off."""
        # These are the steps of the pool's urlopen(), which takes several times as long around them.
        pool: Any = self._pool
        connection: HTTPConnection = pool._get_conn()
        try:
            if connection.is_closed:
                connection.timeout = min(self._connect_seconds, within_seconds)
                if pool.proxy:
                    pool._prepare_proxy(connection)
                else:
                    connection.connect()
            yield connection
        except BaseException:  # raised again: what is left of this reply must not be the next one
            connection.close()
            raise
        finally:
            pool._put_conn(connection)

    def _head(self, request: Request, authorization: Authorization, request_id: str) -> bytes:
        headers = {
            **self._headers,
            "x-ms-client-request-id": request_id,
            **request.headers,
            **_bearer_header(authorization),
        }
        if request.method in ("PUT", "POST"):
            headers["Content-Length"] = str(memoryview(request.body).nbytes)
        return request_head(request.method, self._target(request, authorization), headers)

    def _target(self, request: Request, authorization: Authorization) -> str:
        query = "&".join(filter(None, (urlencode(request.query, quote_via=quote), authorization.sas)))
        return f"{self._path(request.name)}?{query}"

    def _path(self, name: str) -> str:
        try:
            return f"{self._root}/{quote(name)}" if name else self._root
        except UnicodeEncodeError as error:
            raise InvalidName(f"{name!r}: a blob name is Unicode, and these bytes are not") from error


def _bearer_header(authorization: Authorization) -> dict[str, str]:
    return {"Authorization": f"Bearer {authorization.bearer}"} if authorization.bearer else {}


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
    if endpoint.startswith("https:"):
        pool.ConnectionCls = TlsConnection
        if isinstance(settings["verify"], str):
            _require_certificates(Path(settings["verify"]))
    return pool


def _require_certificates(path: Path) -> None:
    """Raise InvalidArgument for a file with which nobody could be trusted."""
    try:
        if path.is_file():
            ssl.create_default_context(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise InvalidArgument(
            f"{path} holds no certificate in PEM, which starts with -----BEGIN; it is named by --ca-file, "
            "REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE"
        ) from error


def _received(
    file: io.BufferedReader, request: Request, request_id: str, progress: ReplyProgress
) -> tuple[Reply, bool]:
    """Receive a whole reply; return also whether another can follow it on the connection."""
    head = receive_head(file, request.method)
    progress.headers = head.headers
    body = b""
    if request.into is not None and head.status in (200, 206):
        for count in received_counts(file, head, request.into):
            progress.received_bytes += count
    else:
        body = receive_body(file, head)
    reply = Reply(head.status, head.headers, request_id, body, progress.received_bytes)
    return reply, head.keeps_connection


@contextmanager
def _interruptions(host: str, origin: str) -> Iterator[ReplyProgress]:
    """Turn what goes wrong on the way into Interrupted, or Unavailable if trying again is pointless."""
    progress = ReplyProgress()
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
            raise Interrupted(reason, progress) from error
        raise _interrupted(host, error, cause, progress) from error


def _interrupted(host: str, error: Exception, cause: BaseException, progress: ReplyProgress) -> Interrupted:
    if isinstance(cause, socket.gaierror):
        reason = f"{host} cannot be found ({cause.strerror}); is the account's name right?"
        return Interrupted(reason, progress)
    if isinstance(cause, ConnectionRefusedError):
        reason = f"{host}: {cause.strerror}; is the endpoint right, and does the service run there?"
        return Interrupted(reason, progress)
    if isinstance(error, (HTTPTimeout, TimeoutError)) and not isinstance(error, NewConnectionError):
        return Interrupted(f"{host} did not answer in time", progress, timed_out=True)
    return Interrupted(f"{host}: {cause}", progress)


def _innermost(error: BaseException) -> BaseException:
    """Return what happened at the socket; the outer messages show addresses in memory, not more."""
    if isinstance(error, SSLError) and error.args and isinstance(error.args[0], BaseException):
        return error.args[0]
    return error.__cause__ or error
