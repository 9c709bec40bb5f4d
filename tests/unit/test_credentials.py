"""Where credentials are found, what they are called, and what they give a request."""

import base64
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from blobfs.azure.addresses import EMULATOR_ENDPOINT, require_container_name
from blobfs.azure.credentials import (
    AccountKey,
    Anonymous,
    Authorization,
    Credential,
    EntraToken,
    SasFile,
    SasToken,
)
from blobfs.azure.sources import Login, find_login
from blobfs.errors import AccessDenied, InvalidArgument
from blobfs.settings import CredentialSettings

KEY = base64.b64encode(b"the secret key").decode()
SAS = "sv=2022-11-02&sp=rl&se=2099-01-02T03:04:05Z&sr=c&sig=SECRET%2Fsignature"
SECRETS = (KEY, "SECRET")
SUFFIX = "EndpointSuffix=core.windows.net"
KEY_STRING = f"DefaultEndpointsProtocol=https;AccountName=acct;AccountKey={KEY};{SUFFIX}"
SAS_STRING = f"BlobEndpoint=https://acct.blob.example.org/;SharedAccessSignature={SAS}"


def find(environment: Mapping[str, str] | None = None, *, account: str = "acct", **options: object) -> Login:
    endpoint = str(options.pop("endpoint", ""))
    sources = CredentialSettings(**options)  # type: ignore[arg-type]
    return find_login(account, "box", endpoint=endpoint, sources=sources, environment=environment or {})


