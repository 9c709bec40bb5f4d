"""One exchange on an open connection, by RFC 9112: a request goes out, and a reply's parts come in.

http.client takes most of a small request's time for its headers, which it parses as those of an
e-mail. What is received here is bounded, and refused unless it is exactly what the standard allows.
Where the time goes is in docs/cpu.md.
"""

import re
import socket
from collections.abc import Iterator, Mapping
from http.client import HTTPException, RemoteDisconnected
from io import BufferedReader
from typing import NamedTuple

from blobfs.azure.messages import METADATA_PREFIX
from blobfs.blocks import KiB, MiB
from blobfs.errors import InvalidArgument

LARGEST_HEAD_BYTES = 64 * KiB  # a blob can have 8 KiB of metadata
MOST_HEADS = 8  # of one reply; all but the last are interim
LARGEST_BODY_BYTES = 256 * MiB  # of a listing: 5,000 blobs with all the metadata there can be, as XML

# A socket's timeout covers the whole of one sendall(): so much gets through a slow line in that time.
PIECE_BYTES = 256 * KiB
_JOINED_BYTES = 32 * KiB  # copying a body of that size costs less than sending it by itself

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5]\d\d)(?: .*)?", re.ASCII)
_FOLD = re.compile(r"\r\n[ \t]+")
_FIELD = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[^\r\n]*[^\r\n \t])?)[ \t]*\r\n", re.MULTILINE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_EMPTY_LINE = b"\r\n\r\n"  # with the end of the line in front of it
_LINE_BYTES = 4 * KiB  # in front of a chunk


