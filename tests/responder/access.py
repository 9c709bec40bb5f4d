"""What the credential of a request allows, for those who want it checked.

String to sign: https://learn.microsoft.com/rest/api/storageservices/create-service-sas
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from urllib.parse import urlsplit

from responder.account import Account
from responder.messages import Request, parse_target
from responder.refusals import Refusal
from responder.routes import Operation

_IN_SERVICE_SAS = ("si", "sip", "spr", "sv", "sr", "", "ses", "rscc", "rscd", "rsce", "rscl", "rsct")
_IN_ACCOUNT_SAS = ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses", "")


class Gate:
    """Lets requests in by the account's key. A SAS is checked whole; other authorisation is believed."""

    def __init__(self, key: str) -> None:
        self._key = base64.b64decode(key)

    def check(self, account: Account, request: Request, operation: Operation) -> None:
        """Return if the request may do this. Raises Refusal."""
        if "authorization" in request.headers:
            return
        self._check_sas(account, request, operation.permissions)
        if source := request.header("x-ms-copy-source"):
            parts = urlsplit(source)
            target = parse_target(f"{parts.path}?{parts.query}")
            self._check_sas(account, Request("GET", source, *target, {}, {}), "r")

    def _check_sas(self, account: Account, request: Request, permissions: str) -> None:
        query = request.query
        if "sig" not in query:
            _require_public(account, request)
        elif not (self._is_genuine(request) and _is_valid_now(query)):
            raise Refusal("AuthenticationFailed")
        elif set(permissions).isdisjoint(query.get("sp", "")):
            raise Refusal("AuthorizationPermissionMismatch")

    def _is_genuine(self, request: Request) -> bool:
        query = request.query
        if "ss" in query:
            text = "\n".join([request.account, *_fields(query, _IN_ACCOUNT_SAS)])
        else:
            name = f"/{request.name}" if query.get("sr") == "b" else ""
            resource = f"/blob/{request.account}/{request.container}{name}"
            terms = _fields(query, ("sp", "st", "se"))
            text = "\n".join([*terms, resource, *_fields(query, _IN_SERVICE_SAS)])
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        return hmac.compare_digest(base64.b64encode(digest).decode(), query["sig"])


def _fields(query: Mapping[str, str], names: Iterable[str]) -> list[str]:
    return [query.get(name, "") for name in names]


def _require_public(account: Account, request: Request) -> None:
    with account.lock:
        is_public = request.method in ("GET", "HEAD") and account.container_of(request).is_public
    if not is_public:
        raise Refusal("NoAuthenticationInformation")


def _is_valid_now(query: Mapping[str, str]) -> bool:
    try:
        starts_at, ends_at = (_moment(query.get(name, "1970-01-01")) for name in ("st", "se"))
    except ValueError:
        return False
    return starts_at <= datetime.now(timezone.utc) < ends_at


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
