"""Requests and replies as values, and the headers and XML they carry. Pure: no I/O, no clock.

Header names: https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple
from xml.etree import ElementTree

from blobfs.blocks import MAX_METADATA_BYTES
from blobfs.errors import InvalidArgument, NoSpace, Unavailable
from blobfs.store import BlobInfo, BlobKind, CommittedBlock, Condition, ContentHeaders, Properties

METADATA_PREFIX = "x-ms-meta-"
NANOSECONDS = 1_000_000_000

_CONTENT_HEADERS = {attribute.name: attribute.name.replace("_", "-") for attribute in fields(ContentHeaders)}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_METADATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_METADATA_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")  # what a header can carry: printable latin-1


NOTHING: Mapping[str, str] = {}


class Request(NamedTuple):
    """One operation on a blob or, without a name, on its container."""

    kind: str  # what counters and messages call it
    method: str
    name: str = ""
    query: Mapping[str, str] = NOTHING
    headers: Mapping[str, str] = NOTHING
    body: memoryview | bytes = b""
    into: memoryview | None = None  # where the body of a success goes

    @property
    def wants_absence(self) -> bool:
        """Whether the operation is to happen only if the name is free."""
        return self.headers.get("If-None-Match") == "*"


class Reply(NamedTuple):
    """What the service answered."""

    status: int
    headers: Mapping[str, str]  # by names in lower case, but for what follows METADATA_PREFIX
    request_id: str
    body: bytes = b""
    received_bytes: int = 0  # into the request's memory
    skipped_bytes: int = 0  # in front of those: earlier attempts had received them
    doubtful: bool = False  # an earlier attempt went unanswered and may have been carried out

    @property
    def ok(self) -> bool:
        """Whether the service did what was asked."""
        return self.status < 300

    @property
    def error_code(self) -> str:
        """The service's own word for what went wrong; empty if it said none."""
        if code := self.headers.get("x-ms-error-code", ""):
            return code
        found = re.search(rb"<Code>(\w+)</Code>", self.body)
        return found[1].decode() if found else ""

    def retry_after_seconds(self, now: float) -> float:
        """How long the service asks to wait: it says so in seconds or as a date. 0 if it does not ask."""
        text = self.headers.get("retry-after", "")
        if text.isdecimal():
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - now)
        except (ValueError, OverflowError):
            return 0.0


def rest_of(request: Request, reply_headers: Mapping[str, str], received_bytes: int) -> Request:
    """Return the request for what is missing after a reply broke off.

    That is the same request unless both know which version and which bytes they mean, and if
    no MD5 was asked for, which is of all of it.
    """
    if "x-ms-range-get-content-md5" in request.headers:
        return request
    first, _, last = request.headers.get("x-ms-range", "").removeprefix("bytes=").partition("-")
    begins_there = reply_headers.get("content-range", "").startswith(f"bytes {first}-")
    if request.into is None or "If-Match" not in request.headers or not (received_bytes and begins_there):
        return request
    span = {"x-ms-range": f"bytes={int(first) + received_bytes}-{last}"}
    return request._replace(headers={**request.headers, **span}, into=request.into[received_bytes:])


def quoted(etag: str) -> str:
    """Return an ETag as headers carry it."""
    return f'"{etag}"'


def unquoted(etag: str) -> str:
    """Return an ETag without the quotes that it may have."""
    return etag.strip('"')


