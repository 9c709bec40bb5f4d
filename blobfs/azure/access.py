"""What the credential in use allows, as far as it shows."""

from dataclasses import dataclass

from blobfs.azure.credentials import Authorization


@dataclass(frozen=True, slots=True)
class Access:
    """What the credential in use allows."""

    read_only: bool
    reason: str  # why it is so, naming the credential


def access_of(used: Authorization, name: str) -> Access:
    """Return what requests that are authorised so may do; `name` is the credential's."""
    if not used.sas and not used.bearer:
        return Access(read_only=True, reason=f"{name} can only read")
    letters = used.permissions
    if letters is None:
        return Access(read_only=False, reason=f"the {name} may write, as far as it shows")
    reason = f"the {name} has the permissions {letters!r}"
    if "w" not in letters:
        return Access(read_only=True, reason=reason)
    return Access(read_only=False, reason="; ".join(filter(None, (reason, used.limits))))
