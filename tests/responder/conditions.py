"""Whether a request's conditions hold.

https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations
"""

from email.utils import parsedate_to_datetime

from responder.account import Blob, Container
from responder.messages import Request
from responder.refusals import NotModified, Refusal

_HEADERS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


def require_readable(request: Request, blob: Blob) -> None:
    """Return if a read may go on. Raises Refusal, NotModified."""
    match, none_match, since, unmodified_since = _conditions(request)
    if not _is_met(blob, match, unmodified_since):
        raise Refusal("ConditionNotMet")
    if (none_match or since) and not _is_news(blob, none_match, since):
        raise NotModified


def require_writable(request: Request, container: Container, *, unmet: str = "ConditionNotMet") -> None:
    """Return if the request's blob may be written. Raises Refusal: `unmet` for a condition."""
    require_lease(request, container)
    blob = container.blobs.get(request.name)
    match, none_match, since, unmodified_since = _conditions(request)
    if blob and none_match == "*":
        raise Refusal("BlobAlreadyExists")
    if not _is_met(blob, match, unmodified_since):
        raise Refusal(unmet)
    if blob and (none_match or since) and not _is_news(blob, none_match, since):
        raise Refusal(unmet)


def require_source(request: Request, blob: Blob) -> None:
    """Return if a copy may take this source. Raises Refusal."""
    match, none_match, since, unmodified_since = _conditions(request, "x-ms-source-")
    is_unwanted = (none_match or since) and not _is_news(blob, none_match, since)
    if is_unwanted or not _is_met(blob, match, unmodified_since):
        raise Refusal("SourceConditionNotMet")


def require_lease(request: Request, container: Container) -> None:
    """Return if nobody has a lease on the request's blob, or it is the caller's. Raises Refusal."""
    lease = container.leases.get(request.name)
    given = request.header("x-ms-lease-id")
    if lease and not given:
        raise Refusal("LeaseIdMissing")
    if lease and given != lease:
        raise Refusal("LeaseIdMismatchWithBlobOperation")


def _conditions(request: Request, prefix: str = "") -> tuple[str, ...]:
    find = request.headers.get
    return tuple([find(prefix + header, "") for header in _HEADERS])


def _is_met(blob: Blob | None, match: str, unmodified_since: str) -> bool:
    if blob is None:
        return not match
    if unmodified_since and blob.modified_seconds > _seconds(unmodified_since):
        return False
    return not match or _names(match, blob)


def _is_news(blob: Blob, none_match: str, since: str) -> bool:
    is_other = bool(none_match) and not _names(none_match, blob)
    return is_other or (bool(since) and blob.modified_seconds > _seconds(since))


def _names(etag: str, blob: Blob) -> bool:
    return etag == "*" or etag.strip('"') == blob.etag


def _seconds(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        raise Refusal("InvalidHeaderValue") from None
