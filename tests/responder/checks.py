"""Whether what a request brings with it is sound."""

import base64
import binascii
import re

from responder.account import CONTENT_HEADERS
from responder.memory import KiB, Part
from responder.messages import Request
from responder.refusals import Refusal

MAX_METADATA_BYTES = 8 * KiB
MAX_BLOCK_ID_BYTES = 64

_METADATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def checked_md5(request: Request, body: Part, *headers: str) -> str:
    """Return the checksum that the first of these headers gives; empty without one.

    Raises Refusal if one does not fit the body, unless that is not to be looked into.
    """
    given = [value for header in headers if (value := request.header(header))]
    if not given or request.is_unchecked:
        return given[0] if given else ""
    if any(len(_decoded(value, "InvalidMd5")) != 16 for value in given):
        raise Refusal("InvalidMd5")
    if {body.md5()} != set(given):
        raise Refusal("Md5Mismatch")
    return given[0]


def checked_metadata(request: Request) -> dict[str, str]:
    """Return the metadata to store. Raises Refusal if it cannot be."""
    if not all(map(_METADATA_KEY.fullmatch, request.metadata)):
        raise Refusal("InvalidMetadata")
    if sum(len(key) + len(value) for key, value in request.metadata.items()) > MAX_METADATA_BYTES:
        raise Refusal("MetadataTooLarge")
    return request.metadata


def checked_block_id(request: Request) -> str:
    """Return the id of the block to stage, in base64. Raises Refusal if it cannot be one."""
    block_id = request.query.get("blockid", "")
    if not 0 < len(_decoded(block_id, "InvalidQueryParameterValue")) <= MAX_BLOCK_ID_BYTES:
        raise Refusal("InvalidQueryParameterValue")
    return block_id


def content_headers(request: Request) -> dict[str, str]:
    """Return what a blob is to carry besides its bytes and its metadata."""
    given = {name: request.header(header) for name, header in CONTENT_HEADERS.items()}
    given["Content-Type"] = given["Content-Type"] or "application/octet-stream"
    return {name: value for name, value in given.items() if value}


def _decoded(text: str, code: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refusal(code) from None
