"""Requests over a bad network: a scripted server answers, breaks off, or stays silent."""

import base64
import hashlib
import logging
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from certificates import make_certificate

from blobfs.azure.assembly import open_store
from blobfs.azure.credentials import Authorization
from blobfs.azure.failures import refusal_of
from blobfs.azure.messages import Reply, Request, rest_of
from blobfs.azure.store import AzureStore
from blobfs.azure.tls import OpenSslRecords, TlsConnection
from blobfs.copying.interruption import Interruption
from blobfs.errors import (
    Abandoned,
    AccessDenied,
    AlreadyExists,
    Busy,
    Changed,
    Damaged,
    Failure,
    InvalidArgument,
    InvalidName,
    NameTooLong,
    NoSpace,
    NotFound,
    NotPermitted,
    TimedOut,
    Unavailable,
)
from blobfs.settings import CredentialSettings
from blobfs.store import ALWAYS, IF_ABSENT, BlobInfo, BlobVersion, Condition, Properties
from blobfs.waits import TO_THE_END, Waits

SAS = "sv=2022-11-02&sp=racwdl&sig=SECRET"
MODIFIED = "Sun, 22 Nov 2026 10:20:53 GMT"
WRITTEN = {"ETag": '"0x2"', "Last-Modified": MODIFIED}


@dataclass(frozen=True)
class Answer:
    """What the server does with one request."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    breaks_off_after: int | None = None  # bytes of the body, then the connection is reset


LOST = Answer(0)  # the request is received whole, and the connection reset
SILENCE = Answer(-1)  # nothing happens until the test is over


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at_seconds: float


class ScriptedServer(ThreadingHTTPServer):
    """Answers requests in the order of a script; its last answer is for all that follow."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        self.script: list[Answer] = []
        self.seen: list[Seen] = []
        self.over = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Say nothing: these clients break off on purpose."""

    def answers(self, *script: Answer) -> None:
        self.script = list(script)

    def next_answer(self) -> Answer:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


class ScriptedHandler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(Seen(self.command, self.path, dict(self.headers), body, time.monotonic()))
        answer = self.server.next_answer()
        if answer is SILENCE:
            self.server.over.wait()
        if answer.status > 0:
            self.send_answer(answer)
        if answer.status <= 0 or answer.breaks_off_after is not None:
            self.reset()

    do_GET = do_HEAD = do_PUT = do_DELETE = do_CONNECT = serve  # noqa: N815

    def send_answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.breaks_off_after])

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def serving(server: ScriptedServer) -> Iterator[ScriptedServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    yield from serving(ScriptedServer())


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


@pytest.fixture
def tls_server(certificate: tuple[Path, Path]) -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    yield from serving(server)


@pytest.fixture
def open_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AzureStore]]:
    """Return a function that opens a store at an endpoint, with few connections and little patience."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)
    opened: list[AzureStore] = []

    def open_endpoint(
        endpoint: str,
        *,
        total_seconds: float = 30.0,
        ca_file: Path | None = None,
        sas_file: Path | None = None,
        waits: Waits = TO_THE_END,
    ) -> AzureStore:
        store = open_store(
            "acct",
            "box",
            endpoint=endpoint,
            ca_file=ca_file,
            credential=CredentialSettings(sas_file=sas_file),
            connections=1,
            total_seconds=total_seconds,
            first_wait_seconds=0.001,
            longest_wait_seconds=0.01,
            connect_seconds=5.0,
            read_seconds=1.0,
            stall_seconds=0.5,
            waits=waits,
        )
        opened.append(store)
        return store

    yield open_endpoint
    for store in opened:
        store.close()


@pytest.fixture
def store(open_at: Callable[..., AzureStore], server: ScriptedServer) -> AzureStore:
    return open_at(f"http://127.0.0.1:{server.server_port}")


def ranged(body: bytes, *, breaks_off_after: int | None = None) -> Answer:
    headers = {**WRITTEN, "Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"}
    return Answer(206, headers, body, breaks_off_after)


def error(status: int, code: str, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, {"x-ms-error-code": code, **(headers or {})})


def head_of(body: bytes, metadata: dict[str, str] | None = None) -> Answer:
    kept = {f"x-ms-meta-{key}": value for key, value in (metadata or {}).items()}
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    return Answer(200, {**WRITTEN, "Content-Length": str(len(body)), "Content-MD5": md5, **kept})


