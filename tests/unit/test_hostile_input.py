"""What others send or leave, with anything in it: a value, or one of the failures that are documented."""

import json
import string
from collections.abc import Callable
from http.client import HTTPException
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TypeVar
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blobfs.azure.batch import statuses_of
from blobfs.azure.credentials import sas_of
from blobfs.azure.exchange import receive_body, receive_head
from blobfs.azure.messages import Reply, blob_info, blocks_of, md5_of, modified_ns, rest_of
from blobfs.azure.messages import Request as ServiceRequest
from blobfs.azure.sources import find_login
from blobfs.cli.config_file import config_values
from blobfs.cli.options import PARAMETERS
from blobfs.errors import Damaged, InvalidArgument, Unavailable
from blobfs.spool.image import Image
from blobfs.spool.records import Kind, Record, records_in
from blobfs.store import CommittedBlock

T = TypeVar("T")
latin = st.text(st.characters(max_codepoint=0xFF), max_size=40)
dates = st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
numbers = st.integers().map(str)


def gives(expected: type[Exception], parse: Callable[[], T]) -> T | None:
    """Return what the parser returns, None if it raises what it may. Anything else is a failed test."""
    try:
        return parse()
    except expected:
        return None


# Replies

HEADERS = (
    "etag", "last-modified", "content-length", "content-range", "content-md5", "x-ms-blob-content-md5",
    "x-ms-blob-type", "x-ms-access-tier", "retry-after", "x-ms-error-code", "x-ms-meta-a", "content-type",
)  # fmt: skip
headers = st.dictionaries(st.sampled_from(HEADERS), latin | dates | numbers)


@given(headers)
def test_headers_of_a_blob_are_understood_or_make_no_sense(headers: dict[str, str]) -> None:
    info = gives(Unavailable, lambda: blob_info("x", headers))
    assert info is None or (info.size_bytes >= 0 and info.etag == headers["etag"].strip('"'))


@given(st.integers(100, 599), st.binary() | st.from_regex(rb"(Content-ID: \d+\r\n\r\nHTTP/1.1 \d+ x\r\n)*"))
def test_any_reply_to_a_batch_has_a_status_for_each_request(status: int, body: bytes) -> None:
    statuses = statuses_of(Reply(status, {}, "id", body), 3)
    assert len(statuses) == 3
    assert status < 300 or set(statuses) == {status}


@given(headers, st.binary(), st.floats(0, 1e10))
def test_any_reply_has_an_error_code_and_a_wait(headers: dict[str, str], body: bytes, now: float) -> None:
    reply = Reply(503, headers, "id", body)
    assert isinstance(reply.error_code, str)
    assert reply.retry_after_seconds(now) >= 0


@given(dates, st.integers(-100, 100))
def test_a_wait_until_a_date_is_the_time_until_then(date: str, offset_seconds: int) -> None:
    try:
        now = modified_ns(date) / 1e9 + offset_seconds
    except ValueError:  # of a year that is not spelled with four digits
        return
    assert Reply(503, {"retry-after": date}, "id").retry_after_seconds(now) == pytest.approx(
        max(0, -offset_seconds), abs=0.1
    )


@given(latin)
def test_any_date_and_any_checksum_are_read_or_refused(text: str) -> None:
    gives(ValueError, lambda: modified_ns(text))
    assert (digest := md5_of(text)) is None or len(digest) == 16


@given(headers, st.integers(0, 100))
def test_what_is_missing_of_a_reply_is_asked_for_whatever_its_head_says(
    headers: dict[str, str], received_bytes: int
) -> None:
    conditions = {"x-ms-range": "bytes=5-104", "If-Match": '"1"'}
    request = ServiceRequest("GET blob", "GET", "x", headers=conditions, into=memoryview(bytearray(100)))
    rest = rest_of(request, headers, received_bytes)
    assert rest is request or len(rest.into or b"") == 100 - received_bytes


heads = st.lists(st.tuples(st.sampled_from(HEADERS), latin | numbers), max_size=5).map(
    lambda fields: b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in fields)
)


@given(st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 503 \r\n", b"ICY 200\r\n"]), heads, st.binary())
def test_any_bytes_on_a_connection_are_a_reply_or_refused(status: bytes, head: bytes, body: bytes) -> None:
    received = status + head + b"\r\n" + body

    def receive() -> bytes:
        file = BufferedReader(BytesIO(received))
        return receive_body(file, receive_head(file, "GET"))

    found = gives(HTTPException, receive)
    assert found is None or isinstance(found, bytes)


# Block lists


names = st.text(string.ascii_letters + string.digits + string.punctuation, min_size=1)


@given(st.lists(st.tuples(names, st.integers(0, 2**40))))
def test_a_block_list_comes_back_as_the_service_wrote_it(blocks: list[tuple[str, int]]) -> None:
    named = "".join(f"<Block><Name>{escape(name)}</Name><Size>{size}</Size></Block>" for name, size in blocks)
    body = f"<BlockList><CommittedBlocks>{named}</CommittedBlocks></BlockList>".encode()
    assert blocks_of(body, "CommittedBlocks") == [CommittedBlock(name, size) for name, size in blocks]
    assert blocks_of(body, "UncommittedBlocks") == []


@given(st.binary(max_size=8), st.integers(0, 120))
def test_a_damaged_block_list_is_one_or_makes_no_sense(noise: bytes, position: int) -> None:
    entry = b"<Block><Name>YQ==</Name><Size>7</Size></Block>"
    body = b"<BlockList><CommittedBlocks>" + entry + b"</CommittedBlocks></BlockList>"
    damaged = body[:position] + noise + body[position + len(noise) :]
    gives(Unavailable, lambda: blocks_of(damaged, "CommittedBlocks"))
    gives(Unavailable, lambda: blocks_of(noise, "CommittedBlocks"))


# Credentials and configuration

fields = st.lists(
    st.tuples(
        st.sampled_from(["AccountName", "AccountKey", "BlobEndpoint", "SharedAccessSignature", "x", ""]),
        st.text(max_size=20),
    ).map("=".join)
).map(";".join)


@given(fields | st.text())
def test_a_connection_string_is_understood_or_refused(text: str) -> None:
    environment = {"AZURE_STORAGE_CONNECTION_STRING": text}
    gives(InvalidArgument, lambda: find_login("account", "container", environment=environment))


@given(st.text() | latin.map(lambda text: f"sv=1&sig={text}&se={text}"))
def test_a_sas_is_understood_or_refused(text: str) -> None:
    token = gives(InvalidArgument, lambda: sas_of(text, "it"))
    if token is not None:
        assert token.expires_at is None or token.expires_at.tzinfo
        assert token.sas not in repr(token)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary() | st.text().map(str.encode) | latin.map(lambda text: b"memory = " + json.dumps(text).encode())
)
def test_a_configuration_file_is_read_or_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(body)
    gives(ValueError, lambda: config_values(tmp_path / "config.toml", PARAMETERS))


# Journals


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))))
def test_any_records_give_an_image_without_gaps(made: list[tuple[Kind, int, int]]) -> None:
    records = [Record(kind, number, body_at=7, body_bytes=length) for kind, number, length in made]
    position = 0
    for piece in Image(records):
        assert piece.start == position
        position = piece.end


@given(st.binary(max_size=300))
def test_any_bytes_of_a_journal_are_records_or_damage(journal: bytes) -> None:
    gives(Damaged, lambda: list(records_in(lambda position, length: journal[position : position + length])))
