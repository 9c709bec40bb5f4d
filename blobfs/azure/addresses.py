"""What accounts, containers and endpoints may be called. Pure: asks no name server.

Names: https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from blobfs.blocks import MAX_BLOB_NAME_CHARACTERS
from blobfs.errors import InvalidArgument

EMULATOR_ACCOUNT = "devstoreaccount1"
EMULATOR_ENDPOINT = f"http://127.0.0.1:10000/{EMULATOR_ACCOUNT}"

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_SYSTEM_CONTAINERS = frozenset(("$root", "$web", "$logs", "$blobchangefeed"))
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_PATH = re.compile(r"[!-~]*")  # printable ASCII, without a space


def require_account_name(account: str) -> None:
    """Raise InvalidArgument unless a storage account can have this name."""
    if _ACCOUNT.fullmatch(account):
        return
    rule = f"{account!r} is no account name: 3 to 24 lower-case letters and digits"
    if "." in account or ":" in account:
        raise InvalidArgument(f"{rule}. An address goes after --endpoint")
    if "/" in account:
        raise InvalidArgument(f"{rule}. The container is the next argument; for a part of it use --prefix")
    raise InvalidArgument(rule)


def require_container_name(container: str) -> None:
    """Raise InvalidArgument unless a container can have this name."""
    if _CONTAINER.fullmatch(container) or container in _SYSTEM_CONTAINERS:
        return
    if "/" in container:
        name, _, prefix = container.partition("/")
        raise InvalidArgument(f"{container!r} is no container name: write {name} --prefix {prefix}")
    raise InvalidArgument(
        f"{container!r} is no container name: 3 to 63 lower-case letters, digits and single hyphens "
        "between them"
    )


def default_endpoint(account: str) -> str:
    """Return where an account is reached by its name."""
    return EMULATOR_ENDPOINT if account == EMULATOR_ACCOUNT else f"https://{account}.blob.core.windows.net"


def max_name_characters(account: str) -> int | None:
    """Return how long a blob's name may be. The emulator has no limit."""
    return None if account == EMULATOR_ACCOUNT else MAX_BLOB_NAME_CHARACTERS


def require_endpoint(endpoint: str, name: str) -> None:
    """Raise InvalidArgument, naming `name`, unless this is an address, and requests to it stay private.

    They do by HTTPS, or to this machine. It is not shown, because a secret may be in it.
    """
    parts = _split(endpoint, name)
    if parts.query or parts.fragment or "?" in endpoint or "#" in endpoint or "@" in parts.netloc:
        raise InvalidArgument(
            f"{name} has a user, a password, or something after ? or #: it looks like https://HOST "
            "or https://HOST/PATH. A SAS belongs into a file, for --sas-file"
        )
    if parts.scheme not in ("http", "https"):
        raise InvalidArgument(f"{name} does not start with https://: it looks like https://HOST")
    if not _is_host(parts.hostname or "") or not _PATH.fullmatch(parts.path) or not _has_port(parts):
        raise InvalidArgument(
            f"{name} is no address: it looks like https://HOST or https://HOST:PORT/PATH, "
            "with a port from 1 to 65535"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InvalidArgument(f"{endpoint}: plain http would show the credential to the network; use https")


def is_loopback(host: str) -> bool:
    """Return whether this host is this machine, without asking a name server."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(endpoint: str, name: str) -> SplitResult:
    try:
        return urlsplit(endpoint)
    except ValueError:  # its message may show a password
        raise InvalidArgument(f"{name} is no address: it looks like https://HOST/PATH") from None


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True


def _has_port(parts: SplitResult) -> bool:
    """Return whether the port is left away or can be one."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False