def properties_of(body: bytes, metadata: dict[str, str] | None = None) -> Properties:
    return Properties(metadata=metadata or {}, content_md5=hashlib.md5(body).digest())


# What is tried again


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_busy_server_is_asked_again(server: ScriptedServer, store: AzureStore, status: int) -> None:
    server.answers(error(status, "ServerBusy"), head_of(b"1"))
    assert store.head("x").size_bytes == 1
    assert store.requests == {"HEAD blob": 2}


@pytest.mark.parametrize("status", [400, 404, 405, 409, 411, 412, 501])
def test_refusal_is_not_asked_again(server: ScriptedServer, store: AzureStore, status: int) -> None:
    server.answers(error(status, "Whatever"))
    with pytest.raises(Failure, match=f"x: .*HTTP {status} Whatever"):
        store.head("x")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "code", "name", "failure"),
    [
        (400, "InvalidUri", "x" * 1025, NameTooLong),
        (414, "", "x" * 1025, NameTooLong),
        (400, "InvalidResourceName", "x", InvalidName),
        (400, "OutOfRangeInput", "x", InvalidName),
        (400, "MetadataTooLarge", "x", NoSpace),
        (400, "InvalidHeaderValue", "x", InvalidArgument),
        (403, "AuthorizationFailure", "x", AccessDenied),
        (401, "", "x", AccessDenied),
        (404, "", "x", NotFound),
        (409, "BlobImmutableDueToPolicy", "x", NotPermitted),
        (409, "LeaseAlreadyPresent", "x", Busy),
        (409, "SomethingNew", "x", Busy),
        (412, "LeaseIdMissing", "x", Busy),
        (412, "ConditionNotMet", "x", Changed),
        (413, "RequestBodyTooLarge", "x", NoSpace),
        (501, "NotImplemented", "x", Unavailable),
    ],
)
def test_refusal_becomes_the_failure_that_it_means(
    server: ScriptedServer, store: AzureStore, status: int, code: str, name: str, failure: type[Failure]
) -> None:
    server.answers(error(status, code))
    with pytest.raises(failure) as raised:
        store.put_blob(name, b"", Properties(), ALWAYS)
    assert type(raised.value) is failure


def test_server_is_left_alone_as_long_as_it_asks(server: ScriptedServer, store: AzureStore) -> None:
    server.answers(error(503, "ServerBusy", {"Retry-After": "1"}), head_of(b"1"))
    store.head("x")
    first, second = server.seen
    assert second.at_seconds - first.at_seconds >= 1.0


def test_server_that_asks_for_too_long_a_wait_is_not_waited_for(
    server: ScriptedServer, store: AzureStore
) -> None:
    server.answers(error(503, "ServerBusy", {"Retry-After": "Sun, 22 Nov 2099 10:20:53 GMT"}))
    with pytest.raises(Unavailable, match="gave up after 1 attempts"):
        store.head("x")


def test_every_attempt_has_an_id_of_its_own(server: ScriptedServer, store: AzureStore) -> None:
    server.answers(error(503, "ServerBusy"), error(404, "BlobNotFound"))
    with pytest.raises(NotFound) as failure:
        store.head("x")
    first, second = (seen.headers["x-ms-client-request-id"] for seen in server.seen)
    assert first != second
    assert second in str(failure.value)