class Head(NamedTuple):
    """What comes in front of a reply's body."""

    status: int
    headers: Mapping[str, str]  # as in `Reply`
    body_bytes: int | None  # None if only the body itself tells
    is_chunked: bool
    keeps_connection: bool  # it can be used again once the body is received


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Return what goes out in front of a request's body.

    Raises InvalidArgument for what no header can carry.
    """
    fields = [f"{name}: {value}" for name, value in headers.items()]
    text = "\r\n".join((f"{method} {target} HTTP/1.1", *fields, "", ""))
    line_ends = len(fields) + 2
    if text.count("\n") != line_ends or text.count("\r") != line_ends:
        raise InvalidArgument("a header of the request has a line break in it")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidArgument("a header of the request has characters that no header can carry") from error


def send_request(sock: socket.socket, head: bytes, body: memoryview | bytes) -> None:
    """Send all of a request, or as much as the service takes: it may answer before it has all."""
    view = memoryview(body)
    try:
        if len(view) <= _JOINED_BYTES:
            sock.sendall(b"".join((head, view)))
            return
        sock.sendall(head)
        for start in range(0, len(view), PIECE_BYTES):
            sock.sendall(view[start : start + PIECE_BYTES])
    except (BrokenPipeError, ConnectionResetError):
        return  # if no answer is there either, receiving will tell


def receive_head(file: BufferedReader, method: str) -> Head:
    """Receive the head of the reply to such a request. Raises HTTPException if it makes no sense."""
    for _ in range(MOST_HEADS):
        status_line, _, fields = _lines_to_empty_one(file).partition("\r\n")
        found = _STATUS_LINE.fullmatch(status_line)
        if not found:
            raise HTTPException("the reply is not HTTP")
        status = int(found[2])
        if status >= 200:
            return _framed(method, status, _headers_of(fields), is_old=found[1] == "0")
    raise HTTPException(f"the reply did not begin after {MOST_HEADS} interim ones")


def receive_body(file: BufferedReader, head: Head) -> bytes:
    """Receive a body that is no blob's.

    Raises HTTPException unless it is whole, and of a size that makes sense.
    """
    body = b"".join(_chunks(file)) if head.is_chunked else file.read(_wanted_bytes(head))
    if len(body) > LARGEST_BODY_BYTES:
        raise HTTPException(f"the reply has more than {LARGEST_BODY_BYTES} bytes")
    if head.body_bytes is not None and len(body) < head.body_bytes:
        raise HTTPException(f"the reply ended {head.body_bytes - len(body)} bytes early")
    return body


def received_counts(file: BufferedReader, head: Head, into: memoryview) -> Iterator[int]:
    """Receive a body where it belongs, yielding how many bytes have arrived each time some have.

    Raises HTTPException unless it is whole, and fits.
    """
    if head.body_bytes is None or head.body_bytes > len(into):
        raise HTTPException("the reply is not of the length asked for")
    rest = into[: head.body_bytes]
    while rest:
        # All that is there in one call: after each, a thread waits for the interpreter's lock.
        count = file.readinto1(rest)
        if not count:
            raise HTTPException(f"the reply ended {len(rest)} bytes early")
        yield count
        rest = rest[count:]


def _lines_to_empty_one(file: BufferedReader, begun: bytes = b"") -> str:
    """Receive lines up to an empty one, and return them all; `begun` was received before."""
    text = begun
    while len(text) < LARGEST_HEAD_BYTES:
        ahead = file.peek()
        end = (text + ahead).find(_EMPTY_LINE)
        text += file.read(len(ahead) if end < 0 else end + len(_EMPTY_LINE) - len(text))
        if end >= 0:
            return text.decode("latin-1")
        if not ahead:
            break
    if not text:
        raise RemoteDisconnected("the connection was closed without a reply")
    raise HTTPException("the reply broke off in its head, or that is too long")


def _headers_of(text: str) -> dict[str, str]:
    """Return header lines by their names; equal names make a list of values (RFC 9110, section 5.3)."""
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    fields = _FIELD.findall(text)
    if len(fields) != text.count("\n") - 1:  # the last line is empty
        raise HTTPException("the reply has a header that makes no sense")
    headers: dict[str, str] = {}
    for name, value in fields:
        key = name.lower()
        if key.startswith(METADATA_PREFIX):
            key = METADATA_PREFIX + name[len(METADATA_PREFIX) :]
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _framed(method: str, status: int, headers: Mapping[str, str], *, is_old: bool) -> Head:
    """Find the end of the body (RFC 9112, section 6.3)."""
    wishes = headers.get("connection", "").lower()
    keeps = "keep-alive" in wishes if is_old else "close" not in wishes
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if method == "HEAD" or status in (204, 304):
        return Head(status, headers, 0, is_chunked=False, keeps_connection=keeps)
    if coding is not None:
        if coding.lower() != "chunked":
            raise HTTPException("the reply has an encoding that nobody asked for")
        keeps = keeps and length is None  # two lengths: somebody on the way may have believed the other
        return Head(status, headers, None, is_chunked=True, keeps_connection=keeps)
    if length is None:
        return Head(status, headers, None, is_chunked=False, keeps_connection=False)
    if not _LENGTH.fullmatch(length):
        raise HTTPException("the reply has a length that is no number")
    return Head(status, headers, int(length), is_chunked=False, keeps_connection=keeps)


def _wanted_bytes(head: Head) -> int:
    most_bytes = LARGEST_BODY_BYTES + 1
    return most_bytes if head.body_bytes is None else min(head.body_bytes, most_bytes)


def _chunks(file: BufferedReader) -> Iterator[bytes]:
    """Receive a body in chunks, and what is behind the last (RFC 9112, section 7.1)."""
    room_bytes = LARGEST_BODY_BYTES
    while size_bytes := _chunk_bytes(file):
        room_bytes -= size_bytes
        if room_bytes < 0:
            raise HTTPException(f"the reply has more than {LARGEST_BODY_BYTES} bytes")
        chunk = file.read(size_bytes)
        if len(chunk) < size_bytes or file.read(2) != b"\r\n":
            raise HTTPException("the reply broke off in a chunk")
        yield chunk
    _lines_to_empty_one(file, begun=b"\r\n")  # the trailer, which nobody needs


def _chunk_bytes(file: BufferedReader) -> int:
    found = _CHUNK_LINE.fullmatch(file.readline(_LINE_BYTES))
    if not found:
        raise HTTPException("the reply has a chunk without a size")
    return int(found[1], 16)
