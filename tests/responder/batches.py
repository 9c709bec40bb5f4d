"""Requests within a request, and the replies within its reply.

https://learn.microsoft.com/rest/api/storageservices/blob-batch
"""

from collections.abc import Iterator, Sequence

from responder.memory import Part
from responder.messages import Reply, Request, parse_request, whole
from responder.refusals import Refusal

MAX_REQUESTS = 256

_BOUNDARY = "responder-batch"


def requests_of(request: Request, body: Part) -> list[tuple[str, Request]]:
    """Return what a batch carries, each with its Content-ID. Raises Refusal for what is no such batch."""
    try:
        found = list(_parts(request.header("content-type"), b"".join(body)))
    except ValueError:
        raise Refusal("InvalidInput") from None
    if not found:
        raise Refusal("InvalidInput")
    if len(found) > MAX_REQUESTS:
        raise Refusal("ExceedsMaxBatchRequestCount")
    here = (request.account, request.container)
    if any((part.account, part.container) != here or part.method != "DELETE" for _, part in found):
        raise Refusal("InvalidInput")
    return found


def reply_of(replies: Sequence[tuple[str, Request, Reply]]) -> Reply:
    """Return the reply that carries these, each with its Content-ID and its request."""
    parts = [
        f"--{_BOUNDARY}\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n".encode()
        + reply.head(request)
        + b"".join((*(reply.body or ()), b"\r\n"))
        for number, request, reply in replies
    ]
    body = b"".join((*parts, f"--{_BOUNDARY}--\r\n".encode()))
    return Reply(202, f"Content-Type: multipart/mixed; boundary={_BOUNDARY}\r\n", whole(body))


def _parts(content_type: str, body: bytes) -> Iterator[tuple[str, Request]]:
    """Yield Content-ID and request of each part. Raises ValueError."""
    _, boundary = content_type.split("boundary=")
    parts, _ = body.split(f"--{boundary}--".encode())
    for part in parts.split(f"--{boundary}\r\n".encode())[1:]:
        outer, head, _ = part.split(b"\r\n\r\n")
        headers = dict(line.split(": ") for line in outer.decode().split("\r\n"))
        if "Content-ID" not in headers:
            raise ValueError("a part has no Content-ID")
        yield headers["Content-ID"], parse_request(head)
