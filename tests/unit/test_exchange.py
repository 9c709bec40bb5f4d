"""One exchange on a connection: what goes out, and what is taken for a reply."""

import socket
from http.client import HTTPException, RemoteDisconnected
from io import BufferedReader, BytesIO

import pytest

from blobfs.azure import exchange
from blobfs.azure.exchange import (
    Head,
    receive_body,
    receive_head,
    received_counts,
    request_head,
    send_request,
)
from blobfs.errors import InvalidArgument


def arriving(received: bytes) -> BufferedReader:
    return BufferedReader(BytesIO(received), buffer_size=16)


def reply_to(method: str, received: bytes) -> tuple[Head, bytes, bytes]:
    """Return a reply's head and body, and what is left on the connection."""
    file = arriving(received)
    head = receive_head(file, method)
    return head, receive_body(file, head), file.read()


def test_header_names_are_told_in_lower_case_and_metadata_as_spelled() -> None:
    received = (
        b'HTTP/1.1 200 OK\r\nETAG: "1"\r\nX-MS-Meta-CamelCase:  a: b \r\nx:\r\nContent-Length:0\r\n\r\n'
    )
    head, _, _ = reply_to("GET", received)
    assert head.headers == {"etag": '"1"', "x-ms-meta-CamelCase": "a: b", "x": "", "content-length": "0"}


def test_header_on_several_lines_is_one_and_equal_names_make_a_list() -> None:
    head, _, _ = reply_to("HEAD", b"HTTP/1.1 200 OK\r\nA: 1\r\n  2\r\nB: 3\r\nb: 4\r\n\r\n")
    assert head.headers == {"a": "1 2", "b": "3, 4"}


def test_interim_replies_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    head, body, left = reply_to("PUT", interim + b"HTTP/1.1 201\r\nContent-Length: 1\r\n\r\n1next")
    assert (head.status, head.headers, body, left) == (201, {"content-length": "1"}, b"1", b"next")
    with pytest.raises(HTTPException, match="interim"):
        receive_head(arriving(b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "PUT")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 304), ("DELETE", 204)])
@pytest.mark.parametrize("length", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_reply_that_has_no_body_may_tell_its_length(method: str, status: int, length: bytes) -> None:
    received = b"HTTP/1.1 %d X\r\n%s\r\n\r\nnext" % (status, length)
    head, body, left = reply_to(method, received)
    assert (body, left, head.keeps_connection) == (b"", b"next", True)


def test_chunked_body_ends_behind_its_trailer() -> None:
    chunks = b"3\r\nabc\r\n00A ; name=value\r\n0123456789\r\n0\r\n"
    for trailer in (b"", b"Checksum: x\r\n"):
        received = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n" + chunks + trailer + b"\r\nnext"
        head, body, left = reply_to("GET", received)
        assert (body, left, head.keeps_connection) == (b"abc0123456789", b"next", True)


@pytest.mark.parametrize(
    ("received", "keeps_connection"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: Close", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive", True),
        (b"HTTP/1.1 200 OK", False),
    ],
)
def test_connection_is_kept_if_the_body_has_an_end_and_the_server_agrees(
    received: bytes, keeps_connection: bool
) -> None:
    head, body, left = reply_to("GET", received + b"\r\n\r\nbody")
    assert (head.keeps_connection, body, left) == (keeps_connection, b"body", b"")


def test_connection_of_a_reply_with_two_lengths_is_not_kept() -> None:
    lengths = b"Content-Length: 4\r\nTransfer-Encoding: chunked"
    head, body, _ = reply_to("GET", b"HTTP/1.1 200 OK\r\n" + lengths + b"\r\n\r\n1\r\nx\r\n0\r\n\r\n")
    assert (head.keeps_connection, body) == (False, b"x")


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "received",
    [
        b"\r\n\r\n" + OK + b"\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nETag",
        OK,
        OK + b"no colon\r\n\r\n",
        OK + b"Name : value\r\n\r\n",
        OK + b": value\r\n\r\n",
        OK + b"A: b\nC: d\r\n\r\n",
        OK + b"Content-Length: 5\r\n\r\nbody",
        OK + b"Content-Length: -4\r\n\r\nbody",
        OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody5",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Content-Length: 999999999999\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"-1\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"4\r\nbo",
        CHUNKED + b"3\r\nbody\r\n0\r\n\r\n",
        CHUNKED + b"ffffffff\r\nbody",
        CHUNKED + b"4\r\nbody\r\n",
        CHUNKED + b"4\r\nbody\r\n0\r\n",
    ],
)
def test_reply_that_is_broken_or_ambiguous_is_refused(received: bytes) -> None:
    with pytest.raises(HTTPException):
        reply_to("GET", received)


def test_reply_without_end_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HTTPException, match="too long"):
        receive_head(arriving(OK + b"A: b\r\n" * 100_000), "GET")
    monkeypatch.setattr(exchange, "LARGEST_BODY_BYTES", 3)
    for received in (OK + b"\r\nbody", OK + b"Content-Length: 4\r\n\r\nbody", CHUNKED + b"4\r\nbody\r\n"):
        with pytest.raises(HTTPException, match="more than 3 bytes"):
            reply_to("GET", received)


def test_connection_closed_instead_of_a_reply_is_told_apart() -> None:
    with pytest.raises(RemoteDisconnected):
        receive_head(arriving(b""), "GET")


@pytest.mark.parametrize("length", [b"Content-Length: 5\r\n", b""])
def test_body_that_does_not_fit_its_place_is_refused(length: bytes) -> None:
    file = arriving(OK + length + b"\r\n01234")
    with pytest.raises(HTTPException, match="not of the length"):
        list(received_counts(file, receive_head(file, "GET"), memoryview(bytearray(4))))


def test_what_arrived_of_a_body_stays_where_it_belongs() -> None:
    into = memoryview(bytearray(6))
    file = arriving(OK + b"Content-Length: 5\r\n\r\n012")
    counts = received_counts(file, receive_head(file, "GET"), into)
    assert next(counts) == 3
    with pytest.raises(HTTPException, match="2 bytes early"):
        next(counts)
    assert bytes(into) == b"012\0\0\0"


def test_what_arrived_before_a_body_stopped_is_told() -> None:
    client, server = socket.socketpair()
    with client, server:
        client.settimeout(0.01)
        server.sendall(OK + b"Content-Length: 5\r\n\r\n012")
        with client.makefile("rb") as file:
            counts = received_counts(file, receive_head(file, "GET"), memoryview(bytearray(5)))
            assert next(counts) == 3
            with pytest.raises(TimeoutError):
                next(counts)


@pytest.mark.parametrize("value", ["a\r\nx-ms-meta-b: c", "a\nb", "a\rb", "\u20ac"])
def test_header_value_cannot_become_another_header(value: str) -> None:
    with pytest.raises(InvalidArgument, match="header"):
        request_head("PUT", "/box/x", {"x-ms-blob-content-type": value})


def test_answer_that_comes_before_the_body_is_sent_is_received() -> None:
    client, server = socket.socketpair()
    with client, server:
        server.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        server.shutdown(socket.SHUT_RD)
        send_request(client, b"PUT /x HTTP/1.1\r\n\r\n", bytes(1 << 20))
        with client.makefile("rb") as file:
            assert receive_head(file, "PUT").status == 413
