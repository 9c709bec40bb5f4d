"""The operations that read a blob."""

import re

from responder.account import Account, Blob
from responder.conditions import require_readable
from responder.memory import MiB, Part
from responder.messages import Reply, Request, md5_line
from responder.refusals import Refusal

_LARGEST_RANGE_WITH_MD5_BYTES = 4 * MiB
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def head_blob(account: Account, request: Request, _body: Part) -> Reply:
    """Get Blob Properties."""
    blob = _readable_blob(account, request)
    return Reply(
        200,
        f"{blob.property_lines}{md5_line(blob.md5)}x-ms-access-tier: {blob.tier}\r\n",
        announced_bytes=blob.content.size_bytes,
    )


def get_blob(account: Account, request: Request, _body: Part) -> Reply:
    """Get Blob, or a range of it."""
    blob = _readable_blob(account, request)
    if blob.tier == "Archive":
        raise Refusal("BlobArchived")
    wanted = request.header("x-ms-range") or request.header("range")
    if not wanted.startswith("bytes="):
        return Reply(200, blob.property_lines + md5_line(blob.md5), blob.content.part())
    return _range_reply(request, blob, *range_of(wanted, blob.content.size_bytes))


def range_of(header: str, size_bytes: int) -> tuple[int, int]:
    """Return start and end of the bytes that a header asks for; of all if it does not. Raises Refusal."""
    if not (found := _RANGE.fullmatch(header)):
        return 0, size_bytes
    start, end = int(found[1]), int(found[2]) + 1 if found[2] else size_bytes
    if start >= size_bytes or end <= start:
        raise Refusal("InvalidRange", headers=f"Content-Range: bytes */{size_bytes}\r\n")
    return start, min(end, size_bytes)


def _readable_blob(account: Account, request: Request) -> Blob:
    with account.lock:
        blob = account.container_of(request).blob(request.name)
    require_readable(request, blob)
    return blob


def _range_reply(request: Request, blob: Blob, start: int, end: int) -> Reply:
    body = blob.content.part(start, end)
    span = f"Content-Range: bytes {start}-{end - 1}/{blob.content.size_bytes}\r\n"
    whole_md5 = f"x-ms-blob-content-md5: {blob.md5}\r\n" if blob.md5 else ""
    return Reply(206, f"{blob.property_lines}{span}{whole_md5}{_range_checksum(request, body)}", body)


def _range_checksum(request: Request, body: Part) -> str:
    if request.header("x-ms-range-get-content-md5").lower() != "true":
        return ""
    if body.size_bytes > _LARGEST_RANGE_WITH_MD5_BYTES:
        raise Refusal("OutOfRangeInput")
    return md5_line(body.md5())
