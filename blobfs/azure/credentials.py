"""What a credential is, and how it authorises one request.

Every request carries one form of authorisation: a shared access signature (SAS) in its query,
a bearer token in a header, or nothing. No secret is ever part of a repr or of a message.
"""

import logging
import os
import re
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol
from urllib.parse import parse_qs

from blobfs.errors import AccessDenied, Failure, InvalidArgument

# The libraries of Azure are loaded by who needs them: they take longer than many a command.
if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

logger = logging.getLogger(__name__)

KEY_SAS_LIFE = timedelta(hours=2)  # short, should one be seen in a proxy's log
RENEW_BEFORE = timedelta(minutes=15)  # the service's and our clock may differ by that much
TOKEN_RENEW_BEFORE_SECONDS = 300
STORAGE_SCOPE = "https://storage.azure.com/.default"

_LARGEST_SECRET_BYTES = 64 * 1024  # a file above that is something else, given by mistake


@dataclass(frozen=True, slots=True)
class Authorization:
    """What lets one request in: a SAS, a bearer token, or neither."""

    sas: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)

    @property
    def permissions(self) -> str | None:
        """The permission letters of a SAS; None if they are not written in it, or without one."""
        return self._sas_field("sp")

    @property
    def limits(self) -> str:
        """What a SAS that may write will still be refused, in words; empty if that is nothing."""
        letters = self.permissions
        lacks = {"r": "reads", "d": "deletes and renames"}
        refused = [words for letter, words in lacks.items() if letters is not None and letter not in letters]
        return f"{' and '.join(refused)} will be refused" if refused else ""

    @property
    def expires_at(self) -> datetime | None:
        """When a SAS ends; None if that is not written in it, or without one."""
        text = self._sas_field("se") or ""
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)

    def _sas_field(self, key: str) -> str | None:
        return parse_qs(self.sas).get(key, [None])[0]


class Credential(Protocol):
    """Something that lets requests in. Safe to use from many threads."""

    @property
    def name(self) -> str:
        """What messages call it: its kind and where it was found, never its value."""
        ...

    @property
    def kind(self) -> str:
        """What sort of credential it is, in a word or two."""
        ...

    @property
    def expires_at(self) -> datetime | None:
        """When it ends and nobody here can renew it; None if it does not, or does not say. Does not block."""
        ...

    def authorization(self, *, create_container: bool = False) -> Authorization:
        """Return what the next request carries; the one that creates the container needs more.

        May block for a new token. Raises AccessDenied when there is none to be had.
        """
        ...

    def renew(self) -> bool:
        """Look for a fresh value after a refusal; return whether there is one."""
        ...


@dataclass
class AccountKey:
    """A storage account's key, used to sign a SAS for the container and renew it in time."""

    name: str
    account: str
    container: str
    key: str = field(repr=False)
    kind: ClassVar[str] = "account key"
    expires_at: ClassVar[None] = None
    _current: Authorization = field(default=Authorization(), init=False, repr=False)
    _renew_at: datetime = field(default=datetime.min.replace(tzinfo=timezone.utc), init=False, repr=False)

    def authorization(self, *, create_container: bool = False) -> Authorization:
        """Return a SAS of this container; a SAS of the account to create it."""
        now = datetime.now(timezone.utc)
        if create_container:
            return Authorization(sas=self._account_sas(now + KEY_SAS_LIFE))
        if now >= self._renew_at:
            # Threads that come here together sign one each; any of them is good.
            self._current = Authorization(sas=self._container_sas(now + KEY_SAS_LIFE))
            self._renew_at = now + KEY_SAS_LIFE - RENEW_BEFORE
        return self._current

    def renew(self) -> bool:
        """Return False: the same key signs the same."""
        return False

    def _container_sas(self, expires_at: datetime) -> str:
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        return generate_container_sas(
            self.account,
            self.container,
            account_key=self.key,
            permission=ContainerSasPermissions.from_string("racwdl"),
            expiry=expires_at,
        )

    def _account_sas(self, expires_at: datetime) -> str:
        from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

        return generate_account_sas(
            self.account,
            self.key,
            resource_types=ResourceTypes(container=True),
            permission=AccountSasPermissions(create=True, write=True),
            expiry=expires_at,
        )


@dataclass(frozen=True)
class SasToken:
    """A SAS that somebody gave us, used as it is."""

    name: str
    token: Authorization
    kind: ClassVar[str] = "SAS"

    @property
    def expires_at(self) -> datetime | None:
        """When the SAS ends."""
        return self.token.expires_at

    def authorization(self, *, create_container: bool = False) -> Authorization:  # noqa: ARG002
        """Return the SAS."""
        return self.token

    def renew(self) -> bool:
        """Return False: there is only this one."""
        return False


