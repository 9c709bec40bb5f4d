"""Requests and replies as values. Parsing is by hand: a small request must cost microseconds."""

import itertools
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote, unquote_plus

from responder.memory import Content, Given, Part
from responder.refusals import Refusal

METADATA_PREFIX = "x-ms-meta-"
VERSION = "2023-11-03"  # told to clients that name none

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_request_numbers = itertools.count(1)


@dataclass(slots=True)
class Request:
    """The head of one request."""

    method: str
    target: str  # path and query as they came
    account: str
    container: str
    name: str
    query: dict[str, str]
    headers: dict[str, str]  # by names in lower case
    metadata: dict[str, str]  # by names as they came
    size_bytes: int = 0  # of the body that follows
    is_unchecked: bool = False  # nobody looks into the body: its checksums are taken to fit

    def header(self, name: str) -> str:
        """Return a header; empty if it was not sent."""
        return self.headers.get(name, "")


@dataclass(slots=True)
class Reply:
    """An answer; `headers` are whole lines."""

    status: int
    headers: str = ""
    body: Part | None = None
    announced_bytes: int | None = None  # Content-Length, if not that of the body
    request_id: str = field(
        default_factory=lambda: f"{next(_request_numbers):08x}-0000-0000-0000-000000000000"
    )

    def head(self, request: Request) -> bytes:
        """Return the bytes in front of the body."""
        body_bytes = self.body.size_bytes if self.body else 0
        length = body_bytes if self.announced_bytes is None else self.announced_bytes
        client_id = request.headers.get("x-ms-client-request-id")
        echo = f"x-ms-client-request-id: {client_id}\r\n" if client_id else ""
        return (
            f"HTTP/1.1 {self.status} {_PHRASES.get(self.status, 'Unknown')}\r\n"
            f"Server: responder\r\nDate: {http_date(int(time.time()))}\r\n"
            f"x-ms-request-id: {self.request_id}\r\n{echo}"
            f"x-ms-version: {request.headers.get('x-ms-version', VERSION)}\r\n"
            f"{self.headers}Content-Length: {length}\r\n\r\n"
        ).encode("latin-1")


def parse_request(head: bytes) -> Request:
    """Return the request whose head this is, without the empty line. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers, metadata = {}, {}
    for line in lines:
        name, _, value = line.partition(":")
        lower = name.lower()
        if lower.startswith(METADATA_PREFIX):
            metadata[name[len(METADATA_PREFIX) :]] = value.strip()
        headers[lower] = value.strip()
    size_bytes = int(headers.get("content-length", 0))
    return Request(method, target, *parse_target(target), headers, metadata, size_bytes)


def parse_target(target: str) -> tuple[str, str, str, dict[str, str]]:
    """Return account, container, name and query of an address such as ``/ACCOUNT/CONTAINER/NAME?QUERY``."""
    path, _, query = target.partition("?")
    parts = path.split("/", 3)
    _, account, container, name = parts + [""] * (4 - len(parts))
    return account, container, unquote(name), _fields(query)


def _fields(query: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return {name: unquote_plus(value) if "%" in value or "+" in value else value for name, _, value in pairs}


@lru_cache(maxsize=1024)
def http_date(seconds: int) -> str:
    """Return a moment as headers carry it."""
    return formatdate(seconds, usegmt=True)


def whole(body: bytes) -> Part:
    """Return a body of these bytes."""
    return Content((Given(body),)).part()


def md5_line(md5: str) -> str:
    """Return the header line of a checksum, if there is one."""
    return f"Content-MD5: {md5}\r\n" if md5 else ""


def xml_reply(body: bytes, headers: str = "") -> Reply:
    """Return a success that is XML."""
    return Reply(200, f"Content-Type: application/xml\r\n{headers}", whole(body))


def refusal_reply(refusal: Refusal, request: Request) -> Reply:
    """Return the reply that says no; to a HEAD without a body."""
    reply = Reply(refusal.status, f"x-ms-error-code: {refusal.code}\r\n{refusal.headers}")
    if request.method != "HEAD":
        reply.headers += "Content-Type: application/xml\r\n"
        reply.body = whole(refusal.xml(reply.request_id, http_date(int(time.time()))))
    return reply
