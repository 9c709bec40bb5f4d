"""Questions to the service that change nothing, whatever the answer is."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blobfs.azure.client import Client
from blobfs.azure.listing import parse_page
from blobfs.azure.messages import Reply, Request, quoted
from blobfs.errors import Failure
from blobfs.store import BlobInfo

ANSWER_SECONDS = 10.0  # for each question, tries again included

_ABSENT = f".blobfs-doctor-{uuid.uuid4().hex}"  # a name that no blob has
_LISTING = {"restype": "container", "comp": "list"}

# Each needs another permission, and fails for want of a blob where it has that.
_ACTIONS = {
    "list": Request("LIST", "GET", query={**_LISTING, "maxresults": "1"}),
    "read": Request("HEAD blob", "HEAD", _ABSENT),
    "create": Request(
        "PUT blob", "PUT", _ABSENT, headers={"x-ms-blob-type": "BlockBlob", "If-Match": quoted("0x0")}
    ),
    "write": Request("PUT metadata", "PUT", _ABSENT, query={"comp": "metadata"}),
    "delete": Request("DELETE blob", "DELETE", _ABSENT),
}


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """What the service said to one question, and when."""

    status: int
    error_code: str
    headers: Mapping[str, str]
    refusal: str  # in words; empty if the service did what was asked
    at: float  # time.time() half way between question and answer
    seconds: float

    @property
    def code(self) -> str:
        """The status with the service's own word for it, for whoever looks it up."""
        return f"HTTP {self.status} {self.error_code}".strip()

    @property
    def is_allowed(self) -> bool:
        """The credential is good for this, whether or not there was anything to do."""
        return self.status not in (401, 403)


class Inspector:
    """Asks about one container. All methods raise TimedOut or Unavailable if there is no answer at all."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def try_to(self, action: str) -> ProbeReply:
        """Try to list, read, create, write or delete, in a way that cannot succeed but for the list."""
        request = _ACTIONS[action]
        answer = self._ask(request)
        if request.name and answer.status == 201:  # a service that ignores conditions
            self._ask(_ACTIONS["delete"])
        return answer

    def account(self) -> ProbeReply:
        """Ask what sort of account it is: Get Account Information."""
        return self._ask(Request("GET account", "GET", query={"restype": "account", "comp": "properties"}))

    def container(self) -> ProbeReply:
        """Ask for the container's properties, which the SAS of a container may not."""
        return self._ask(Request("GET container", "GET", query={"restype": "container"}))

    def blob(self, name: str) -> ProbeReply:
        """Ask for a blob's properties."""
        return self._ask(Request("HEAD blob", "HEAD", name))

    def some_blobs(self) -> Sequence[BlobInfo]:
        """Return some of the container's blobs. Raises AccessDenied."""
        request = Request("LIST", "GET", query={**_LISTING, "maxresults": "1000"})
        return parse_page(self._client.call(request, within_seconds=ANSWER_SECONDS).body).blobs

    def shows_deleted(self) -> bool:
        """Tell whether a listing shows blobs that were deleted and can be had back: soft delete is on."""
        query = {**_LISTING, "include": "deleted", "maxresults": "1000"}
        reply = self._client.ask(Request("LIST", "GET", query=query), within_seconds=ANSWER_SECONDS)
        return reply.ok and b"<Deleted>true</Deleted>" in reply.body

    def read(self, blob: BlobInfo, start: int, into: memoryview) -> int:
        """Read some of a version of a blob; return how many bytes came. Raises Failure."""
        span = {"x-ms-range": f"bytes={start}-{start + len(into) - 1}", "If-Match": quoted(blob.etag)}
        request = Request("GET blob", "GET", blob.name, headers=span, into=into)
        reply = self._client.call(request, within_seconds=ANSWER_SECONDS)
        return reply.skipped_bytes + reply.received_bytes

    def _ask(self, request: Request) -> ProbeReply:
        began_at, began = time.time(), time.monotonic()
        reply = self._client.ask(request, within_seconds=ANSWER_SECONDS)
        seconds = time.monotonic() - began
        refusal = self._refusal(request, reply)
        return ProbeReply(
            reply.status, reply.error_code, reply.headers, refusal, began_at + seconds / 2, seconds
        )

    def _refusal(self, request: Request, reply: Reply) -> str:
        try:
            self._client.check(request, reply)
        except Failure as failure:
            return str(failure)
        return ""