def secret_file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_sas_needs_none_of_azures_libraries(tmp_path: Path) -> None:
    """To load them takes longer than many a copy."""
    path = secret_file(tmp_path, "sas", SAS)
    script = f"""
import sys
from pathlib import Path
import blobfs.copies, blobfs.mount
from blobfs.azure.sources import find_login
from blobfs.settings import CredentialSettings
login = find_login("acct", "box", sources=CredentialSettings(sas_file=Path({str(path)!r})), environment={{}})
login.credential.authorization()
print(sorted({{"azure.core", "azure.identity", "azure.storage.blob"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", script], stdout=-1, check=True).stdout == b"[]\n"


# The order in which they are found


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        (["AZURE_STORAGE_CONNECTION_STRING"], "account key in the connection string from {0}"),
        (["AZURE_STORAGE_KEY"], "account key from {0}"),
        (["AZURE_STORAGE_ACCESS_KEY"], "account key from {0}"),
        (["AZURE_STORAGE_SAS_TOKEN"], "SAS from {0}"),
        (["AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"], "account key from {0}"),
        (
            ["AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY"],
            "account key in the connection string from {0}",
        ),
    ],
)
def test_environment_is_searched_in_order(variables: list[str], name: str) -> None:
    values = {
        "AZURE_STORAGE_CONNECTION_STRING": KEY_STRING,
        "AZURE_STORAGE_KEY": KEY,
        "AZURE_STORAGE_ACCESS_KEY": KEY,
        "AZURE_STORAGE_SAS_TOKEN": SAS,
    }
    found = find({variable: values[variable] for variable in variables})
    assert found.credential.name == name.format(variables[0])


def test_option_wins_over_the_environment(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "sas", SAS)
    environment = {"AZURE_STORAGE_KEY": KEY}
    assert find(environment, sas_file=path).credential.name == f"SAS from {path}"
    assert isinstance(find(environment, auth="anonymous").credential, Anonymous)


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "secret", SAS)
    with pytest.raises(InvalidArgument, match=r"only one of these .*--account-key-file, --sas-file"):
        find(account_key_file=path, sas_file=path)
    with pytest.raises(InvalidArgument, match="--sas-file, --auth anonymous"):
        find(sas_file=path, auth="anonymous")
    with pytest.raises(InvalidArgument, match="kerberos"):
        find(auth="kerberos")


def test_nothing_found_names_everything_that_could_be_given() -> None:
    with pytest.raises(InvalidArgument, match=r"--sas-file.*--auth entra.*AZURE_STORAGE_SAS_TOKEN"):
        find()


def test_emulator_needs_no_credential() -> None:
    found = find(account="devstoreaccount1")
    assert found.endpoint == EMULATOR_ENDPOINT
    assert "published" in found.credential.name


# What each source may hold


def test_files_give_the_kind_of_credential_that_their_option_says(tmp_path: Path) -> None:
    cases = {
        "connection_string_file": (KEY_STRING, AccountKey),
        "account_key_file": (KEY, AccountKey),
        "sas_file": (SAS, SasFile),
    }
    for option, (text, kind) in cases.items():
        path = secret_file(tmp_path, option, f"\n{text} \n")
        credential = find(**{option: path}).credential
        assert isinstance(credential, kind)
        assert str(path) in credential.name


def test_sas_is_taken_with_and_without_its_question_mark() -> None:
    for text in (SAS, f"?{SAS}"):
        assert find({"AZURE_STORAGE_SAS_TOKEN": text}).credential.authorization().sas == SAS


@pytest.mark.parametrize(
    ("text", "endpoint", "kind"),
    [
        (KEY_STRING, "https://acct.blob.core.windows.net", AccountKey),
        (
            KEY_STRING.replace(SUFFIX, "EndpointSuffix=core.cloudapi.de"),
            "https://acct.blob.core.cloudapi.de",
            AccountKey,
        ),
        (SAS_STRING, "https://acct.blob.example.org", SasToken),
        (f"AccountName=acct;SharedAccessSignature={SAS}", "https://acct.blob.core.windows.net", SasToken),
    ],
)
def test_connection_string_says_where_and_how(text: str, endpoint: str, kind: type[Credential]) -> None:
    found = find({"AZURE_STORAGE_CONNECTION_STRING": text})
    assert found.endpoint == endpoint
    assert isinstance(found.credential, kind)
    asked_for = find({"AZURE_STORAGE_CONNECTION_STRING": text}, endpoint="https://other.example.org")
    assert asked_for.endpoint == "https://other.example.org"


def test_connection_string_of_the_emulator_is_understood() -> None:
    text = "UseDevelopmentStorage=true"
    found = find({"AZURE_STORAGE_CONNECTION_STRING": text}, account="devstoreaccount1")
    assert found.endpoint == EMULATOR_ENDPOINT


def test_connection_string_of_another_account_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="is for the account acct, not mine"):
        find({"AZURE_STORAGE_CONNECTION_STRING": KEY_STRING}, account="mine")


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("account_key_file", "", "is empty"),
        ("account_key_file", "no base64!", "not an account key"),
        ("account_key_file", "kéy", "not an account key"),
        ("account_key_file", KEY_STRING, "is a connection string, for --connection-string-file"),
        ("sas_file", f"https://acct.blob.example.org/box?{SAS}", "keep only its SAS"),
        ("sas_file", SAS_STRING, "give it as --connection-string-file"),
        ("sas_file", f'"{SAS}"', "not a shared access signature"),
        ("sas_file", " \n", "is empty"),
        ("sas_file", "sv=2022-11-02&sp=rl", "not a shared access signature"),
        ("sas_file", f"{SAS}\n{SAS}", "not a shared access signature"),
        ("connection_string_file", "hello", "not of the form"),
        ("connection_string_file", "AccountName=acct;Blob", "not of the form"),
        ("connection_string_file", f"{KEY_STRING}'", "is no address"),
        ("connection_string_file", "AccountName=acct", "neither AccountKey nor"),
    ],
)
def test_malformed_file_is_named_with_what_is_wrong(
    tmp_path: Path, option: str, text: str, reason: str
) -> None:
    path = secret_file(tmp_path, "secret.txt", text)
    with pytest.raises(InvalidArgument, match=rf"secret\.txt:? .*{reason}"):
        find(**{option: path})


@pytest.mark.parametrize(
    ("option", "text"),
    [("account_key_file", KEY), ("sas_file", SAS), ("connection_string_file", KEY_STRING)],
)
def test_byte_order_mark_and_line_ends_of_other_systems_do_not_matter(
    tmp_path: Path, option: str, text: str
) -> None:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    plain = secret_file(tmp_path, "plain", text)
    marked_login, plain_login = find(**{option: path}), find(**{option: plain})
    assert marked_login.endpoint == plain_login.endpoint
    if option == "sas_file":
        assert marked_login.credential.authorization() == plain_login.credential.authorization()


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="missing: cannot be read: No such file"):
        find(sas_file=tmp_path / "missing")
    with pytest.raises(InvalidArgument, match="cannot be read: Is a directory"):
        find(account_key_file=tmp_path)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgument, match="is not text in UTF-8"):
        find(sas_file=binary)


def test_secret_that_others_may_read_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = secret_file(tmp_path, "secret", SAS)
    find(sas_file=path)
    assert not caplog.records
    path.chmod(0o640)
    find(sas_file=path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{path}: other users may read" in caplog.text
    caplog.clear()


def test_no_secret_is_shown_by_any_repr(tmp_path: Path) -> None:
    logins = [
        find({"AZURE_STORAGE_KEY": KEY}),
        find({"AZURE_STORAGE_CONNECTION_STRING": SAS_STRING}),
        find(sas_file=secret_file(tmp_path, "sas", SAS)),
    ]
    for login in logins:
        shown = repr((login, login.credential.name, login.credential.authorization()))
        assert not any(secret in shown for secret in SECRETS)


# Where it is sent


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:1/a", "http://localhost", "http://[::1]:1", "https://h.example"]
)
def test_https_and_the_loopback_are_accepted(endpoint: str) -> None:
    assert find({"AZURE_STORAGE_KEY": KEY}, endpoint=endpoint + "/").endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint", ["http://10.0.0.1", "http://acct.example.org", "http://127.0.0.1.example.org"]
)
def test_plain_http_to_another_machine_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidArgument, match="use https"):
        find({"AZURE_STORAGE_KEY": KEY}, endpoint=endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://h.example",
        "h.example",
        "https://",
        "https://[::1",
        "https://h.example:99999",
        "https://h.example:0",
        "https://h.example:SECRET",
        "https://h..example",
        "https://hä.example",
        f"https://{'h' * 64}.example",
        "https://h.example/a b",
        f"https://h.example/?{SAS}",
        "https://user:SECRET@h.example",
        f"AccountKey={KEY};SECRET",
    ],
)
def test_endpoint_that_is_none_is_refused_without_showing_a_secret(endpoint: str) -> None:
    with pytest.raises(InvalidArgument, match="it looks like https://HOST") as refusal:
        find({"AZURE_STORAGE_KEY": KEY}, endpoint=endpoint)
    assert "SECRET" not in str(refusal.value)


def test_impossible_account_name_is_refused() -> None:
    for account in ("no_underscore", "evil.example.org/", "ab", "", "a\nb", "acct\n", "Acct", "x" * 25):
        with pytest.raises(InvalidArgument, match="no account name"):
            find({"AZURE_STORAGE_KEY": KEY}, account=account, endpoint="https://h.example")
    with pytest.raises(InvalidArgument, match=r"no account name: .*--prefix"):
        find(account="acct/box", auth="anonymous")
    with pytest.raises(InvalidArgument, match=r"no account name: .*--endpoint"):
        find(account="https://acct.example.org", auth="anonymous")


@pytest.mark.parametrize("container", ["box", "a-b-c", "0" * 63, "$root", "$web", "$logs"])
def test_possible_container_names_are_accepted(container: str) -> None:
    require_container_name(container)


@pytest.mark.parametrize(
    "container", ["", "ab", "x" * 64, "Box", "a--b", "-ab", "ab-", "a_b", "$other", "b\nx", "box\n", "böx"]
)
def test_impossible_container_names_are_refused(container: str) -> None:
    with pytest.raises(InvalidArgument, match="no container name: 3 to 63"):
        require_container_name(container)


def test_a_path_in_a_container_name_is_sent_to_prefix() -> None:
    with pytest.raises(InvalidArgument, match="write con1 --prefix a/b"):
        require_container_name("con1/a/b")


# What a request carries


def test_account_key_signs_one_sas_for_the_container_and_keeps_it() -> None:
    credential = find({"AZURE_STORAGE_KEY": KEY}).credential
    authorization = credential.authorization()
    assert credential.authorization() is authorization
    assert "sr=c" in authorization.sas
    assert set("racwdl") <= set(authorization.permissions or "")
    assert KEY not in authorization.sas


def test_account_key_signs_for_the_account_only_to_create_the_container() -> None:
    credential = find({"AZURE_STORAGE_KEY": KEY}).credential
    assert "srt=c" in credential.authorization(create_container=True).sas
    assert "srt=" not in credential.authorization().sas


def test_sas_tells_its_permissions_and_its_end() -> None:
    authorization = Authorization(sas=SAS)
    assert authorization.permissions == "rl"
    assert authorization.expires_at == datetime(2099, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert Authorization(sas="se=2099-01-02&sig=x").expires_at == datetime(2099, 1, 2, tzinfo=timezone.utc)
    by_policy = Authorization(sas="si=policy&sig=x")
    assert (by_policy.permissions, by_policy.expires_at) == (None, None)


@pytest.mark.parametrize(
    ("permissions", "limits"),
    [
        ("racwdl", ""),
        ("racwl", "deletes and renames will be refused"),
        ("wl", "reads and deletes and renames will be refused"),
    ],
)
def test_sas_tells_what_it_will_not_allow(permissions: str, limits: str) -> None:
    assert Authorization(sas=f"sp={permissions}&sig=x").limits == limits
    assert Authorization(sas="si=policy&sig=x").limits == ""


def test_sas_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "sas", SAS)
    credential = SasFile(path)
    renewed = secret_file(tmp_path, "new", SAS.replace("SECRET", "SECOND"))
    renewed.rename(path)
    assert "SECOND" in credential.authorization().sas
    assert not credential.renew()


def test_sas_file_changed_behind_the_same_times_is_found_after_a_refusal(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "sas", SAS)
    credential = SasFile(path)
    before = path.stat()
    path.write_text(SAS.replace("SECRET", "SECOND"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "SECRET" in credential.authorization().sas
    assert credential.renew()
    assert "SECOND" in credential.authorization().sas


def test_last_good_sas_stays_in_use_while_its_file_is_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = secret_file(tmp_path, "sas", SAS)
    credential = SasFile(path)
    path.write_text("")
    assert credential.authorization().sas == SAS
    path.unlink()
    assert credential.authorization().sas == SAS
    assert "the last SAS stays in use" in caplog.text
    assert "SECRET" not in caplog.text
    caplog.clear()
    secret_file(tmp_path, "sas", SAS.replace("SECRET", "SECOND"))
    assert "SECOND" in credential.authorization().sas


# Entra ID


class IdentityEndpoint(HTTPServer):
    """A managed identity's local token service, as an Azure host offers it."""

    tokens_given = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), IdentityHandler)


