"""Many deletions in one request, and what became of each. Pure.

Format: https://learn.microsoft.com/rest/api/storageservices/blob-batch
"""

import re
from collections.abc import Sequence

from blobfs.azure.messages import Reply, Request

UNTOLD = 0  # no status at all
REFUSALS = frozenset((400, 401, 403, 405, 500, 501))  # of a service without batches, or for this credential

_BOUNDARY = "batch_blobfs"  # heads hold no line that begins with it
_PART_HEADERS = (
    "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\nContent-ID: {}\r\n\r\n"
)
_PART = re.compile(
    rb"^Content-ID:[ \t]*([0-9]{1,3})[ \t]*\r\n"
    rb"(?:[^\r\n]+\r\n)*\r\n"  # what else there is in front of the reply
    rb"HTTP/1\.[01] ([1-5][0-9]{2})\b",
    re.MULTILINE | re.IGNORECASE,
)
_REFUSAL = re.compile(rb"^HTTP/1\.[01] ([45][0-9]{2})\b", re.MULTILINE)


def batch_request(heads: Sequence[bytes]) -> Request:
    """Return the request that carries others, given by their heads; they are numbered from 0."""
    parts = [
        f"--{_BOUNDARY}\r\n{_PART_HEADERS.format(number)}".encode() + head
        for number, head in enumerate(heads)
    ]
    return Request(
        "POST batch",
        "POST",
        query={"restype": "container", "comp": "batch"},
        headers={"Content-Type": f"multipart/mixed; boundary={_BOUNDARY}"},
        body=b"".join((*parts, f"--{_BOUNDARY}--\r\n".encode())),
    )


def statuses_of(reply: Reply | None, count: int) -> Sequence[int]:
    """Return the statuses of the requests in a batch of so many, in order; UNTOLD for what nothing tells."""
    if reply is None or not reply.ok:
        return [reply.status if reply else UNTOLD] * count
    # The standard library's parser takes 100 µs for each, a quarter of a request by itself.
    told = {int(number): int(status) for number, status in _PART.findall(reply.body)}
    # If the service cannot make sense of a batch, it replies with one part, which has no number.
    refusals = [] if told else _REFUSAL.findall(reply.body)
    others = int(refusals[0]) if len(refusals) == 1 else UNTOLD
    return [told.get(number, others) for number in range(count)]