def condition_headers(condition: Condition) -> dict[str, str]:
    """Return the headers that make a write conditional."""
    if condition.if_absent:
        return {"If-None-Match": "*"}
    return {"If-Match": quoted(condition.if_match)} if condition.if_match else {}


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that store this metadata.

    Raises InvalidArgument for what no header can carry, NoSpace above the service's limit.
    """
    for key, value in metadata.items():
        if not _METADATA_KEY.fullmatch(key):
            raise InvalidArgument(f"metadata key {key!r} is not an identifier")
        if not _METADATA_VALUE.fullmatch(value):
            raise InvalidArgument(f"the value of metadata {key} has characters that no header can carry")
    size_bytes = sum(len(key) + len(value) for key, value in metadata.items())
    if size_bytes > MAX_METADATA_BYTES:
        raise NoSpace(f"metadata of {size_bytes} bytes: a blob has room for {MAX_METADATA_BYTES}")
    return {METADATA_PREFIX + key: value for key, value in metadata.items()}


def property_headers(properties: Properties) -> dict[str, str]:
    """Return the headers that store these properties with a commit."""
    headers = metadata_headers(properties.metadata)
    for attribute, header in _CONTENT_HEADERS.items():
        if value := getattr(properties.headers, attribute):
            headers["x-ms-blob-" + header] = value
    if properties.tier:
        headers["x-ms-access-tier"] = properties.tier
    if properties.content_md5:
        headers["x-ms-blob-content-md5"] = base64_text(properties.content_md5)
    return headers


def base64_text(digest: bytes) -> str:
    """Return a checksum as headers carry it."""
    return base64.b64encode(digest).decode()


def blob_info(name: str, headers: Mapping[str, str]) -> BlobInfo:
    """Return what the headers of a GET or HEAD tell of a blob. Raises Unavailable if they make no sense."""
    try:
        return BlobInfo(
            name=name,
            etag=unquoted(headers["etag"]),
            size_bytes=_whole_size_bytes(headers),
            modified_ns=modified_ns(headers["last-modified"]),
            metadata=_metadata_of(headers),
            headers=ContentHeaders(*[headers.get(header, "") for header in _CONTENT_HEADERS.values()]),
            content_md5=md5_of(headers.get(_whole_md5_header(headers))),
            kind=BlobKind(headers.get("x-ms-blob-type", BlobKind.BLOCK.value)),
            tier=headers.get("x-ms-access-tier", ""),
        )
    except (KeyError, ValueError) as error:
        raise Unavailable(f"{name}: the service's reply makes no sense: {error!r}") from error


def written_info(name: str, headers: Mapping[str, str], size_bytes: int, properties: Properties) -> BlobInfo:
    """Return the blob that a write made, from the headers of its reply."""
    try:
        return BlobInfo(
            name=name,
            etag=unquoted(headers["etag"]),
            size_bytes=size_bytes,
            modified_ns=modified_ns(headers["last-modified"]),
            metadata=dict(properties.metadata),
            headers=properties.headers,
            content_md5=properties.content_md5,
        )
    except (KeyError, ValueError) as error:
        raise Unavailable(f"{name}: the service's reply makes no sense: {error!r}") from error


def _whole_size_bytes(headers: Mapping[str, str]) -> int:
    content_range = headers.get("content-range")
    size = content_range.rpartition("/")[2] if content_range else headers["content-length"]
    if not size.isdecimal():
        raise ValueError(f"a size of {size!r}")
    return int(size)


def etag_of(name: str, headers: Mapping[str, str]) -> str:
    """Return the ETag that a write made. Raises Unavailable if the reply has none."""
    if "etag" not in headers:
        raise Unavailable(f"{name}: the service's reply makes no sense: it has no ETag")
    return unquoted(headers["etag"])


def _whole_md5_header(headers: Mapping[str, str]) -> str:
    """In reply to a range, Content-MD5 is that of the range."""
    return "x-ms-blob-content-md5" if "content-range" in headers else "content-md5"


def _metadata_of(headers: Mapping[str, str]) -> dict[str, str]:
    start = len(METADATA_PREFIX)
    return {key[start:]: value for key, value in headers.items() if key.startswith(METADATA_PREFIX)}


def md5_of(text: str | None) -> bytes | None:
    """Return the checksum that a header or a listing carries; None if there is no sound one."""
    # Of 24 characters only 22 of the alphabet and two for the missing byte, in their places, make 16 bytes.
    if text is None or len(text) != 24:
        return None
    try:
        digest = binascii.a2b_base64(text)
    except ValueError:
        return None
    return digest if len(digest) == 16 else None


@lru_cache(maxsize=1024)
def modified_ns(http_date: str) -> int:
    """Return a date such as ``Sun, 22 Nov 2026 10:20:53 GMT`` as nanoseconds since 1970.

    Several times faster than `email.utils`, which counts in listings. Raises ValueError.
    """
    day, month, year = int(http_date[5:7]), _MONTHS.index(http_date[8:11]) + 1, int(http_date[12:16])
    hour, minute, second = int(http_date[17:19]), int(http_date[20:22]), int(http_date[23:25])
    moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    return int(moment.timestamp()) * NANOSECONDS


def block_list_xml(block_ids: Sequence[str]) -> bytes:
    """Return the body that commits these blocks, each wherever it was staged last."""
    entries = "".join(f"<Latest>{block_id}</Latest>" for block_id in block_ids)
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{entries}</BlockList>'.encode()


def blocks_of(body: bytes, part: str) -> list[CommittedBlock]:
    """Return what a block list names in its part `CommittedBlocks` or `UncommittedBlocks`, in order.

    Raises Unavailable if it is not a block list.
    """
    try:
        root = ElementTree.fromstring(body)
        if root.tag != "BlockList":
            raise ValueError(f"it begins with <{root.tag}>")
        return [
            CommittedBlock(block.findtext("Name", ""), int(block.findtext("Size", "")))
            for block in root.iterfind(f"{part}/Block")
        ]
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Unavailable("the service's block list makes no sense") from error
