"""The operations on blocks: staged one by one, and made a blob by a list of their ids.

https://learn.microsoft.com/rest/api/storageservices/put-block-list
"""

from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from responder.account import BLOCK_BLOB, Account, Blob, Container
from responder.checks import checked_block_id, checked_md5, checked_metadata, content_headers
from responder.conditions import require_lease
from responder.memory import Content, Part, Span
from responder.messages import Reply, Request, md5_line, xml_reply
from responder.reads import range_of
from responder.refusals import Refusal
from responder.writes import source_of, write

MAX_BLOCKS_PER_BLOB = 50_000
MAX_UNCOMMITTED_BLOCKS = 100_000

_BLOCK_LIST_TYPES = ("committed", "uncommitted", "all")


def put_block(account: Account, request: Request, body: Part) -> Reply:
    """Put Block."""
    if not body.size_bytes:
        raise Refusal("InvalidHeaderValue")
    md5 = checked_md5(request, body, "content-md5")
    _stage(account, request, body)
    return Reply(201, md5_line(md5))


def put_block_from_url(account: Account, request: Request, _body: Part) -> Reply:
    """Put Block From URL, the source being a blob of this account."""
    with account.lock:
        source = source_of(account, request)
    span = range_of(request.header("x-ms-source-range"), source.content.size_bytes)
    part = source.content.part(*span)
    md5 = checked_md5(request, part, "x-ms-source-content-md5")
    _stage(account, request, part)
    return Reply(201, md5_line(md5))


def put_block_list(account: Account, request: Request, body: Part) -> Reply:
    """Put Block List. The blob's MD5 is stored as it is given."""
    checked_md5(request, body, "content-md5")
    wanted = _wanted_blocks(b"".join(body))
    fields = {
        "block_ids": tuple(block_id for _, block_id in wanted),
        "md5": request.header("x-ms-blob-content-md5"),
        "metadata": checked_metadata(request),
        "headers": content_headers(request),
    }

    def committed(container: Container) -> dict[str, Any]:
        return {"content": _assembled(container, request.name, wanted), **fields}

    blob = write(account, request, committed)
    return Reply(201, f"{blob.version_lines}x-ms-request-server-encrypted: true\r\n")


def get_block_list(account: Account, request: Request, _body: Part) -> Reply:
    """Get Block List."""
    wanted = request.query.get("blocklisttype", "committed").lower()
    if wanted not in _BLOCK_LIST_TYPES:
        raise Refusal("InvalidQueryParameterValue")
    with account.lock:
        container = account.container_of(request)
        blob = container.blobs.get(request.name)
        staged = dict(container.staged.get(request.name, {}))
    if blob is None and not staged:
        raise Refusal("BlobNotFound")
    _require_block_blob(blob)
    committed = _committed_blocks(blob)
    lists = _blocks_xml("CommittedBlocks", committed) if wanted != "uncommitted" else ""
    lists += _blocks_xml("UncommittedBlocks", staged.items()) if wanted != "committed" else ""
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{lists}</BlockList>'.encode()
    if blob is None or not committed:  # of a blob without blocks the service does not tell the version
        return xml_reply(body)
    return xml_reply(body, f"{blob.version_lines}x-ms-blob-content-length: {blob.content.size_bytes}\r\n")


def drop_uncommitted(account: Account, request: Request) -> None:
    """Forget the uncommitted blocks of the request's blob, as the service does after a week."""
    with account.lock:
        account.container_of(request).staged.pop(request.name, None)


def _stage(account: Account, request: Request, block: Span) -> None:
    block_id = checked_block_id(request)
    with account.lock:
        container = account.container_of(request)
        require_lease(request, container)
        _require_block_blob(container.blobs.get(request.name))
        staged = container.staged.setdefault(request.name, {})
        if staged and len(next(iter(staged))) != len(block_id):
            raise Refusal("InvalidBlobOrBlock")
        if len(staged) >= MAX_UNCOMMITTED_BLOCKS and block_id not in staged:
            raise Refusal("BlockCountExceedsLimit")
        staged[block_id] = block


def _wanted_blocks(body: bytes) -> list[tuple[str, str]]:
    """Return where each block is to be looked for, and its id."""
    try:
        wanted = [(element.tag, (element.text or "").strip()) for element in ElementTree.fromstring(body)]
    except ElementTree.ParseError:
        raise Refusal("InvalidXmlDocument") from None
    if len(wanted) > MAX_BLOCKS_PER_BLOB:
        raise Refusal("BlockListTooLong")
    return wanted


def _assembled(container: Container, name: str, wanted: Iterable[tuple[str, str]]) -> Content:
    """Return the bytes that a block list makes. Raises Refusal if it names what is not there."""
    blob = container.blobs.get(name)
    _require_block_blob(blob)
    committed, staged = dict(_committed_blocks(blob)), container.staged.get(name, {})
    places: Mapping[str, Mapping[str, Span]] = {
        "Committed": committed,
        "Uncommitted": staged,
        "Latest": {**committed, **staged},
    }
    try:
        return Content([places[place][block_id] for place, block_id in wanted])
    except KeyError:
        raise Refusal("InvalidBlockList") from None


def _committed_blocks(blob: Blob | None) -> list[tuple[str, Span]]:
    if blob is None or blob.block_ids is None:
        return []
    return list(zip(blob.block_ids, blob.content.spans, strict=True))


def _require_block_blob(blob: Blob | None) -> None:
    if blob and blob.kind != BLOCK_BLOB:
        raise Refusal("InvalidBlobType")


def _blocks_xml(tag: str, blocks: Iterable[tuple[str, Span]]) -> str:
    entries = (
        f"<Block><Name>{escape(name)}</Name><Size>{span.size_bytes}</Size></Block>" for name, span in blocks
    )
    return f"<{tag}>{''.join(entries)}</{tag}>"
