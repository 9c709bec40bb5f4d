"""What a reply must say to be believed, beyond its status."""

from collections.abc import Mapping

from blobfs.azure.messages import Reply, base64_text
from blobfs.blocks import md5_digest
from blobfs.errors import Changed, Damaged, Unavailable
from blobfs.store import BlobInfo, same_metadata

ACCEPTED = 202  # https://learn.microsoft.com/rest/api/storageservices/delete-blob: "status code 202"
CREATED = 201  # https://learn.microsoft.com/rest/api/storageservices/put-block: "status code 201"


def require_there(name: str, reply: Reply) -> None:
    """Raise Changed if there is no blob any more: who asks for a version has seen one."""
    if reply.error_code == "BlobNotFound":
        raise Changed(f"{name}: the blob was removed by somebody else")


def require_staged(name: str, reply: Reply) -> None:
    """Raise Unavailable for the success of something else: no other reply to a write tells so little."""
    if reply.status != CREATED:
        raise Unavailable(f"{name}: the service's reply makes no sense: HTTP {reply.status} for a new block")


def require_deleted(name: str, reply: Reply) -> None:
    """Raise Unavailable for the success of something else."""
    if reply.status != ACCEPTED:
        raise Unavailable(f"{name}: the service's reply makes no sense: HTTP {reply.status} for a deletion")


def require_span(headers: Mapping[str, str], start: int, received_bytes: int, info: BlobInfo) -> None:
    """Raise Unavailable if the bytes received are not those asked for."""
    whole = f"bytes 0-{info.size_bytes - 1}/{info.size_bytes}"
    expected = f"bytes {start}-{start + received_bytes - 1}/{info.size_bytes}"
    if headers.get("content-range", whole) != expected:
        raise Unavailable(f"{info.name}: asked for {expected}, and the service sent something else")


def require_md5(headers: Mapping[str, str], start: int, data: memoryview, name: str) -> None:
    """Raise Damaged if the bytes received are not those that the service hashed."""
    expected, found = headers.get("content-md5", ""), base64_text(md5_digest(data))
    if found != expected:
        what = f"{name}: range at {start}, {len(data)} bytes"
        raise Damaged(f"{what}: expected MD5 {expected or 'in the reply'}, found {found}")


def is_written(info: BlobInfo, size_bytes: int, metadata: Mapping[str, str]) -> bool:
    """Tell whether a blob has the size and the metadata that a write gave it."""
    return info.size_bytes == size_bytes and same_metadata(info.metadata, metadata)
