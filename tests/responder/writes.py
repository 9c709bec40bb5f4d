"""The operations that change a blob as a whole."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from responder.account import APPEND_BLOB, BLOCK_BLOB, PAGE_BLOB, Account, Blob, Container
from responder.checks import checked_md5, checked_metadata, content_headers
from responder.conditions import require_source, require_writable
from responder.memory import Content, Part, Pattern
from responder.messages import Reply, Request, md5_line, parse_target
from responder.refusals import Refusal

# Returns the fields of the new version; called with the account locked.
Change = Callable[[Container], dict[str, Any]]

_ENCRYPTED = "x-ms-request-server-encrypted: true\r\n"


def put_blob(account: Account, request: Request, body: Part) -> Reply:
    """Put Blob of any type; a page blob's pages are zeros."""
    kind, md5 = request.header("x-ms-blob-type"), ""
    if kind == PAGE_BLOB:
        size_bytes = int(request.header("x-ms-blob-content-length") or 0)
        body = Content((Pattern("zeros", 0, size_bytes),)).part()
    elif kind == BLOCK_BLOB:
        given = checked_md5(request, body, "content-md5", "x-ms-blob-content-md5")
        md5 = given or ("" if request.is_unchecked else body.md5())
    elif kind != APPEND_BLOB:
        raise Refusal("InvalidHeaderValue")
    fields = {
        "kind": kind,
        "content": Content((body,)),
        "md5": md5,
        "metadata": checked_metadata(request),
        "headers": content_headers(request),
    }
    blob = write(account, request, lambda _: fields)
    return Reply(201, f"{blob.version_lines}{md5_line(md5)}{_ENCRYPTED}")


def set_metadata(account: Account, request: Request, _body: Part) -> Reply:
    """Set Blob Metadata."""
    blob = _alter(account, request, metadata=checked_metadata(request))
    return Reply(200, blob.version_lines + _ENCRYPTED)


def set_properties(account: Account, request: Request, _body: Part) -> Reply:
    """Set Blob Properties: those that are not given are cleared."""
    md5 = request.header("x-ms-blob-content-md5")
    return Reply(200, _alter(account, request, headers=content_headers(request), md5=md5).version_lines)


def set_tier(account: Account, request: Request, _body: Part) -> Reply:
    """Set Blob Tier, at once; it makes no new version."""
    with account.lock:
        container = account.container_of(request)
        container.keep(replace(container.blob(request.name), tier=request.header("x-ms-access-tier")))
    return Reply(200)


def copy_blob(account: Account, request: Request, _body: Part) -> Reply:
    """Copy Blob within this account, complete when it answers."""
    metadata, copy_id = checked_metadata(request), str(uuid4())

    def copied(_: Container) -> dict[str, Any]:
        source = source_of(account, request)
        return {
            "kind": source.kind,
            "content": source.content,
            "block_ids": source.block_ids,
            "md5": source.md5,
            "metadata": metadata or source.metadata,
            "headers": source.headers,
            "copy_lines": f"x-ms-copy-id: {copy_id}\r\nx-ms-copy-status: success\r\n",
        }

    blob = write(account, request, copied, unmet="TargetConditionNotMet")
    return Reply(202, f"{blob.version_lines}{blob.copy_lines}")


def delete_blob(account: Account, request: Request, _body: Part) -> Reply:
    """Delete Blob, with or without its snapshots."""
    with account.lock:
        container = account.container_of(request)
        container.blob(request.name)
        require_writable(request, container)
        if container.snapshots.get(request.name) and not request.header("x-ms-delete-snapshots"):
            raise Refusal("SnapshotsPresent")
        container.forget(request.name)
    return Reply(202)


def snapshot_blob(account: Account, request: Request, _body: Part) -> Reply:
    """Snapshot Blob. What counts here is that there are some: none can be read."""
    with account.lock:
        container = account.container_of(request)
        blob = container.blob(request.name)
        number = container.snapshots.get(request.name, 0) + 1
        container.snapshots[request.name] = number
    return Reply(201, f"{blob.version_lines}x-ms-snapshot: 2020-01-01T00:00:00.{number:07}Z\r\n")


def lease_blob(account: Account, request: Request, _body: Part) -> Reply:
    """Lease Blob: one is acquired for ever, or ended."""
    with account.lock:
        container = account.container_of(request)
        blob = container.blob(request.name)
        if request.header("x-ms-lease-action") != "acquire":
            container.leases.pop(request.name, None)
            return Reply(200, blob.version_lines)
        if request.name in container.leases:
            raise Refusal("LeaseAlreadyPresent")
        lease = container.leases[request.name] = request.header("x-ms-proposed-lease-id") or str(uuid4())
    return Reply(201, f"{blob.version_lines}x-ms-lease-id: {lease}\r\n")


def source_of(account: Account, request: Request) -> Blob:
    """Return the blob that the request copies from, the account being locked. Raises Refusal."""
    parts = urlsplit(request.header("x-ms-copy-source"))
    owner, container, name, _ = parse_target(parts.path)
    try:
        blob = account.container(owner, container).blob(name)
    except Refusal:
        raise Refusal("CannotVerifyCopySource") from None
    if blob.tier == "Archive":
        raise Refusal("BlobArchived")
    require_source(request, blob)
    return blob


def write(account: Account, request: Request, change: Change, *, unmet: str = "ConditionNotMet") -> Blob:
    """Make a new blob of the request's name, if it may, and return it; staged blocks are forgotten."""
    with account.lock:
        container = account.container_of(request)
        require_writable(request, container, unmet=unmet)
        blob = Blob(request.name, **account.stamp(), **change(container))
        container.keep(blob)
        container.staged.pop(request.name, None)
    return blob


def _alter(account: Account, request: Request, **fields: Any) -> Blob:
    """Make a new version of an existing blob, if it may, and return it."""
    with account.lock:
        container = account.container_of(request)
        current = container.blob(request.name)
        require_writable(request, container)
        blob = replace(current, **account.stamp(), **fields)
        container.keep(blob)
    return blob
