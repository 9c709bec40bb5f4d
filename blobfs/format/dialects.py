"""How other tools write attributes into metadata, put in AzCopy's standard style. Pure: no I/O, no clock.

Three of them: AzCopy's own style for Azure Managed Lustre, blobxfer's JSON, and the dates of both
AzCopy and rclone. Metadata is anybody's to write, so nothing here raises on any text, and what comes out
is text that still has to be parsed with suspicion.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

_LUSTRE_KEYS = {"owner": "posix_owner", "group": "posix_group"}
_BLOBXFER_FIELDS = {"mode": "permissions", "uid": "posix_owner", "gid": "posix_group"}

_DIGITS = re.compile(r"[0-9]+")
_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9:]{8})(?:\.([0-9]{1,9}))? ?(Z|[+-][0-9]{2}:?[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def standard_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata under lower-case keys, which is how the service compares them, standard keys added.

    An octal mode starts with ``0``, a decimal one does not.
    """
    tags = {key.lower(): value for key, value in metadata.items()}
    if "blobxfer_metadata" in tags:
        tags = _from_blobxfer(tags["blobxfer_metadata"]) | tags
    if "owner" in tags or "group" in tags:
        tags |= _from_lustre(tags)
    return tags


def is_lustre_id(key: str, value: str) -> bool:
    """Tell the Lustre style's owner and group, keys in lower case, from tags that users chose to call so."""
    return key in _LUSTRE_KEYS and _DIGITS.fullmatch(value) is not None


def date_ns(text: str) -> int | None:
    """Parse a date with its offset from UTC, as AzCopy or RFC 3339 writes it, to nanoseconds since 1970."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, offset = match.groups(default="")
    try:
        moment = datetime.strptime(f"{day} {clock} {offset}", "%Y-%m-%d %H:%M:%S %z")
    except ValueError:  # the 31st of February
        return None
    return (moment - _EPOCH) // timedelta(seconds=1) * 10**9 + int(fraction.ljust(9, "0"))


def _from_lustre(tags: Mapping[str, str]) -> dict[str, str]:
    found = {_LUSTRE_KEYS[key]: value for key, value in tags.items() if is_lustre_id(key, value)}
    if found and "permissions" in tags:
        found["permissions"] = "0" + tags["permissions"]  # octal beside these keys, as AzCopy reads it
    return found


def _from_blobxfer(text: str) -> dict[str, str]:
    try:
        posix = json.loads(text)["FileAttributes"]["POSIX"]
        found = {key: str(posix[name]) for name, key in _BLOBXFER_FIELDS.items() if name in posix}
    except (KeyError, TypeError, ValueError, RecursionError):  # not JSON, of another shape, or too deep
        return {}
    return {key: value.replace("0o", "0", 1) for key, value in found.items()}
