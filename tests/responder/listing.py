"""List Blobs: pages of names in order, cut at a delimiter.

https://learn.microsoft.com/rest/api/storageservices/list-blobs
"""

import base64
import binascii
from bisect import bisect_left
from xml.sax.saxutils import escape, quoteattr

from responder.account import Account, Blob, Container, name_xml
from responder.memory import Part
from responder.messages import Reply, Request, xml_reply
from responder.refusals import Refusal

MAX_RESULTS = 5000


def list_blobs(account: Account, request: Request, _body: Part) -> Reply:
    """List Blobs."""
    query = request.query
    prefix, delimiter, marker = query.get("prefix", ""), query.get("delimiter", ""), query.get("marker", "")
    limit = _limit(query.get("maxresults", ""))
    first = max(prefix, _name_of(marker))
    with account.lock:
        entries, following = _page(account.container_of(request), prefix, delimiter, first, limit)
    with_metadata = "metadata" in query.get("include", "")
    blobs = "".join([_entry_xml(entry, with_metadata) for entry in entries])
    asked = "".join(
        f"<{tag}>{escape(query[tag.lower()])}</{tag}>"
        for tag in ("Prefix", "Marker", "MaxResults", "Delimiter")
        if query.get(tag.lower())
    )
    return xml_reply(
        f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="/{request.account}" '
        f"ContainerName={quoteattr(request.container)}>{asked}<Blobs>{blobs}</Blobs>"
        f"<NextMarker>{_marker_of(following)}</NextMarker></EnumerationResults>".encode()
    )


def _page(
    container: Container, prefix: str, delimiter: str, first: str, limit: int
) -> tuple[list[Blob | str], str]:
    """Return blobs and directories from a name on, and the name to go on with; empty at the end."""
    names, blobs = container.names, container.blobs
    entries: list[Blob | str] = []
    position = bisect_left(names, first)
    while position < len(names) and (name := names[position]).startswith(prefix):
        if len(entries) == limit:
            return entries, name
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            entries.append(blobs[name])
            position += 1
        else:
            directory = name[: cut + len(delimiter)]
            entries.append(directory)
            position = bisect_left(names, _after_all_in(directory), position)
    return entries, ""


def _after_all_in(directory: str) -> str:
    """Return what sorts behind every name that starts with this."""
    return directory[:-1] + chr(ord(directory[-1]) + 1)


def _entry_xml(entry: Blob | str, with_metadata: bool) -> str:
    if isinstance(entry, str):
        return f"<BlobPrefix>{name_xml(entry)}</BlobPrefix>"
    return f"{entry.list_entry_with_metadata if with_metadata else entry.list_entry}</Blob>"


def _limit(text: str) -> int:
    if not text:
        return MAX_RESULTS
    if not text.isdecimal() or int(text) == 0:
        raise Refusal("OutOfRangeQueryParameterValue")
    return min(int(text), MAX_RESULTS)


def _marker_of(name: str) -> str:
    # The service's markers are opaque; a name in clear would invite clients to make their own.
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_of(marker: str) -> str:
    try:
        return base64.urlsafe_b64decode(marker).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Refusal("OutOfRangeQueryParameterValue") from None
