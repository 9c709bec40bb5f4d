"""Where a credential and the endpoint come from: options, then the environment, then the emulator's.

Credentials are named in messages by their source, never by their value.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from blobfs.azure.addresses import (
    EMULATOR_ACCOUNT,
    EMULATOR_ENDPOINT,
    default_endpoint,
    require_account_name,
    require_container_name,
    require_endpoint,
)
from blobfs.azure.credentials import (
    AccountKey,
    Anonymous,
    Credential,
    EntraToken,
    SasFile,
    SasToken,
    read_secret,
    sas_of,
)
from blobfs.errors import InvalidArgument
from blobfs.settings import CredentialSettings

# Published, the same everywhere: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_EMULATOR_PARTS = {
    "accountname": EMULATOR_ACCOUNT,
    "accountkey": EMULATOR_KEY,
    "blobendpoint": EMULATOR_ENDPOINT,
}


UNSAID = CredentialSettings()


@dataclass(frozen=True, slots=True)
class Login:
    """Where the account is reached, and what lets us in."""

    endpoint: str
    credential: Credential


@dataclass(frozen=True, slots=True)
class _Place:
    """The container that a credential is looked for."""

    account: str
    container: str
    endpoint: str

    def login(self, credential: Credential, found_endpoint: str = "") -> Login:
        """Return the login; an endpoint that was asked for wins over one that came with the credential."""
        endpoint = self.endpoint or found_endpoint or default_endpoint(self.account)
        is_found = found_endpoint and not self.endpoint
        require_endpoint(
            endpoint, f"the endpoint beside the {credential.name}" if is_found else "the endpoint"
        )
        return Login(endpoint.rstrip("/"), credential)

    def with_key(self, key: str, name: str, found_endpoint: str = "") -> Login:
        """Return a login by account key. Raises InvalidArgument if it cannot be one."""
        try:
            base64.b64decode(key, validate=True)
        except ValueError as error:
            cure = "; it is a connection string, for --connection-string-file" if "AccountKey=" in key else ""
            raise InvalidArgument(
                f"{name}: not an account key, which is base64 and nothing else{cure}"
            ) from error
        return self.login(AccountKey(name, self.account, self.container, key), found_endpoint)

    def with_sas(self, token: str, name: str, found_endpoint: str = "") -> Login:
        """Return a login by SAS. Raises InvalidArgument if it cannot be one."""
        return self.login(SasToken(name, sas_of(token, name)), found_endpoint)

    def with_connection_string(self, text: str, source: str) -> Login:
        """Return the login of a connection string. Raises InvalidArgument if it has none."""
        name = f"connection string from {source}"
        parts = _parts(text, name)
        if parts.get("usedevelopmentstorage", "").lower() == "true":
            parts = _EMULATOR_PARTS
        if (account := parts.get("accountname", self.account)) != self.account:
            raise InvalidArgument(f"{name}: is for the account {account}, not {self.account}")
        if key := parts.get("accountkey"):
            return self.with_key(key, f"account key in the {name}", _endpoint_of(parts))
        if token := parts.get("sharedaccesssignature"):
            return self.with_sas(token, f"SAS in the {name}", _endpoint_of(parts))
        raise InvalidArgument(f"{name}: has neither AccountKey nor SharedAccessSignature")


def find_login(
    account: str,
    container: str,
    *,
    endpoint: str = "",
    sources: CredentialSettings = UNSAID,
    environment: Mapping[str, str],
) -> Login:
    """Return the first login there is: from an option, the environment, or the emulator's own.

    Reads the files named. Raises InvalidArgument for impossible names, for options that contradict
    each other, for what is malformed, for plain HTTP to another machine, and when there is nothing at all.
    """
    require_account_name(account)
    require_container_name(container)
    place = _Place(account, container, endpoint)
    options = _asked_for(place, sources)
    if len(options) > 1:
        raise InvalidArgument(f"only one of these can be used: {', '.join(options)}")
    for login in options.values():
        return login()
    return _from_environment(place, environment) or _emulator(place)


def _asked_for(place: _Place, sources: CredentialSettings) -> dict[str, Callable[[], Login]]:
    """Return what the options ask for, by option; more than one is a contradiction."""
    auth = sources.auth
    if auth not in ("", "entra", "anonymous"):
        raise InvalidArgument(f"--auth {auth}: only entra and anonymous exist")
    asked: dict[str, Callable[[], Login]] = {}
    if connection_string := sources.connection_string_file:
        asked["--connection-string-file"] = lambda: place.with_connection_string(
            read_secret(connection_string), str(connection_string)
        )
    if account_key := sources.account_key_file:
        asked["--account-key-file"] = lambda: place.with_key(
            read_secret(account_key), f"account key from {account_key}"
        )
    if sas := sources.sas_file:
        asked["--sas-file"] = lambda: place.login(SasFile(sas))
    if auth:
        asked[f"--auth {auth}"] = lambda: place.login(EntraToken() if auth == "entra" else Anonymous())
    return asked


def _from_environment(place: _Place, environment: Mapping[str, str]) -> Login | None:
    if text := environment.get("AZURE_STORAGE_CONNECTION_STRING"):
        return place.with_connection_string(text, "AZURE_STORAGE_CONNECTION_STRING")
    for variable in ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCESS_KEY"):
        if key := environment.get(variable):
            return place.with_key(key.strip(), f"account key from {variable}")
    if token := environment.get("AZURE_STORAGE_SAS_TOKEN"):
        return place.with_sas(token, "SAS from AZURE_STORAGE_SAS_TOKEN")
    return None


def _emulator(place: _Place) -> Login:
    if place.account != EMULATOR_ACCOUNT:
        raise InvalidArgument(
            f"no credential for the account {place.account}: give --connection-string-file, "
            "--account-key-file, --sas-file, --auth entra or --auth anonymous, or set "
            "AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN"
        )
    return place.with_key(EMULATOR_KEY, "emulator's published account key")


def _parts(text: str, name: str) -> dict[str, str]:
    """Return a connection string's settings by their names in lower case."""
    pairs = [part.partition("=") for part in text.strip().strip(";").split(";")]
    if not all(separator for _, separator, _ in pairs):
        raise InvalidArgument(f"{name}: not of the form NAME=VALUE;NAME=VALUE;…")
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _endpoint_of(parts: Mapping[str, str]) -> str:
    """Return the endpoint that a connection string names; empty if it leaves that to the account's name."""
    if endpoint := parts.get("blobendpoint"):
        return endpoint
    if "accountname" not in parts:
        return ""
    scheme = parts.get("defaultendpointsprotocol", "https")
    return f"{scheme}://{parts['accountname']}.blob.{parts.get('endpointsuffix', 'core.windows.net')}"
