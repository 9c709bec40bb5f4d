"""What a refusal by the service means: its error codes and statuses, as failures of ours.

Codes: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
"""

from datetime import datetime, timezone

from blobfs.azure.credentials import Authorization
from blobfs.azure.messages import Reply, Request
from blobfs.blocks import MAX_BLOB_NAME_CHARACTERS
from blobfs.errors import (
    AccessDenied,
    AlreadyExists,
    Archived,
    Busy,
    Changed,
    Damaged,
    DirectoryNotEmpty,
    Failure,
    InvalidArgument,
    InvalidName,
    NameTooLong,
    NoSpace,
    NotFound,
    NotPermitted,
    OtherIdLength,
    StagedGone,
    TimedOut,
    TooLarge,
    Unavailable,
    Unsupported,
)

Meaning = tuple[type[Failure], str]

_NO_CONTAINER = "the container does not exist; create it, for instance by blobfs mount --create-container"
_ARCHIVED = "the blob is in the archive tier; set its tier to Hot or Cool and wait until it is rehydrated"
_LEASED = "somebody holds a lease on the blob"
_CHANGED = "the blob was replaced by somebody else"
_DAMAGED = "the bytes did not match their checksum when they arrived, twice"
_BAD_NAME = "the service does not take this name"

_BY_CODE: dict[str, Meaning] = {
    "ContainerNotFound": (NotFound, _NO_CONTAINER),
    "ContainerBeingDeleted": (Busy, "the container is being deleted; try again in a minute"),
    "BlobNotFound": (NotFound, "no such blob"),
    "BlobAlreadyExists": (AlreadyExists, "the name is taken"),
    "ConditionNotMet": (Changed, _CHANGED),
    "TargetConditionNotMet": (Changed, _CHANGED),
    "SourceConditionNotMet": (Changed, "the blob to copy was replaced by somebody else"),
    "InvalidBlockList": (StagedGone, "staged blocks are gone: somebody else committed this name meanwhile"),
    "InvalidBlobOrBlock": (
        OtherIdLength,
        "another program left an unfinished upload of this name; it vanishes within a week",
    ),
    "BlobArchived": (Archived, _ARCHIVED),
    "BlobBeingRehydrated": (Archived, "the blob is on its way out of the archive tier; try again later"),
    "LeaseIdMissing": (Busy, _LEASED),
    "LeaseAlreadyPresent": (Busy, _LEASED),
    "PendingCopyOperation": (Busy, "a copy into the blob is under way"),
    "BlobImmutableDueToPolicy": (NotPermitted, "a retention policy or legal hold protects the blob"),
    "InvalidBlobType": (Unsupported, "not possible with a page or append blob"),
    "BlobUsesCustomerSpecifiedEncryption": (Unsupported, "the blob is encrypted with a key of its own"),
    "DirectoryIsNotEmpty": (DirectoryNotEmpty, "the directory still has entries"),
    "Md5Mismatch": (Damaged, _DAMAGED),
    "InvalidUri": (InvalidName, _BAD_NAME),
    "InvalidResourceName": (InvalidName, _BAD_NAME),
    "OutOfRangeInput": (InvalidName, _BAD_NAME),
    "MetadataTooLarge": (NoSpace, "the metadata is larger than a blob has room for"),
    "RequestBodyTooLarge": (NoSpace, "more bytes than the service takes in one request"),
    "BlockCountExceedsLimit": (NoSpace, "the blob has 100,000 unfinished blocks; commit or delete them"),
    "BlockListTooLong": (TooLarge, "the file would need more blocks than a blob can have"),
    "AuthenticationFailed": (
        AccessDenied,
        "the service does not accept the {credential}; "
        "is it for this account and container, and is this machine's clock right?",
    ),
    "AuthorizationPermissionMismatch": (AccessDenied, "the {credential} lacks the permission for this"),
    "AuthorizationFailure": (
        AccessDenied,
        "the service refuses this to the {credential}; does the account's firewall let this machine in?",
    ),
    "AuthorizationSourceIPMismatch": (AccessDenied, "the {credential} is not valid from this address"),
    "AuthorizationProtocolMismatch": (AccessDenied, "the {credential} is valid over https only"),
    "KeyBasedAuthenticationNotPermitted": (
        AccessDenied,
        "the account takes no keys; mount with --auth entra",
    ),
    "PublicAccessNotPermitted": (AccessDenied, "the container is not public; give a credential"),
    "NoAuthenticationInformation": (AccessDenied, "the container is not public for this; give a credential"),
}

