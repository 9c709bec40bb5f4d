"""A page of a listing, from the bytes of List Blobs. Pure: no I/O, no clock.

Format: https://learn.microsoft.com/rest/api/storageservices/list-blobs

A blob that is written as the service writes nearly all of them is cut out of the text and read by its
tags alone, at a third of what an XML reader takes; any other, and all the rest of the page, is ElementTree's.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from sys import intern
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from blobfs.azure.messages import md5_of, modified_ns, unquoted
from blobfs.errors import Unavailable
from blobfs.store import NO_METADATA, BlobInfo, BlobKind, ContentHeaders, ListPage

# Characters that XML forbids. The service percent-encodes names that have them; should they come raw
# all the same, one name must not hide all the others.
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
# What the text must not have to be read by its tags: characters that XML forbids or changes.
_UNUSUAL_BYTES = bytes(byte for byte in range(32) if chr(byte) not in "\t\n")
_UNUSUAL_CHARACTERS = "\ufffe\uffff"
_DECLARATION = b'<?xml version="1.0" encoding="utf-8"?>'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_KINDS = {kind.value: kind for kind in BlobKind}
_HEADERS = ("Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control")
_PROPERTIES = ("Etag", "Content-Length", "Last-Modified", "Content-MD5", "BlobType", "AccessTier", *_HEADERS)

_CREATION_TIME = re.compile("<Creation-Time>[^<]*</Creation-Time>")
# The tag and the text of each element. An empty tag is none.
_elements = re.compile("<([^</>]+)>([^<]*)").findall
_wanted_elements = re.compile(f"<({'|'.join(_PROPERTIES)})>([^<]*)").findall

_modified_ns = lru_cache(4096)(modified_ns)  # files copied together have few dates
_headers = lru_cache(1024)(ContentHeaders)  # and few types


def parse_page(body: bytes) -> ListPage:
    """Return the page. Raises Unavailable if the bytes are not one.

    Names with characters that XML cannot carry have U+FFFD in their place.
    """
    try:
        text = _plain_text(body)
        page = None if text is None else _plain_page(text)
        return _page(_root(body)) if page is None else page
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Unavailable(f"the service's listing makes no sense: {error!r}") from error


def _plain_text(body: bytes) -> str | None:
    """Return the text of a page if it may be read by its tags."""
    declaration = body.removeprefix(_BYTE_ORDER_MARK)[: len(_DECLARATION)].lower()
    if declaration.replace(b"'", b'"') != _DECLARATION:
        return None
    if len(body.translate(None, _UNUSUAL_BYTES)) != len(body):
        return None
    text = body.decode("utf-8-sig")
    return None if any(character in text for character in _UNUSUAL_CHARACTERS) else text


def _plain_page(text: str) -> ListPage | None:
    """Read a page by its tags; None for one in which metadata is called like an entry."""
    start, *parts = text.split("<Blob>")
    blobs: list[BlobInfo] = []
    rest = [start]
    for part in parts:
        blob, end, after = part.partition("</Blob>")
        if not end:
            return None
        blobs.append(_plain_blob(blob) or _blob(ElementTree.fromstring(f"<Blob>{blob}</Blob>")))
        rest.append(after)
    page = _page(ElementTree.fromstring("".join(rest)))
    return ListPage(blobs, page.prefixes, page.next_marker) if blobs else page


def _plain_blob(text: str) -> BlobInfo | None:
    """Read a blob's elements; None for one with other markup, or metadata without a value."""
    before, _, after = text.partition("<Properties>")
    properties, _, after = after.partition("</Properties>")
    metadata = after.partition("<Metadata>")[2].rpartition("</Metadata>")[0]
    name = before.strip().removeprefix("<Name>").removesuffix("</Name>")
    # Of entities, attributes, comments and CDATA. Not by `any`, which takes four times as long.
    has_markup = "&" in text or '"' in text or "'" in text or "!" in text
    if not name or "<" in name or "/>" in metadata or has_markup:
        return None
    # Interned, because most files have the mode, the owner and the group of others.
    tags = {intern(tag): intern(value) for tag, value in _elements(metadata)} if metadata else NO_METADATA
    return _usual_info(name, properties, tags) or _info(name, dict(_wanted_elements(properties)), tags)


def _usual_info(name: str, properties: str, metadata: Mapping[str, str]) -> BlobInfo | None:
    """Return what stands in the service's usual order; None for any other.

    Cut out is what differs from blob to blob. The rest is the same for many, and is read once.
    """
    first, _, rest = properties.partition("</Last-Modified><Etag>")
    etag, _, rest = rest.partition("</Etag><Content-Length>")
    length, is_usual, rest = rest.partition("</Content-Length>")
    created, _, modified = first.rpartition("<Last-Modified>")
    if not is_usual or (created and not _CREATION_TIME.fullmatch(created)):
        return None
    before, has_md5, rest = rest.partition("<Content-MD5>")
    md5, _, after = rest.partition("</Content-MD5>")
    headers, kind, tier = _same_for_many(before + after)
    content_md5 = md5_of(md5) if has_md5 else None
    return BlobInfo(
        name, etag, int(length), _modified_ns(modified), metadata, headers, content_md5, kind, tier
    )


@lru_cache(1024)
def _same_for_many(properties: str) -> tuple[ContentHeaders, BlobKind, str]:
    given = dict(_wanted_elements(properties))
    headers = _headers(*[given.get(header, "") for header in _HEADERS])
    return headers, _KINDS[given["BlobType"]], intern(given.get("AccessTier", ""))


def _root(body: bytes) -> Element:
    try:
        return ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return ElementTree.fromstring(_FORBIDDEN.sub(_REPLACEMENT, body))


def _page(root: Element) -> ListPage:
    if root.tag != "EnumerationResults":
        raise ValueError(f"it begins with <{root.tag}>")
    return ListPage(
        blobs=[_blob(element) for element in root.iterfind("Blobs/Blob")],
        prefixes=[_name(element) for element in root.iterfind("Blobs/BlobPrefix")],
        next_marker=root.findtext("NextMarker") or "",
    )


def _blob(element: Element) -> BlobInfo:
    return _info(_name(element), _texts(element.find("Properties")), _texts(element.find("Metadata")))


def _info(name: str, properties: dict[str, str], metadata: Mapping[str, str]) -> BlobInfo:
    given = properties.get
    return BlobInfo(
        name=name,
        etag=unquoted(properties["Etag"]),
        size_bytes=int(properties["Content-Length"]),
        modified_ns=_modified_ns(properties["Last-Modified"]),
        metadata=metadata,
        headers=_headers(*[given(header, "") for header in _HEADERS]),
        content_md5=md5_of(given("Content-MD5")),
        kind=_KINDS[properties["BlobType"]],
        tier=intern(given("AccessTier", "")),
    )


def _texts(element: Element | None) -> dict[str, str]:
    return {} if element is None else {child.tag: child.text or "" for child in element}


def _name(element: Element) -> str:
    name = element.find("Name")
    if name is None or not name.text:
        raise ValueError("an entry has no name")
    return unquote(name.text) if name.get("Encoded") == "true" else name.text
