"""What the service says: whether it answers, what the credential is good for, what sort of account it is."""

import email.utils
from collections.abc import Iterator
from datetime import datetime, timezone

from blobfs.azure.client import Dealings
from blobfs.azure.inspection import Inspector, ProbeReply
from blobfs.doctor.findings import Finding, note, ok, problem
from blobfs.store import BlobInfo

SKEW_NOTE_SECONDS = 60.0
SKEW_PROBLEM_SECONDS = 300.0  # a SAS signed here would not be valid yet, or no longer
SOON_SECONDS = 24 * 3600.0

MEANINGS = {
    "list": "A mount cannot do without: get a SAS with at least the permissions rl.",
    "read": "A mount cannot do without: get a SAS with at least the permissions rl.",
    "create": "Mounts will be read-only. To write, get a SAS with the permissions racwdl.",
    "write": "Mounts will be read-only. To write, get a SAS with the permissions racwdl.",
    "delete": "Deletes and renames will be refused. If they are needed, get a SAS with the permission d too.",
}
NEEDED = ("list", "read")

_UNACCEPTED = ("AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation")


def examine_clock(answer: ProbeReply) -> Finding:
    """Compare this machine's clock with the service's."""
    try:
        theirs = email.utils.parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return note("clock", "not compared: the answer had no date")
    skew_seconds = answer.at - theirs - 0.5  # the service cuts its seconds off
    text = f"{abs(skew_seconds):.0f} s {'ahead of' if skew_seconds > 0 else 'behind'} the service's"
    cure = "Have an admin turn time synchronisation on (timedatectl set-ntp true)."
    if abs(skew_seconds) > SKEW_PROBLEM_SECONDS:
        return problem("clock", text, cure)
    if abs(skew_seconds) > SKEW_NOTE_SECONDS:
        return note("clock", text, cure)
    return ok("clock", "right to the second" if abs(skew_seconds) < 2 else text)


def examine_credential(inspector: Inspector, dealings: Dealings, first: ProbeReply) -> Iterator[Finding]:
    """Try everything that a mount does; `first` is the answer to a listing."""
    ends = dealings.expires_at
    if not first.is_allowed and (first.error_code in _UNACCEPTED or _has_ended(ends)):
        yield problem("credential", first.refusal, "Get another one, for this account and container.")
        return
    yield _expiry(dealings.credential_name, ends)
    if first.status == 404:
        cure = "Check the container's name, or mount with --create-container."
        yield problem("container", f"does not exist ({first.code})", cure)
        return
    for action in MEANINGS:
        yield _permission(action, first if action == "list" else inspector.try_to(action))


def _has_ended(ends: datetime | None) -> bool:
    return ends is not None and ends < datetime.now(timezone.utc)


def _expiry(name: str, ends: datetime | None) -> Finding:
    if ends is None:
        return ok("credential", f"{name}; it does not end, or does not say when")
    left_seconds = (ends - datetime.now(timezone.utc)).total_seconds()
    text = f"{name}; it ends on {ends:%Y-%m-%d %H:%M} UTC"
    if left_seconds < SOON_SECONDS:
        hours = max(0.0, left_seconds / 3600)
        cure = "For a longer job, put a new SAS into --sas-file before then: a mount reads it again."
        return note("credential", f"{text}, in {hours:.1f} hours", cure)
    return ok("credential", text)


def _permission(action: str, answer: ProbeReply) -> Finding:
    check = f"may {action}"
    if action == "create" and answer.status == 201:
        text = "yes, but the service ignored the condition If-Match: updates of others may be lost"
        return problem(check, text, "Do not write through this endpoint; is a proxy in between?")
    if answer.is_allowed:
        return ok(check, "yes")
    make = problem if action in NEEDED else note
    return make(check, f"no ({answer.code})", MEANINGS[action])


def examine_account(inspector: Inspector, blobs: list[BlobInfo]) -> Iterator[Finding]:
    """Say of the account what changes how a mount behaves, as far as the credential shows it."""
    yield _account(inspector.account())
    if blobs:
        yield from _history(inspector.blob(blobs[0].name))
    if inspector.shows_deleted():
        yield note("soft delete", "on: deleted and replaced files are kept for a while, and cost room")
    else:
        yield ok("soft delete", "nothing deleted is kept, as far as the credential shows")
    yield _immutability(inspector.container())


def _account(answer: ProbeReply) -> Finding:
    if answer.refusal:
        return note("account", f"not shown to this credential ({answer.code})")
    kind, sku = (answer.headers.get(f"x-ms-{name}", "unknown") for name in ("account-kind", "sku-name"))
    if answer.headers.get("x-ms-is-hns-enabled") == "true":
        cure = "Do not write a file through blobfs and through the dfs endpoint; access lists are not shown."
        return note("account", f"{kind}, {sku}, with a hierarchical namespace", cure)
    return ok("account", f"{kind}, {sku}, without a hierarchical namespace")


def _history(answer: ProbeReply) -> Iterator[Finding]:
    """Say what a blob's own properties tell."""
    if "x-ms-version-id" in answer.headers:
        cure = "A lifecycle rule can remove old versions."
        yield note("versioning", "on: each change keeps the old bytes, and they cost room", cure)
    elif not answer.refusal:
        yield ok("versioning", "off")


def _immutability(answer: ProbeReply) -> Finding:
    if answer.refusal:
        return note("immutability", "not shown to this credential")
    kinds = {
        "x-ms-has-immutability-policy": "a retention policy",
        "x-ms-has-legal-hold": "a legal hold",
        "x-ms-immutable-storage-with-versioning-enabled": "retention of versions",
    }
    found = [words for header, words in kinds.items() if answer.headers.get(header) == "true"]
    if found:
        cure = "New files can be written; changing and deleting them will be refused."
        return note("immutability", " and ".join(found), cure)
    return ok("immutability", "none")