_BY_STATUS: dict[int, Meaning] = {
    401: (AccessDenied, "the service does not accept the {credential}"),
    403: (AccessDenied, "the service refuses this to the {credential}"),
    404: (NotFound, "not found"),
    408: (TimedOut, "the service gave up waiting"),
    409: (Busy, "the blob's state does not allow this now"),
    412: (Changed, _CHANGED),
    413: (NoSpace, "more bytes than the service takes in one request"),
    414: (InvalidName, _BAD_NAME),
    504: (TimedOut, "the service did not answer in time"),
}
_OTHERWISE: Meaning = (Unavailable, "the service failed to do this")

# What a request needs of a SAS, by the first word of its kind.
_LETTERS = {"LIST": "l", "GET": "r", "HEAD": "r", "PUT": "w", "DELETE": "d"}


def refusal_of(
    request: Request, reply: Reply, container: str, used: Authorization, *, credential_name: str
) -> Failure:
    """Return the failure that a refusal is, `used` being what the request carried."""
    failure, text = _meaning(request, reply)
    if failure is AccessDenied and used.expires_at and used.expires_at < datetime.now(timezone.utc):
        text = f"the {{credential}} expired on {used.expires_at:%Y-%m-%d %H:%M} UTC; get a new one"
    elif reply.error_code == "AuthorizationPermissionMismatch":
        text = _lack(request, used) or text
    subject = request.name or f"container {container}"
    detail = f"HTTP {reply.status} {reply.error_code}".strip()
    explanation = text.format(credential=credential_name)
    return failure(f"{subject}: {explanation} ({request.kind}: {detail}, request {reply.request_id})")


def _lack(request: Request, used: Authorization) -> str:
    """Say what the credential lacks for a request; empty if it does not show that."""
    if request.kind == "PUT container":
        return "the {credential} may not create a container; have one made, or use the account's key"
    if used.bearer:
        return (
            "the {credential} lacks a role for this: Storage Blob Data Reader to read, "
            "Storage Blob Data Contributor to write"
        )
    return lack_of_permission(request, used)


def lack_of_permission(request: Request, used: Authorization) -> str:
    """Say which permission a request needs and a SAS shows not to have; empty if that is none."""
    letter = _LETTERS.get(request.kind.split()[0], "")
    if not letter or letter in (used.permissions or letter):
        return ""
    return f"the {{credential}} lacks the permission {letter}; get one with rl to read, with racwdl to write"


def is_damage(request: Request, reply: Reply) -> bool:
    """Return whether the service found a body that does not match the checksum sent with it."""
    # Azurite says InvalidOperation where the service says Md5Mismatch.
    codes = ("Md5Mismatch", "InvalidOperation")
    return reply.status == 400 and "Content-MD5" in request.headers and reply.error_code in codes


def _meaning(request: Request, reply: Reply) -> Meaning:
    if is_damage(request, reply):
        return Damaged, _DAMAGED
    failure, text = _BY_CODE.get(reply.error_code) or _BY_STATUS.get(reply.status, _OTHERWISE)
    is_of_target = reply.error_code != "SourceConditionNotMet"
    if failure is Changed and request.wants_absence and reply.status == 412 and is_of_target:
        return _BY_CODE["BlobAlreadyExists"]
    if failure is InvalidName and len(request.name) > MAX_BLOB_NAME_CHARACTERS:
        return NameTooLong, f"the blob name has more than {MAX_BLOB_NAME_CHARACTERS} characters"
    if failure is Unavailable and reply.status == 400:
        return InvalidArgument, "the service finds something wrong with this"
    return failure, text
