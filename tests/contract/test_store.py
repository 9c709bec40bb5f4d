"""The port's contract, held against Azurite and against the responder through the production adapter."""

import base64
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from azure.storage.blob import (
    BlobBlock,
    ContainerSasPermissions,
    StandardBlobTier,
    generate_container_sas,
)
from azurite import Azurite
from certificates import make_certificate
from responder.control import Responder

from blobfs.azure.assembly import open_store
from blobfs.azure.store import AzureStore
from blobfs.blocks import MAX_BATCH_REQUESTS, copied_block_id, digest_of, id_length
from blobfs.errors import (
    AccessDenied,
    AlreadyExists,
    Archived,
    Busy,
    Changed,
    Damaged,
    Failure,
    InvalidArgument,
    InvalidName,
    NoSpace,
    NotFound,
    OtherIdLength,
    Unsupported,
)
from blobfs.settings import CredentialSettings
from blobfs.store import (
    ALWAYS,
    IF_ABSENT,
    BlobInfo,
    BlobKind,
    BlobStore,
    Condition,
    ContentHeaders,
    Properties,
)

Service = Azurite | Responder

NUMBERS = {
    "connections": 4,
    "total_seconds": 10.0,
    "first_wait_seconds": 0.01,
    "longest_wait_seconds": 0.1,
    "connect_seconds": 5.0,
    "read_seconds": 30.0,
    "stall_seconds": 10.0,
}
AWKWARD_NAMES = [
    "with space",
    "100% sure?",
    "a#b&c=d+e",
    "quote'\"s",
    "größe/日本語/\N{GRINNING FACE}.txt",
    "tilde~(brackets)[x]{y}",
    "semi;colon,comma@at:colon!",
    "percent%20encoded%2Falready",
    "dots/a.b/.hidden",
]


@pytest.fixture(scope="module", params=["azurite", "responder"])
def service(request: pytest.FixtureRequest) -> Service:
    """What implements the Blob service: each test runs against both."""
    found: Service = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def container(service: Service) -> str:
    """The name of a new, empty container."""
    name = uuid.uuid4().hex
    service.create_container(name)
    return name


@pytest.fixture
def store(service: Service, container: str) -> Iterator[AzureStore]:
    opened = open_store(service.account, container, endpoint=service.endpoint, **NUMBERS)
    yield opened
    opened.close()


def put(store: BlobStore, name: str, body: bytes, metadata: dict[str, str] | None = None) -> BlobInfo:
    properties = Properties(metadata=metadata or {}, content_md5=hashlib.md5(body).digest())
    return store.put_blob(name, body, properties, ALWAYS)


def content(store: BlobStore, name: str) -> bytes:
    buffer = bytearray(1024)
    count, _ = store.read_range(name, 0, memoryview(buffer))
    return bytes(buffer[:count])


def stage(store: BlobStore, name: str, body: bytes) -> str:
    digest = digest_of(body)
    store.stage_block(name, digest.block_id(), body, digest.md5)
    return digest.block_id()


def sas_file(folder: Path, service: Service, container: str, letters: str, *, hours: int = 1) -> Path:
    token = generate_container_sas(
        service.account,
        container,
        account_key=service.key,
        permission=ContainerSasPermissions.from_string(letters),
        expiry=datetime.now(timezone.utc) + timedelta(hours=hours),
    )
    path = folder / f"{letters}.sas"
    path.write_text(f"?{token}\n")
    path.chmod(0o600)
    return path


def secret_of(path: Path) -> str:
    return path.read_text().partition("sig=")[2].strip()


def unsigned_token() -> str:
    """Return a token that says all that Azurite looks at; it does not look at signatures."""
    now = int(datetime.now(timezone.utc).timestamp())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
    }
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2ln"])


