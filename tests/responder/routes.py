"""Which operation a request is, by its method and its query."""

from collections.abc import Callable
from dataclasses import dataclass

from responder import containers, reads, staging, writes
from responder.account import Account
from responder.listing import list_blobs
from responder.memory import Part
from responder.messages import Reply, Request
from responder.refusals import Refusal

Handler = Callable[[Account, Request, Part], Reply]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing the service does."""

    kind: str  # what counters and rules call it
    handler: Handler
    permissions: str  # the letters of a SAS of which one is needed
    is_upload: bool = False  # the body becomes part of a blob


_COPY_BLOB = Operation("PUT copy", writes.copy_blob, "cw")
_PUT_BLOCK_FROM_URL = Operation("PUT block from URL", staging.put_block_from_url, "cw")


def _not_implemented(_account: Account, _request: Request, _body: Part) -> Reply:
    raise Refusal("NotImplemented")


BATCH = Operation("POST batch", _not_implemented, "d")  # the server carries out what is in it
_UNKNOWN = Operation("unknown", _not_implemented, "")

# By method, and by restype and comp of the query, whether it names a blob or not.
_OF_CONTAINERS = {
    ("GET", "container", "list"): Operation("LIST", list_blobs, "l"),
    ("GET", "container", ""): Operation("GET container", containers.get_container, "r"),
    ("HEAD", "container", ""): Operation("GET container", containers.get_container, "r"),
    ("PUT", "container", ""): Operation("PUT container", containers.create_container, "cw"),
    ("DELETE", "container", ""): Operation("DELETE container", containers.delete_container, "d"),
    ("POST", "container", "batch"): BATCH,
    ("GET", "account", "properties"): Operation("GET account", containers.get_account, "rl"),
    ("HEAD", "account", "properties"): Operation("GET account", containers.get_account, "rl"),
}
_OF_BLOBS = {
    ("HEAD", ""): Operation("HEAD blob", reads.head_blob, "r"),
    ("GET", ""): Operation("GET blob", reads.get_blob, "r"),
    ("GET", "blocklist"): Operation("GET block list", staging.get_block_list, "r"),
    ("PUT", ""): Operation("PUT blob", writes.put_blob, "cw", is_upload=True),
    ("PUT", "block"): Operation("PUT block", staging.put_block, "cw", is_upload=True),
    ("PUT", "blocklist"): Operation("PUT block list", staging.put_block_list, "cw"),
    ("PUT", "metadata"): Operation("PUT metadata", writes.set_metadata, "w"),
    ("PUT", "properties"): Operation("PUT properties", writes.set_properties, "w"),
    ("PUT", "tier"): Operation("PUT tier", writes.set_tier, "w"),
    ("PUT", "snapshot"): Operation("PUT snapshot", writes.snapshot_blob, "cw"),
    ("PUT", "lease"): Operation("PUT lease", writes.lease_blob, "wd"),
    ("DELETE", ""): Operation("DELETE blob", writes.delete_blob, "d"),
}


def route(request: Request) -> Operation:
    """Return what the request asks for; what the responder does not know is an operation that refuses."""
    method, query = request.method, request.query
    comp, restype = query.get("comp", ""), query.get("restype", "")
    if restype or not request.name:
        return _OF_CONTAINERS.get((method, restype, comp), _UNKNOWN)
    operation = _OF_BLOBS.get((method, comp), _UNKNOWN)
    if operation.is_upload and "x-ms-copy-source" in request.headers:
        return _PUT_BLOCK_FROM_URL if comp else _COPY_BLOB
    return operation