class SasFile:
    """A SAS in a file, which is read again whenever the file changes."""

    kind = "SAS"

    def __init__(self, path: Path) -> None:
        """Read the file. Raises InvalidArgument if it cannot be read or holds no SAS."""
        self.name = f"SAS from {path}"
        self._path = path
        # Replaced as a whole, so that threads need no lock.
        self._seen = (self._signature(), sas_of(read_secret(path), self.name))

    @property
    def expires_at(self) -> datetime | None:
        """When the SAS ends that was read last."""
        return self._seen[1].expires_at

    def __repr__(self) -> str:
        return f"SasFile({str(self._path)!r})"

    def authorization(self, *, create_container: bool = False) -> Authorization:  # noqa: ARG002
        """Return the SAS that the file holds now, or the last good one."""
        if self._signature() != self._seen[0]:
            self._read_again()
        return self._seen[1]

    def renew(self) -> bool:
        """Read the file again; return whether it holds another SAS than before."""
        before = self._seen[1]
        self._read_again()
        return self._seen[1] != before

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read_again(self) -> None:
        signature = self._signature()
        try:
            self._seen = (signature, sas_of(read_secret(self._path), self.name))
        except Failure as error:
            # Somebody may just be writing it; the file will change once more then.
            logger.warning("the last SAS stays in use: %s", error)
            self._seen = (signature, self._seen[1])


class EntraToken:
    """A token from Microsoft Entra ID, by azure-identity's default chain of logins."""

    name = "Entra ID login"
    kind = "Entra ID"
    expires_at = None  # tokens are renewed

    def __init__(self) -> None:
        """Raises InvalidArgument when azure-identity is not installed."""
        self._chain = _default_chain()
        self._token: AccessToken | None = None

    def authorization(self, *, create_container: bool = False) -> Authorization:  # noqa: ARG002
        """Return the token in use, or a new one shortly before it ends."""
        token = self._token
        if token is None or token.expires_on - time.time() < TOKEN_RENEW_BEFORE_SECONDS:
            # Threads that come here together ask one each; azure-identity shares the answer.
            token = self._token = self._fetch()
        return Authorization(bearer=token.token)

    def renew(self) -> bool:
        """Forget the token; return True, because the next may be accepted."""
        self._token = None
        return True

    def _fetch(self) -> "AccessToken":
        from azure.core.exceptions import AzureError

        try:
            return self._chain.get_token(STORAGE_SCOPE)
        except AzureError as error:
            reasons = error.message.replace("\t", "  ")  # one a line, indented
            raise AccessDenied(f"{self.name}: {reasons}") from error


def _default_chain() -> "TokenCredential":
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        cure = "in the clone of blobfs: pip install '.[entra]'"
        raise InvalidArgument(f"--auth entra needs azure-identity, which is not installed; {cure}") from error
    return DefaultAzureCredential()


class Anonymous:
    """No credential: for public containers, which can only be read."""

    name = "anonymous access"
    kind = "none"
    expires_at = None

    def authorization(self, *, create_container: bool = False) -> Authorization:  # noqa: ARG002
        """Return nothing."""
        return Authorization()

    def renew(self) -> bool:
        """Return False."""
        return False


def sas_of(text: str, name: str) -> Authorization:
    """Return the SAS that `text` is, with or without a leading ``?``.

    Raises InvalidArgument, naming `name`, if it is none.
    """
    token = text.strip().removeprefix("?")
    if re.match(r"https?://", token):
        raise InvalidArgument(f"{name}: a whole URL; keep only its SAS, which is what follows the ?")
    if "SharedAccessSignature=" in token:
        raise InvalidArgument(f"{name}: a connection string; give it as --connection-string-file")
    # Of printable ASCII, only quotation marks have no place in a query: shells and editors leave them.
    if re.search(r"[^\x21-\x7e]|[\"']", token) or not parse_qs(token).get("sig"):
        raise InvalidArgument(f"{name}: not a shared access signature, which looks like sv=…&sp=…&sig=…")
    return Authorization(sas=token)


def read_secret(path: Path) -> str:
    """Return what a secret file holds, without white space around it.

    Raises InvalidArgument if it cannot be read or is empty; warns if others may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LARGEST_SECRET_BYTES).decode("utf-8-sig").strip()
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path}: is not text in UTF-8; save it as that") from error
    if not text:
        raise InvalidArgument(f"{path}: is empty; put the secret there, alone")
    if mode & 0o044:
        logger.warning("%s: other users may read this secret; chmod 600 it", path)
    return text