@contextmanager
def identity_endpoint(token: str) -> Iterator[str]:
    """Serve a managed identity's tokens the way a host in Azure does; give the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            expires_on = int(datetime.now(timezone.utc).timestamp()) + 3600
            answer = {"access_token": token, "expires_on": str(expires_on), "token_type": "Bearer"}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join()


def test_adapter_is_a_blob_store(store: AzureStore) -> None:
    port: BlobStore = store
    assert port.list_page("").blobs == []


# Whole blobs


def test_blob_written_whole_is_described_alike_by_every_call(store: AzureStore) -> None:
    headers = ContentHeaders("text/plain", "gzip", "de", "inline", "no-cache")
    body = b"hello"
    properties = Properties({"modtime": "17", "Mixed_Case": "x y"}, headers, hashlib.md5(body).digest())
    written = store.put_blob("dir/blob", memoryview(body), properties, ALWAYS)

    headed = store.head("dir/blob")
    (listed,) = store.list_page("dir/").blobs
    _, read = store.read_range("dir/blob", 1, memoryview(bytearray(3)))

    assert headed == listed
    assert read == headed._replace(tier="")
    assert headed.kind is BlobKind.BLOCK
    for info in (written, headed):
        assert (info.etag, info.size_bytes, info.modified_ns) == (listed.etag, 5, listed.modified_ns)
        assert info.metadata == properties.metadata
        assert info.headers == headers
        assert info.content_md5 == properties.content_md5


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_awkward_names_round_trip(store: AzureStore, name: str) -> None:
    put(store, name, name.encode())
    assert [blob.name for blob in store.list_page("").blobs] == [name]
    assert content(store, name) == name.encode()
    copied = store.copy(store.head(name), f"copy of {name}", {"k": "v"}, ALWAYS)
    assert copied.name == f"copy of {name}"
    store.delete(name, ALWAYS)
    assert [blob.name for blob in store.list_page("").blobs] == [f"copy of {name}"]


def test_name_that_is_not_unicode_is_refused(store: AzureStore) -> None:
    with pytest.raises(InvalidName):
        store.head("caf\udce9")


def test_version_that_was_removed_counts_as_changed(store: BlobStore) -> None:
    info = put(store, "x", b"1")
    store.delete("x", ALWAYS)
    with pytest.raises(Changed):
        store.read_range("x", 0, memoryview(bytearray(1)), if_match=info.etag)
    with pytest.raises(Changed):
        store.committed_blocks(info.version)


def test_empty_blob_has_no_bytes_and_an_info(store: AzureStore) -> None:
    written = put(store, "empty", b"", {"k": "v"})
    count, info = store.read_range("empty", 0, memoryview(bytearray(8)))
    assert count == 0
    assert info == store.head("empty")
    assert info.etag == written.etag
    assert info.size_bytes == 0
    assert info.content_md5 == hashlib.md5(b"").digest()


def test_blob_is_created_only_if_its_name_is_free(store: AzureStore) -> None:
    store.put_blob("x", b"1", Properties(), IF_ABSENT)
    with pytest.raises(AlreadyExists, match="x: the name is taken"):
        store.put_blob("x", b"2", Properties(), IF_ABSENT)
    assert content(store, "x") == b"1"


def test_blob_is_replaced_only_if_it_is_the_expected_version(store: AzureStore) -> None:
    first = put(store, "x", b"1")
    second = store.put_blob("x", b"2", Properties(), Condition(if_match=first.etag))
    with pytest.raises(Changed):
        store.put_blob("x", b"3", Properties(), Condition(if_match=first.etag))
    assert content(store, "x") == b"2"
    assert store.head("x").etag == second.etag


def test_body_that_does_not_match_its_checksum_is_damaged_and_not_stored(store: AzureStore) -> None:
    wrong = hashlib.md5(b"other").digest()
    with pytest.raises(Damaged, match="twice"):
        store.put_blob("x", b"body", Properties(content_md5=wrong), ALWAYS)
    with pytest.raises(Damaged):
        store.stage_block("x", digest_of(b"body").block_id(), b"body", wrong)
    assert store.requests["PUT blob"] == 2
    with pytest.raises(NotFound):
        store.head("x")


def test_metadata_that_no_header_can_carry_is_refused(store: AzureStore) -> None:
    for metadata in ({"a-b": "1"}, {"k": "line\nbreak"}, {"k": "\N{SNOWMAN}"}):
        with pytest.raises(InvalidArgument):
            store.put_blob("x", b"", Properties(metadata=metadata), ALWAYS)
    with pytest.raises(NoSpace, match="8192"):
        store.put_blob("x", b"", Properties(metadata={"k": "v" * 9000}), ALWAYS)


# Reading


def test_range_read_fills_the_memory_it_is_given(store: AzureStore) -> None:
    body = bytes(range(256)) * 4096
    put(store, "x", body)
    buffer = bytearray(len(body))
    count, info = store.read_range("x", 1000, memoryview(buffer)[:500_000])
    assert count == 500_000
    assert bytes(buffer[:count]) == body[1000:501_000]
    assert not any(buffer[count:])
    assert info is not None
    assert info.size_bytes == len(body)
    assert info.content_md5 == hashlib.md5(body).digest()


def test_range_read_ends_with_the_blob(store: AzureStore) -> None:
    put(store, "x", b"0123456789")
    buffer = memoryview(bytearray(8))
    assert store.read_range("x", 6, buffer)[0] == 4
    assert bytes(buffer[:4]) == b"6789"
    for start, room in ((10, buffer), (99, buffer), (0, buffer[:0])):
        count, info = store.read_range("x", start, room)
        assert (count, info and info.version) == (0, store.head("x").version)


def test_reader_pinned_to_a_version_never_sees_another(store: AzureStore) -> None:
    old = put(store, "x", b"old")
    buffer = memoryview(bytearray(8))
    assert store.read_range("x", 0, buffer, if_match=old.etag)[0] == 3
    put(store, "x", b"new")
    with pytest.raises(Changed):
        store.read_range("x", 0, buffer, if_match=old.etag)
    with pytest.raises(Changed):
        store.read_range("x", 50, buffer, if_match=old.etag)


def test_unchanged_blob_is_not_transferred_again(store: AzureStore) -> None:
    info = put(store, "x", b"bytes")
    buffer = memoryview(bytearray(8))
    for start in (0, 50):
        assert store.read_range("x", start, buffer, if_none_match=info.etag) == (0, None)
    assert bytes(buffer) == bytes(8)
    put(store, "x", b"other")
    assert store.read_range("x", 0, buffer, if_none_match=info.etag)[0] == 5


def test_missing_blob_is_not_found_by_any_call(store: AzureStore) -> None:
    calls = [
        lambda: store.head("ghost"),
        lambda: store.read_range("ghost", 0, memoryview(bytearray(4))),
        lambda: store.copy(BlobInfo("ghost", "0x1", 0, 0), "target", {}, ALWAYS),
        lambda: store.delete("ghost", ALWAYS),
    ]
    for call in calls:
        with pytest.raises(NotFound, match=r"ghost|copy"):
            call()


def test_archived_blob_is_listed_and_says_what_to_do_when_read(
    store: AzureStore, service: Service, container: str
) -> None:
    info = put(store, "cold", b"x")
    with service.client() as client:
        client.get_blob_client(container, "cold").set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    assert [blob.tier for blob in store.list_page("").blobs] == ["Archive"]
    with pytest.raises(Archived, match="set its tier"):
        store.read_range("cold", 0, memoryview(bytearray(1)), if_match=info.etag)


# Blocks


def test_blocks_become_a_blob_in_the_order_committed(store: AzureStore) -> None:
    zeros, ones = stage(store, "x", b"0000"), stage(store, "x", b"11")
    order = [zeros, ones, zeros]
    properties = Properties({"k": "v"}, ContentHeaders("a/b"), hashlib.md5(b"0000110000").digest())
    with pytest.raises(NotFound):
        store.head("x")

    committed = store.commit_blocks("x", order, properties, IF_ABSENT, 10)

    assert content(store, "x") == b"0000110000"
    info = store.head("x")
    assert (info.etag, info.size_bytes, info.metadata) == (committed.etag, 10, {"k": "v"})
    assert info.content_md5 == properties.content_md5
    assert info.headers.content_type == "a/b"
    blocks = store.committed_blocks(info.version)
    assert [(block.block_id, block.size_bytes) for block in blocks] == [(zeros, 4), (ones, 2), (zeros, 4)]


def test_commit_replaces_everything_the_blob_had(store: AzureStore) -> None:
    store.put_blob(
        "x", b"1", Properties({"k": "v"}, ContentHeaders("a/b"), hashlib.md5(b"1").digest()), ALWAYS
    )
    store.commit_blocks("x", [stage(store, "x", b"2")], Properties(), ALWAYS, 1)
    info = store.head("x")
    assert info.metadata == {}
    assert info.content_md5 is None


def test_empty_block_list_makes_an_empty_blob(store: AzureStore) -> None:
    info = store.commit_blocks("x", [], Properties(), IF_ABSENT, 0)
    assert store.head("x").size_bytes == 0
    assert store.committed_blocks(info.version) == []


def test_commit_keeps_its_condition(store: AzureStore) -> None:
    first = put(store, "x", b"1")
    block_id = stage(store, "x", b"22")
    with pytest.raises(AlreadyExists):
        store.commit_blocks("x", [block_id], Properties(), IF_ABSENT, 2)
    put(store, "y", b"")
    with pytest.raises(Changed):
        store.commit_blocks("x", [block_id], Properties(), Condition(if_match="0x1"), 2)
    store.commit_blocks("x", [block_id], Properties(), Condition(if_match=first.etag), 2)
    assert content(store, "x") == b"22"


def test_blocks_of_other_tools_are_recommitted_by_their_own_ids(
    store: AzureStore, service: Service, container: str
) -> None:
    with service.client() as client:
        foreign = client.get_blob_client(container, "x")
        for block_id, body in (("one", b"11"), ("two", b"22")):
            foreign.stage_block(block_id, body)
        foreign.commit_block_list([BlobBlock("one"), BlobBlock("two")])
    info = store.head("x")
    first, second = store.committed_blocks(info.version)
    store.commit_blocks(
        "x", [second.block_id, first.block_id], Properties(), Condition(if_match=info.etag), 4
    )
    assert content(store, "x") == b"2211"


def test_block_list_of_a_replaced_blob_is_refused(store: AzureStore) -> None:
    old = store.commit_blocks("x", [stage(store, "x", b"1")], Properties(), ALWAYS, 1)
    new = store.commit_blocks("x", [stage(store, "x", b"2")], Properties(), ALWAYS, 1)
    with pytest.raises(Changed):
        store.committed_blocks(old.version)
    assert len(store.committed_blocks(new.version)) == 1


def test_blob_put_whole_has_no_blocks(store: AzureStore) -> None:
    assert store.committed_blocks(put(store, "x", b"1").version) == []


def test_commit_of_a_block_that_is_gone_is_reported_as_changed(store: AzureStore) -> None:
    with pytest.raises(Changed, match="staged blocks are gone"):
        store.commit_blocks("x", [digest_of(b"never staged").block_id()], Properties(), ALWAYS, 12)


def test_unfinished_upload_with_other_ids_is_named(
    store: AzureStore, service: Service, container: str
) -> None:
    with service.client() as client:
        client.get_blob_client(container, "x").stage_block("short", b"1")
    with pytest.raises(OtherIdLength, match="unfinished upload"):
        stage(store, "x", b"2")
    assert [id_length(block_id) for block_id in store.uncommitted_ids("x")] == [5]
    assert store.uncommitted_ids("y") == []


def test_range_of_a_blob_becomes_a_block_by_the_service_itself_or_not_at_all(
    store: AzureStore, service: Service
) -> None:
    source = put(store, "source", b"0123456789")
    staged = [store.stage_range(source.version, 2, 3, "x", copied_block_id("", "", 2, 3)) for _ in range(2)]
    if isinstance(service, Azurite):  # which is not asked twice
        assert staged == [False, False]
        assert store.requests["PUT block from URL"] == 1
        return
    assert staged == [True, True]
    assert store.uncommitted_ids("x") == [copied_block_id("", "", 2, 3)]
    store.commit_blocks("x", store.uncommitted_ids("x"), Properties(), IF_ABSENT, 3)
    assert content(store, "x") == b"234"
    put(store, "source", b"replaced")
    with pytest.raises(Changed, match="replaced"):
        store.stage_range(source.version, 0, 3, "x", copied_block_id("", "", 0, 3))
    store.delete("source", ALWAYS)
    assert not store.stage_range(source.version, 0, 3, "x", copied_block_id("", "", 0, 3))
    put(store, "source", b"again")
    assert store.stage_range(store.head("source").version, 0, 3, "x", copied_block_id("", "", 0, 3))


# Metadata, copies, deletions


def test_metadata_is_replaced_for_one_version_only(store: AzureStore) -> None:
    info = put(store, "x", b"1", {"old": "1"})
    etag = store.set_metadata(info.version, {"new": "2"})
    assert (store.head("x").metadata, store.head("x").etag) == ({"new": "2"}, etag)
    with pytest.raises(Changed):
        store.set_metadata(info.version, {"lost": "3"})


def test_copy_has_the_bytes_and_headers_of_its_source_and_new_metadata(store: AzureStore) -> None:
    digest = hashlib.md5(b"body").digest()
    source = store.put_blob("s", b"body", Properties({"old": "1"}, ContentHeaders("a/b"), digest), ALWAYS)
    copied = store.copy(source, "t", {"new": "2"}, IF_ABSENT)
    assert copied == store.head("t")._replace(tier=copied.tier)  # no reply to a write tells it
    assert content(store, "t") == b"body"
    assert (copied.metadata, copied.headers.content_type) == ({"new": "2"}, "a/b")
    assert copied.content_md5 == digest


def test_copy_without_metadata_does_not_take_the_sources(store: AzureStore) -> None:
    source = put(store, "s", b"body", {"old": "1"})
    copied = store.copy(source, "t", {}, ALWAYS)
    assert copied.metadata == {}
    assert copied == store.head("t")


def test_copy_keeps_its_conditions(store: AzureStore) -> None:
    source, target = put(store, "s", b"1"), put(store, "t", b"2")
    with pytest.raises(AlreadyExists):
        store.copy(source, "t", {}, IF_ABSENT)
    with pytest.raises(Changed):
        store.copy(source, "t", {}, Condition(if_match=source.etag))
    with pytest.raises(Changed):
        store.copy(source._replace(etag=target.etag), "t", {}, ALWAYS)
    assert content(store, "t") == b"2"
    store.copy(source, "t", {}, Condition(if_match=target.etag))
    assert content(store, "t") == b"1"


def test_delete_takes_snapshots_along_and_keeps_its_condition(
    store: AzureStore, service: Service, container: str
) -> None:
    info = put(store, "x", b"1")
    with service.client() as client:
        client.get_blob_client(container, "x").create_snapshot()
    with pytest.raises(Changed):
        store.delete("x", Condition(if_match="0x1"))
    store.delete("x", Condition(if_match=info.etag))
    with pytest.raises(NotFound):
        store.delete("x", ALWAYS)


def test_batch_deletes_versions_and_leaves_what_has_changed(
    store: AzureStore, service: Service, container: str
) -> None:
    infos = [put(store, name, b"1") for name in AWKWARD_NAMES]
    with service.client() as client:
        client.get_blob_client(container, infos[0].name).create_snapshot()
    old, gone = put(store, "changed", b"old").version, put(store, "gone", b"")
    new = put(store, "changed", b"new")
    store.delete("gone", ALWAYS)
    left = store.delete_batch([old, *(info.version for info in infos), gone.version])
    assert left == [old, gone.version]
    assert [blob.version for blob in store.list_page("").blobs] == [new.version]
    assert store.requests["POST batch"] == 1


def test_batch_takes_as_many_as_the_service_allows(store: AzureStore) -> None:
    with ThreadPoolExecutor(4) as threads:
        infos = list(threads.map(lambda number: put(store, f"d/{number}", b""), range(MAX_BATCH_REQUESTS)))
    assert not store.delete_batch([info.version for info in infos])
    assert not store.list_page("").blobs


def test_batch_is_left_whole_by_a_credential_that_may_not_delete_and_not_tried_again(
    store: AzureStore, service: Service, container: str, tmp_path: Path
) -> None:
    versions = [put(store, name, b"1").version for name in "ab"]
    sas = CredentialSettings(sas_file=sas_file(tmp_path, service, container, "rwl"))
    limited = open_store(service.account, container, endpoint=service.endpoint, credential=sas, **NUMBERS)
    for _ in range(2):
        assert limited.delete_batch(versions) == versions
    asked = limited.requests["POST batch"]
    limited.delete_batch(versions)
    assert limited.requests["POST batch"] == asked
    limited.close()


def test_leased_blob_is_busy(store: AzureStore, service: Service, container: str) -> None:
    info = put(store, "x", b"1")
    with service.client() as client:
        client.get_blob_client(container, "x").acquire_lease()
    with pytest.raises(Busy, match="lease"):
        put(store, "x", b"2")
    with pytest.raises(Busy, match="lease"):
        store.set_metadata(info.version, {})
    with pytest.raises(Busy, match="lease"):
        store.delete("x", ALWAYS)


def test_blobs_of_other_kinds_are_read_and_not_written(
    store: AzureStore, service: Service, container: str
) -> None:
    with service.client() as client:
        client.get_blob_client(container, "page").create_page_blob(512)
        client.get_blob_client(container, "append").create_append_blob()
    assert [(blob.name, blob.kind) for blob in store.list_page("").blobs] == [
        ("append", BlobKind.APPEND),
        ("page", BlobKind.PAGE),
    ]
    assert store.read_range("page", 0, memoryview(bytearray(512)))[0] == 512
    with pytest.raises(Unsupported):
        stage(store, "page", b"1")


# Listing


def test_listing_gives_every_name_once_over_many_pages(store: AzureStore) -> None:
    names = [f"d{i}/{name}" for i in range(3) for name in ("a", "b")] + ["top"]
    for name in names:
        put(store, name, b"")
    pages, marker = [], ""
    while not pages or marker:
        pages.append(store.list_page("", marker=marker, max_results=2))
        marker = pages[-1].next_marker
    assert [blob.name for page in pages for blob in page.blobs] == names
    assert all(len(page.blobs) <= 2 for page in pages)


def test_listing_with_a_delimiter_gives_directories_as_prefixes(store: AzureStore) -> None:
    for name in ("a", "a/1", "a/2", "b c/x/y", "z"):
        put(store, name, b"")
    blobs, prefixes, marker, first = [], [], "", True
    while first or marker:
        page = store.list_page("", delimiter="/", marker=marker, max_results=2)
        blobs += [blob.name for blob in page.blobs]
        prefixes += page.prefixes
        first, marker = False, page.next_marker
    assert (sorted(blobs), sorted(prefixes)) == (["a", "z"], ["a/", "b c/"])
    assert [blob.name for blob in store.list_page("a/", delimiter="/").blobs] == ["a/1", "a/2"]


def test_uncommitted_blobs_are_not_listed(store: AzureStore) -> None:
    stage(store, "x", b"1")
    assert store.list_page("").blobs == []


# Access


def test_container_sas_is_enough_and_its_letters_say_what_it_allows(
    service: Service, container: str, tmp_path: Path, store: AzureStore
) -> None:
    put(store, "x", b"1")
    read_only = sas_file(tmp_path, service, container, "rl")
    read_write = sas_file(tmp_path, service, container, "racwdl")

    reader = open_store(
        service.account,
        container,
        endpoint=service.endpoint,
        credential=CredentialSettings(sas_file=read_only),
        **NUMBERS,
    )
    access = reader.probe()
    assert access.read_only
    assert str(read_only) in access.reason
    assert content(reader, "x") == b"1"
    with pytest.raises(AccessDenied, match=r"rl\.sas") as refusal:
        put(reader, "x", b"2")
    assert secret_of(read_only) not in str(refusal.value)

    writer = open_store(
        service.account,
        container,
        endpoint=service.endpoint,
        credential=CredentialSettings(sas_file=read_write),
        **NUMBERS,
    )
    assert not writer.probe().read_only
    info = put(writer, "x", b"2")
    writer.copy(info, "y", {}, ALWAYS)
    writer.delete("x", ALWAYS)
    reader.close()
    writer.close()


def test_expired_sas_says_when_it_expired(service: Service, container: str, tmp_path: Path) -> None:
    path = sas_file(tmp_path, service, container, "rl", hours=-1)
    store = open_store(
        service.account,
        container,
        endpoint=service.endpoint,
        credential=CredentialSettings(sas_file=path),
        **NUMBERS,
    )
    with pytest.raises(AccessDenied, match=r"SAS from .*rl\.sas expired on 20\d\d-") as refusal:
        store.probe()
    assert secret_of(path) not in str(refusal.value)
    store.close()


def test_renewed_sas_file_is_used_without_a_new_mount(
    service: Service, container: str, tmp_path: Path
) -> None:
    path = sas_file(tmp_path, service, container, "rl", hours=-1)
    store = open_store(
        service.account,
        container,
        endpoint=service.endpoint,
        credential=CredentialSettings(sas_file=path),
        **NUMBERS,
    )
    with pytest.raises(AccessDenied):
        store.probe()
    sas_file(tmp_path, service, container, "rl")
    assert store.probe().read_only
    store.close()


def test_wrong_key_is_named_by_its_file_and_not_shown(
    service: Service, container: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.key"
    path.write_text("d3Jvbmc=")
    path.chmod(0o600)
    store = open_store(
        service.account,
        container,
        endpoint=service.endpoint,
        credential=CredentialSettings(account_key_file=path),
        **NUMBERS,
    )
    with pytest.raises(AccessDenied, match=r"account key from .*wrong\.key") as refusal:
        store.probe()
    assert "d3Jvbmc" not in str(refusal.value)
    store.close()


def test_anonymous_access_to_a_private_container_is_refused(service: Service, container: str) -> None:
    store = open_store(
        service.account,
        container,
        endpoint=service.endpoint,
        credential=CredentialSettings(auth="anonymous"),
        **NUMBERS,
    )
    with pytest.raises(Failure, match=container):
        store.probe()
    store.close()


def test_anonymous_access_to_a_public_container_is_read_only(service: Service) -> None:
    with service.client() as client:
        client.create_container("public", public_access="container").upload_blob("x", b"1")
    store = open_store(
        service.account,
        "public",
        endpoint=service.endpoint,
        credential=CredentialSettings(auth="anonymous"),
        **NUMBERS,
    )
    assert store.probe().read_only
    assert content(store, "x") == b"1"
    with pytest.raises(AccessDenied):
        put(store, "x", b"2")
    store.close()


def test_missing_container_is_named_and_can_be_created(service: Service) -> None:
    store = open_store(service.account, "not-yet-there", endpoint=service.endpoint, **NUMBERS)
    with pytest.raises(NotFound, match=r"container not-yet-there: .* does not exist"):
        store.probe()
    store.create_container()
    store.create_container()
    assert not store.probe().read_only
    store.close()


@pytest.mark.parametrize("service_class", [Azurite, Responder])
def test_entra_login_is_accepted_over_tls_with_a_private_authority(
    service_class: type[Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, private_key = make_certificate(tmp_path)
    with service_class(certificate, private_key) as service, identity_endpoint(unsigned_token()) as url:
        monkeypatch.setenv("IDENTITY_ENDPOINT", url)
        monkeypatch.setenv("IDENTITY_HEADER", "any")
        store = open_store(
            service.account,
            "entra",
            endpoint=service.endpoint,
            credential=CredentialSettings(auth="entra"),
            ca_file=certificate,
            **NUMBERS,
        )
        store.create_container()
        assert not store.probe().read_only
        info = put(store, "x", bytes(300_000))
        buffer = memoryview(bytearray(300_001))
        assert store.read_range("x", 0, buffer, if_match=info.etag)[0] == 300_000
        assert store.copy(info, "y", {}, ALWAYS).size_bytes == 300_000
        can_copy_ranges = isinstance(service, Responder)
        assert store.stage_range(info.version, 0, 9, "z", copied_block_id("", "", 0, 9)) == can_copy_ranges
        assert not store.delete_batch([info.version])
        store.close()


def test_many_threads_share_a_few_connections(store: AzureStore) -> None:
    def write_and_read(number: int) -> bool:
        body = str(number).encode() * 1000
        put(store, f"{number}", body)
        buffer = memoryview(bytearray(len(body)))
        return store.read_range(f"{number}", 0, buffer)[0] == len(body) and bytes(buffer) == body

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(write_and_read, range(64)))


def test_requests_are_counted_by_kind(store: AzureStore) -> None:
    put(store, "x", b"1")
    store.head("x")
    store.head("x")
    assert store.requests == {"PUT blob": 1, "HEAD blob": 2}
