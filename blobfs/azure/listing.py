"""A page of a listing, from the bytes of List Blobs. Pure: no I/O, no clock.

Format: https://learn.microsoft.com/rest/api/storageservices/list-blobs
"""

import re
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from blobfs.azure.messages import md5_of, modified_ns
from blobfs.errors import Unavailable
from blobfs.store import BlobInfo, BlobKind, ContentHeaders, ListPage

# Characters that XML forbids. The service percent-encodes names that have them; should they come raw
# all the same, one name must not hide all the others.
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


def parse_page(body: bytes) -> ListPage:
    """Return the page. Raises Unavailable if the bytes are not one.

    Names with characters that XML cannot carry have U+FFFD in their place.
    """
    try:
        return _page(_root(body))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Unavailable(f"the service's listing makes no sense: {error!r}") from error


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
    properties = _texts(element.find("Properties"))
    given = properties.get
    return BlobInfo(
        name=_name(element),
        etag=properties["Etag"].strip('"'),
        size_bytes=int(properties["Content-Length"]),
        modified_ns=modified_ns(properties["Last-Modified"]),
        metadata=_texts(element.find("Metadata")),
        headers=ContentHeaders(
            content_type=given("Content-Type", ""),
            content_encoding=given("Content-Encoding", ""),
            content_language=given("Content-Language", ""),
            content_disposition=given("Content-Disposition", ""),
            cache_control=given("Cache-Control", ""),
        ),
        content_md5=md5_of(given("Content-MD5")),
        kind=BlobKind(properties["BlobType"]),
        tier=given("AccessTier", ""),
    )


def _texts(element: Element | None) -> dict[str, str]:
    return {} if element is None else {child.tag: child.text or "" for child in element}


def _name(element: Element) -> str:
    name = element.find("Name")
    if name is None or not name.text:
        raise ValueError("an entry has no name")
    return unquote(name.text) if name.get("Encoded") == "true" else name.text
