"""Containers and blobs: the state of the service, and what keeps it consistent."""

import bisect
import itertools
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from responder.memory import Content, Span
from responder.messages import METADATA_PREFIX, Request, http_date
from responder.refusals import Refusal

# What a blob carries besides its bytes, and the request's header for each.
CONTENT_HEADERS = {
    "Content-Type": "x-ms-blob-content-type",
    "Content-Encoding": "x-ms-blob-content-encoding",
    "Content-Language": "x-ms-blob-content-language",
    "Content-Disposition": "x-ms-blob-content-disposition",
    "Cache-Control": "x-ms-blob-cache-control",
}

BLOCK_BLOB = "BlockBlob"
PAGE_BLOB = "PageBlob"
APPEND_BLOB = "AppendBlob"

_FORBIDDEN_IN_XML = {*map(chr, range(32)), "\ufffe", "\uffff"} - set("\t\n\r")


@dataclass(frozen=True)
class Blob:
    """One version of a blob. It never changes, so what is told of it is worked out once."""

    name: str
    etag: str
    modified_seconds: int
    content: Content
    kind: str = BLOCK_BLOB
    block_ids: tuple[str, ...] | None = None  # one for each span; None if it was written whole
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    md5: str = ""  # base64
    tier: str = "Hot"
    copy_lines: str = ""

    @cached_property
    def version_lines(self) -> str:
        """The header lines that tell the version."""
        return f'ETag: "{self.etag}"\r\nLast-Modified: {http_date(self.modified_seconds)}\r\n'

    @cached_property
    def property_lines(self) -> str:
        """The header lines that a GET and a HEAD have in common."""
        headers = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        metadata = "".join(f"{METADATA_PREFIX}{name}: {value}\r\n" for name, value in self.metadata.items())
        fixed = f"Accept-Ranges: bytes\r\nx-ms-blob-type: {self.kind}\r\nx-ms-server-encrypted: true\r\n"
        return f"{self.version_lines}{fixed}{headers}{metadata}{self.copy_lines}"

    @cached_property
    def list_entry(self) -> str:
        """The blob in a listing, without the end, where metadata may follow."""
        md5 = f"<Content-MD5>{self.md5}</Content-MD5>" if self.md5 else ""
        tier = f"<AccessTier>{self.tier}</AccessTier>" if self.tier else ""
        return (
            f"<Blob>{name_xml(self.name)}<Properties>"
            f"<Last-Modified>{http_date(self.modified_seconds)}</Last-Modified><Etag>{self.etag}</Etag>"
            f"<Content-Length>{self.content.size_bytes}</Content-Length>{_xml(self.headers)}{md5}"
            f"<BlobType>{self.kind}</BlobType>{tier}<AccessTierInferred>true</AccessTierInferred>"
            "<ServerEncrypted>true</ServerEncrypted></Properties>"
        )

    @property
    def list_entry_with_metadata(self) -> str:
        """The same, with metadata."""
        return f"{self.list_entry}<Metadata>{_xml(self.metadata)}</Metadata>"


@dataclass
class Container:
    """The blobs of one container. The account's lock guards it."""

    etag: str
    modified_seconds: int
    is_public: bool = False
    blobs: dict[str, Blob] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # of the blobs, sorted
    staged: dict[str, dict[str, Span]] = field(default_factory=dict)  # uncommitted blocks by name and id
    leases: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, int] = field(default_factory=dict)

    def blob(self, name: str) -> Blob:
        """Return a blob. Raises Refusal if there is none."""
        try:
            return self.blobs[name]
        except KeyError:
            raise Refusal("BlobNotFound") from None

    def keep(self, blob: Blob) -> None:
        """Make it the blob of its name."""
        if blob.name not in self.blobs:
            bisect.insort(self.names, blob.name)
        self.blobs[blob.name] = blob

    def keep_all(self, blobs: Iterable[Blob]) -> None:
        """Take in very many blobs at once."""
        for blob in blobs:
            self.blobs[blob.name] = blob
            self.staged.pop(blob.name, None)
        self.names = sorted(self.blobs)

    def forget(self, name: str) -> None:
        """Remove a blob with all that belongs to it."""
        del self.blobs[name]
        del self.names[bisect.bisect_left(self.names, name)]
        for belongings in (self.staged, self.leases, self.snapshots):
            belongings.pop(name, None)


class Account:
    """All containers. Holding `lock` is what makes several steps one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards everything in here
        self._containers: dict[tuple[str, str], Container] = {}
        self._numbers = itertools.count(0x8DC000000000000)

    def container(self, account: str, name: str) -> Container:
        """Return a container. Raises Refusal if there is none."""
        try:
            return self._containers[account, name]
        except KeyError:
            raise Refusal("ContainerNotFound") from None

    def container_of(self, request: Request) -> Container:
        """Return the request's container. Raises Refusal if there is none."""
        return self.container(request.account, request.container)

    def create_container(self, account: str, name: str, *, is_public: bool = False) -> Container:
        """Make a container. Raises Refusal if it exists."""
        if (account, name) in self._containers:
            raise Refusal("ContainerAlreadyExists")
        container = Container(**self.stamp(), is_public=is_public)
        self._containers[account, name] = container
        return container

    def delete_container(self, request: Request) -> None:
        """Remove a container and its blobs. Raises Refusal if there is none."""
        self.container_of(request)
        del self._containers[request.account, request.container]

    def stamp(self) -> dict[str, Any]:
        """Return what marks a new version: the ETag and the time."""
        return {"etag": f"0x{next(self._numbers):X}", "modified_seconds": int(time.time())}


def name_xml(name: str) -> str:
    """Return a name in a listing; percent-encoded if XML could not carry it."""
    if _FORBIDDEN_IN_XML.isdisjoint(name):
        return f"<Name>{escape(name)}</Name>"
    return f'<Name Encoded="true">{quote(name)}</Name>'


def _xml(elements: Mapping[str, str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for tag, text in elements.items() if text)