class IdentityHandler(BaseHTTPRequestHandler):
    server: IdentityEndpoint

    def do_GET(self) -> None:
        self.server.tokens_given += 1
        token = f"SECRET-token-{self.server.tokens_given}"
        body = json.dumps(
            {"access_token": token, "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityEndpoint]:
    for variable in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(variable)
    with IdentityEndpoint() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        yield server
        server.shutdown()
        thread.join()


def test_entra_login_gives_a_bearer_token_and_keeps_it(identity: IdentityEndpoint) -> None:
    credential = find(auth="entra").credential
    authorization = credential.authorization()
    assert credential.authorization() == authorization
    assert authorization.bearer == "SECRET-token-1"
    assert authorization.sas == ""
    assert identity.tokens_given == 1
    assert "SECRET" not in repr((authorization, credential))


def test_entra_login_that_fails_is_access_denied(
    monkeypatch: pytest.MonkeyPatch, identity: IdentityEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    credential = EntraToken()
    with pytest.raises(AccessDenied, match="Entra ID login: ") as refused:
        credential.authorization()
    assert "\n  EnvironmentCredential: " in str(refused.value)
    assert identity.tokens_given == 0
    caplog.clear()


def test_entra_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(InvalidArgument, match=r"in the clone of blobfs: pip install '\.\[entra\]'"):
        find(auth="entra")