def test_server_that_stays_busy_is_unavailable(
    server: ScriptedServer, open_at: Callable[..., AzureStore], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_at(f"http://127.0.0.1:{server.server_port}", total_seconds=0.2)
    server.answers(error(503, "ServerBusy"))
    with pytest.raises(Unavailable, match=r"HEAD blob x: HTTP 503 ServerBusy.*gave up after \d+ attempts"):
        store.head("x")
    caplog.clear()


def test_silent_server_is_a_timeout(server: ScriptedServer, open_at: Callable[..., AzureStore]) -> None:
    store = open_at(f"http://127.0.0.1:{server.server_port}", total_seconds=0.2)
    server.answers(SILENCE)
    with pytest.raises(TimedOut, match="did not answer in time"):
        store.head("x")


def test_nobody_listening_is_unavailable(
    open_at: Callable[..., AzureStore], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    store = open_at(f"http://127.0.0.1:{port}")
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: Connection refused; is the endpoint right"):
        store.probe(within_seconds=0.1)
    caplog.clear()


def test_host_that_does_not_exist_asks_about_the_account(
    open_at: Callable[..., AzureStore], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_at("https://account.invalid")
    with pytest.raises(Unavailable, match=r"account\.invalid cannot be found .* is the account's name right"):
        store.probe(within_seconds=0.05)
    caplog.clear()


# Bodies


def test_body_that_breaks_off_is_fetched_again(server: ScriptedServer, store: AzureStore) -> None:
    body = bytes(range(256)) * 1000
    cuts = [0, 1, 100_000, len(body) - 1]
    server.answers(*(ranged(body, breaks_off_after=cut) for cut in cuts), ranged(body))
    buffer = bytearray(len(body))
    assert store.read_range("x", 0, memoryview(buffer))[0] == len(body)
    assert bytes(buffer) == body
    assert store.requests == {"GET blob": 5}


def test_listing_that_breaks_off_is_fetched_again(server: ScriptedServer, store: AzureStore) -> None:
    body = b"<EnumerationResults><Blobs/><NextMarker>m</NextMarker></EnumerationResults>"
    server.answers(Answer(200, {}, body, breaks_off_after=20), Answer(200, {}, body))
    assert store.list_page("").next_marker == "m"


def test_bytes_that_were_not_asked_for_are_never_taken(
    server: ScriptedServer, open_at: Callable[..., AzureStore], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_at(f"http://127.0.0.1:{server.server_port}", total_seconds=0.2)
    buffer = memoryview(bytearray(4))
    server.answers(ranged(b"0123"))
    with pytest.raises(Unavailable, match="asked for bytes 8-11"):
        store.read_range("x", 8, buffer)
    server.answers(Answer(200, WRITTEN, b"0123"))
    with pytest.raises(Unavailable, match="something else"):
        store.read_range("x", 8, buffer)
    server.answers(ranged(b"0123456789"))
    with pytest.raises(Unavailable, match="not of the length"):
        store.read_range("x", 0, buffer)
    caplog.clear()


def test_reply_that_makes_no_sense_is_unavailable(server: ScriptedServer, store: AzureStore) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.head("x"),
        lambda: store.put_blob("x", b"", Properties(), ALWAYS),
        lambda: store.list_page(""),
        lambda: store.committed_blocks(BlobVersion("x", "0x2")),
        lambda: store.stage_block("x", "aWQ=", b"", hashlib.md5().digest()),
        lambda: store.stage_range(BlobVersion("x", "0x2"), 0, 1, "y", "aWQ="),
    ]
    for call in calls:
        server.answers(Answer(200, {"Last-Modified": "yesterday"}, b"<html>"))
        with pytest.raises(Unavailable, match="makes no sense"):
            call()


def test_large_body_arrives_whole_and_again_when_its_reply_is_lost(
    server: ScriptedServer, store: AzureStore
) -> None:
    body = bytes(range(256)) * 20_001
    server.answers(LOST, Answer(201, WRITTEN))
    store.stage_block("x", "aWQ=", memoryview(body), hashlib.md5(body).digest())
    assert [seen.body == body for seen in server.seen] == [True, True]


def test_body_found_damaged_is_sent_once_more(server: ScriptedServer, store: AzureStore) -> None:
    server.answers(error(400, "Md5Mismatch"), Answer(201, WRITTEN))
    store.stage_block("x", "aWQ=", b"1", hashlib.md5(b"1").digest())
    server.answers(error(400, "Md5Mismatch"))
    with pytest.raises(Damaged):
        store.stage_block("x", "aWQ=", b"1", hashlib.md5(b"1").digest())
    assert len(server.seen) == 4


def test_connection_is_kept_after_a_whole_reply_and_only_then(
    server: ScriptedServer, store: AzureStore
) -> None:
    ports: list[int] = []
    server.process_request_thread = lambda request, address: (  # type: ignore[method-assign]
        ports.append(address[1]),
        ThreadingHTTPServer.process_request_thread(server, request, address),
    )
    server.answers(
        ranged(b"0123"),
        error(404, "BlobNotFound"),
        head_of(b""),
        ranged(b"0123", breaks_off_after=1),
        ranged(b"0123"),
        Answer(200, {**WRITTEN, "Connection": "TE, close"}),
        head_of(b""),
    )
    buffer = memoryview(bytearray(4))
    store.read_range("x", 0, buffer)
    with pytest.raises(NotFound):
        store.head("x")
    store.head("x")
    assert len(ports) == 1
    store.read_range("x", 0, buffer)
    assert len(ports) == 2
    store.head("x")
    assert len(ports) == 2
    store.head("x")
    assert len(ports) == 3


def test_connection_that_the_server_closed_meanwhile_is_replaced_unnoticed(
    server: ScriptedServer, store: AzureStore
) -> None:
    hung_up = threading.Event()
    server.shutdown_request = lambda request: (  # type: ignore[method-assign,misc]
        ThreadingHTTPServer.shutdown_request(server, request),
        hung_up.set(),
    )
    one_request = {"handle": ScriptedHandler.handle_one_request}
    server.RequestHandlerClass = type("HangingUp", (ScriptedHandler,), one_request)
    server.answers(head_of(b"1"))
    store.head("x")
    assert hung_up.wait(10)
    store.head("x")
    assert store.requests == {"HEAD blob": 2}


# Writes whose reply is lost


def test_put_whose_reply_was_lost_is_recognised(server: ScriptedServer, store: AzureStore) -> None:
    found = head_of(b"body", {"K": "v"})
    server.answers(LOST, error(409, "BlobAlreadyExists"), found)
    info = store.put_blob("x", b"body", properties_of(b"body", {"k": "v"}), IF_ABSENT)
    assert (info.etag, info.size_bytes) == ("0x2", 4)


@pytest.mark.parametrize(
    "found",
    [head_of(b"other"), head_of(b"body"), head_of(b"body", {"k": "w"}), error(404, "BlobNotFound")],
)
def test_put_that_somebody_else_beat_is_a_conflict(
    server: ScriptedServer, store: AzureStore, found: Answer
) -> None:
    server.answers(LOST, error(409, "BlobAlreadyExists"), found)
    with pytest.raises(AlreadyExists):
        store.put_blob("x", b"body", properties_of(b"body", {"k": "v"}), IF_ABSENT)


def test_conflict_without_a_lost_reply_is_believed_at_once(server: ScriptedServer, store: AzureStore) -> None:
    server.answers(error(412, "ConditionNotMet"))
    with pytest.raises(Changed):
        store.put_blob("x", b"body", properties_of(b"body"), Condition(if_match="0x1"))
    server.answers(error(429, "TooManyRequests"), error(412, "ConditionNotMet"))
    with pytest.raises(AlreadyExists):
        store.put_blob("x", b"body", properties_of(b"body"), IF_ABSENT)
    assert {seen.method for seen in server.seen} == {"PUT"}


def test_commit_whose_reply_was_lost_is_recognised_by_its_blocks(
    server: ScriptedServer, store: AzureStore
) -> None:
    def block_list(*ids: str) -> Answer:
        blocks = "".join(f"<Block><Name>{i}</Name><Size>1</Size></Block>" for i in ids)
        body = f"<BlockList><CommittedBlocks>{blocks}</CommittedBlocks></BlockList>".encode()
        return Answer(200, WRITTEN, body)

    script = [error(500, "OperationTimedOut"), error(412, "ConditionNotMet"), head_of(b"12")]
    condition = Condition(if_match="0x1")
    server.answers(*script, block_list("a", "b"))
    info = store.commit_blocks("x", ["a", "b"], properties_of(b"12"), condition, 2)
    assert info.etag == "0x2"
    server.answers(*script, block_list("b", "a"))
    with pytest.raises(Changed):
        store.commit_blocks("x", ["a", "b"], properties_of(b"12"), condition, 2)


def test_metadata_whose_reply_was_lost_is_recognised(server: ScriptedServer, store: AzureStore) -> None:
    server.answers(LOST, error(412, "ConditionNotMet"), head_of(b"", {"k": "v"}))
    assert store.set_metadata(BlobVersion("x", "0x1"), {"k": "v"}) == "0x2"


def test_delete_whose_reply_was_lost_is_recognised(server: ScriptedServer, store: AzureStore) -> None:
    gone = error(404, "BlobNotFound")
    server.answers(LOST, gone, gone)
    store.delete("x", ALWAYS)
    server.answers(LOST, error(412, "ConditionNotMet"), gone)
    store.delete("x", Condition(if_match="0x1"))
    server.answers(LOST, error(412, "ConditionNotMet"), head_of(b"newer"))
    with pytest.raises(Changed):
        store.delete("x", Condition(if_match="0x1"))
    server.answers(gone)
    with pytest.raises(NotFound):
        store.delete("x", ALWAYS)


# Copies that the service makes in its own time


def copied(status: str, copy_id: str = "id", body: bytes = b"body") -> Answer:
    headers = {
        "x-ms-copy-id": copy_id,
        "x-ms-copy-status": status,
        "x-ms-copy-status-description": "500 Oops",
    }
    found = head_of(body, {"k": "v"})
    return Answer(200, {**found.headers, **headers})


ACCEPTED = Answer(202, {**WRITTEN, "x-ms-copy-id": "id", "x-ms-copy-status": "pending"})
SOURCE = BlobInfo("s", "0x2", 4, 0, content_md5=hashlib.md5(b"body").digest())


def test_copy_returns_when_the_service_has_finished_it(server: ScriptedServer, store: AzureStore) -> None:
    server.answers(ACCEPTED, copied("pending"), copied("pending"), copied("success"))
    assert store.copy(SOURCE, "t", {"k": "v"}, IF_ABSENT).size_bytes == 4
    request = server.seen[0]
    assert request.headers["x-ms-copy-source"].endswith(f"/box/s?{SAS}")
    assert request.headers["x-ms-source-if-match"] == '"0x2"'
    assert request.headers["If-None-Match"] == "*"


def test_interruption_ends_the_wait_for_a_copy(
    server: ScriptedServer, open_at: Callable[..., AzureStore]
) -> None:
    interruption = Interruption()
    store = open_at(f"http://127.0.0.1:{server.server_port}", waits=interruption)
    server.answers(ACCEPTED, copied("pending"), copied("success"))
    interruption.set()
    with pytest.raises(Abandoned):
        store.copy(SOURCE, "t", {"k": "v"}, IF_ABSENT)


def test_range_to_stage_is_named_with_its_version_and_a_credential(
    server: ScriptedServer, store: AzureStore
) -> None:
    server.answers(Answer(201))
    assert store.stage_range(SOURCE.version, 8, 4, "t", "aWQ=")
    request = server.seen[0]
    assert request.headers["x-ms-copy-source"].endswith(f"/box/s?{SAS}")
    assert request.headers["x-ms-source-if-match"] == '"0x2"'
    assert request.headers["x-ms-source-range"] == "bytes=8-11"
    assert request.headers["Content-Length"] == "0"
    assert "x-ms-copy-source-authorization" not in request.headers


@pytest.mark.parametrize("status", [401, 403])
def test_service_that_cannot_read_its_own_address_is_not_asked_again(
    server: ScriptedServer, store: AzureStore, status: int
) -> None:
    server.answers(error(status, "CannotVerifyCopySource"))
    assert not store.stage_range(SOURCE.version, 0, 4, "t", "aWQ=")
    asked = len(server.seen)
    assert not store.stage_range(SOURCE.version, 4, 4, "t", "aWQ=")
    assert len(server.seen) == asked


def test_copy_whose_reply_was_lost_is_recognised(server: ScriptedServer, store: AzureStore) -> None:
    server.answers(LOST, error(409, "BlobAlreadyExists"), copied("success"))
    assert store.copy(SOURCE, "t", {"k": "v"}, IF_ABSENT).size_bytes == 4


@pytest.mark.parametrize(
    ("outcome", "failure", "reason"),
    [
        (copied("failed"), Unavailable, "t: the service's copy ended as failed: 500 Oops"),
        (copied("aborted"), Unavailable, "ended as aborted"),
        (copied("success", copy_id="other"), Changed, "somebody else wrote"),
        (copied("success", body=b"bod"), Unavailable, "3 bytes instead of 4"),
    ],
)
def test_copy_that_did_not_succeed_is_a_failure(
    server: ScriptedServer, store: AzureStore, outcome: Answer, failure: type[Failure], reason: str
) -> None:
    server.answers(ACCEPTED, outcome)
    with pytest.raises(failure, match=reason):
        store.copy(SOURCE, "t", {"k": "v"}, ALWAYS)


# Secrets, certificates and proxies


def test_no_secret_is_in_a_message_or_a_log(
    server: ScriptedServer, open_at: Callable[..., AzureStore], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = open_at(f"http://127.0.0.1:{server.server_port}", total_seconds=0.1)
    body = b"<Error><Code>AuthenticationFailed</Code><Message>sig=SECRET</Message></Error>"
    for answer in (
        Answer(403, {}, body),
        error(503, "ServerBusy"),
        LOST,
        ranged(b"0123", breaks_off_after=1),
    ):
        server.answers(answer)
        with pytest.raises(Failure) as failure:
            store.read_range("x", 0, memoryview(bytearray(4)))
        causes = [failure.value, failure.value.__cause__]
        assert not any("SECRET" in f"{cause} {cause!r}" for cause in causes)
    assert all("sig=SECRET" in seen.path for seen in server.seen)
    assert caplog.records
    assert "SECRET" not in caplog.text
    caplog.clear()


def test_refused_sas_is_named_by_its_source(server: ScriptedServer, store: AzureStore) -> None:
    server.answers(error(403, "AuthorizationPermissionMismatch"))
    with pytest.raises(AccessDenied, match="SAS from AZURE_STORAGE_SAS_TOKEN lacks the permission"):
        store.head("x")


@pytest.mark.parametrize(
    ("ask", "letter"),
    [
        (lambda store: store.list_page(""), "l"),
        (lambda store: store.head("x"), "r"),
        (lambda store: store.put_blob("x", b"", Properties(), ALWAYS), "w"),
        (lambda store: store.delete("x", ALWAYS), "d"),
    ],
)
def test_permission_that_a_sas_lacks_is_named_with_those_that_are_needed(
    server: ScriptedServer,
    open_at: Callable[..., AzureStore],
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[AzureStore], object],
    letter: str,
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS.replace("racwdl", "racwdl".replace(letter, "")))
    store = open_at(f"http://127.0.0.1:{server.server_port}")
    server.answers(error(403, "AuthorizationPermissionMismatch"))
    cure = "get one with rl to read, with racwdl to write"
    with pytest.raises(AccessDenied, match=f"lacks the permission {letter}; {cure}"):
        ask(store)


def test_permission_that_a_sas_has_is_not_said_to_be_missing(
    server: ScriptedServer, store: AzureStore
) -> None:
    server.answers(error(403, "AuthorizationPermissionMismatch"))
    with pytest.raises(AccessDenied, match="lacks the permission for this"):
        store.head("x")
    with pytest.raises(AccessDenied, match="may not create a container; have one made"):
        store.create_container()


@pytest.mark.parametrize(
    ("code", "question"),
    [
        ("AuthenticationFailed", "is it for this account and container, and is this machine's clock right?"),
        ("AuthorizationFailure", "does the account's firewall let this machine in?"),
    ],
)
def test_refusal_with_several_causes_names_what_to_check(
    server: ScriptedServer, store: AzureStore, code: str, question: str
) -> None:
    server.answers(error(403, code))
    with pytest.raises(AccessDenied, match=re.escape(question)):
        store.head("x")


def test_permission_to_delete_is_looked_up_in_the_sas_as_it_is_now(
    server: ScriptedServer, open_at: Callable[..., AzureStore], tmp_path: Path
) -> None:
    path = tmp_path / "sas"
    path.write_text(SAS)
    path.chmod(0o600)
    store = open_at(f"http://127.0.0.1:{server.server_port}", sas_file=path)
    store.check_may_delete("x")
    path.write_text(SAS.replace("racwdl", "racwl"))
    with pytest.raises(AccessDenied, match=r"^x: the SAS from .* lacks the permission d; get one") as refusal:
        store.check_may_delete("x")
    assert "SECRET" not in str(refusal.value)
    path.write_text(SAS.replace("sp=racwdl&", "si=policy&"))
    store.check_may_delete("x")
    assert server.seen == []


def test_refused_login_is_told_the_roles() -> None:
    reply = Reply(403, {"x-ms-error-code": "AuthorizationPermissionMismatch"}, "1")
    used = Authorization(bearer="SECRET")
    refusal = refusal_of(Request("LIST", "GET"), reply, "box", used, credential_name="login")
    assert "the login lacks a role for this: Storage Blob Data Reader to read" in str(refusal)


def test_refused_sas_is_read_again_from_its_file(
    server: ScriptedServer,
    open_at: Callable[..., AzureStore],
    tmp_path: Path,
) -> None:
    path = tmp_path / "sas"
    path.write_text(SAS)
    path.chmod(0o600)
    store = open_at(f"http://127.0.0.1:{server.server_port}", sas_file=path)
    before = path.stat()
    path.write_text(SAS.replace("SECRET", "SECOND"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    server.answers(error(403, "AuthenticationFailed"), head_of(b"1"))
    assert store.head("x").size_bytes == 1
    assert [seen.path.endswith("sig=SECOND") for seen in server.seen] == [False, True]


def test_certificate_of_an_unknown_authority_is_refused_at_once(
    tls_server: ScriptedServer, open_at: Callable[..., AzureStore]
) -> None:
    store = open_at(f"https://127.0.0.1:{tls_server.server_port}")
    with pytest.raises(Unavailable, match=r"not trusted .*--ca-file"):
        store.head("x")
    assert store.requests == {"HEAD blob": 1}


@pytest.mark.parametrize("source", ["--ca-file", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_authority_is_trusted_from_each_place_that_may_name_it(
    tls_server: ScriptedServer,
    certificate: tuple[Path, Path],
    open_at: Callable[..., AzureStore],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    ca_file = certificate[0] if source == "--ca-file" else None
    if ca_file is None:
        monkeypatch.setenv(source, str(certificate[0]))
    store = open_at(f"https://127.0.0.1:{tls_server.server_port}", ca_file=ca_file)
    body = bytes(range(256)) * 1000
    tls_server.answers(ranged(body))
    buffer = bytearray(len(body))
    assert store.read_range("x", 0, memoryview(buffer))[0] == len(body)
    assert bytes(buffer) == body


def test_a_connection_over_tls_receives_by_openssl_until_it_is_closed(
    tls_server: ScriptedServer, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=certificate[0])
    connection = TlsConnection("127.0.0.1", tls_server.server_port, ssl_context=context)
    assert connection.records is None
    for _ in range(2):
        connection.connect()
        assert isinstance(connection.records, OpenSslRecords)
        connection.close()
        assert connection.records is None


def test_missing_file_of_certificates_is_named(open_at: Callable[..., AzureStore], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no file of certificates .*absent"):
        open_at("https://127.0.0.1:1", ca_file=tmp_path / "absent")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_file_without_certificates_is_refused_before_anything_is_sent(
    open_at: Callable[..., AzureStore], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv(variable, str(tmp_path / "empty.pem"))
    with pytest.raises(InvalidArgument, match=r"empty.pem holds no certificate .* SSL_CERT_FILE"):
        open_at("https://127.0.0.1:1")


def test_https_goes_through_the_proxy_and_the_loopback_does_not(
    server: ScriptedServer,
    open_at: Callable[..., AzureStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.answers(error(403, ""))
    with pytest.raises(Unavailable):
        open_at("https://blob.example.org").probe(within_seconds=0.05)
    assert {(seen.method, seen.path) for seen in server.seen} == {("CONNECT", "blob.example.org:443")}
    server.answers(head_of(b"1"))
    assert open_at(f"http://127.0.0.1:{server.server_port}").head("x").size_bytes == 1
    caplog.clear()


@pytest.mark.parametrize(
    ("headers", "resumes"), [({}, True), ({"x-ms-range-get-content-md5": "true"}, False)]
)
def test_broken_off_reply_is_resumed_unless_its_md5_is_of_all_of_it(
    headers: dict[str, str], resumes: bool
) -> None:
    headers = {"x-ms-range": "bytes=10-19", "If-Match": '"1"', **headers}
    request = Request("GET blob", "GET", "x", headers=headers, into=memoryview(bytearray(10)))
    rest = rest_of(request, {"content-range": "bytes 10-19/30"}, 4)
    assert rest.headers["x-ms-range"] == ("bytes=14-19" if resumes else "bytes=10-19")
