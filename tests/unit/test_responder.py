"""The responder itself: each fault as a bare HTTP client sees it, and what makes it fit for benchmarks."""

import base64
import hashlib
import os
import resource
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from xml.etree import ElementTree

import pytest
from certificates import make_certificate
from responder.control import Responder
from responder.faults import Fault, Rule
from responder.memory import Pool
from responder.recipes import Recipe
from tokens import container_sas
from waiting import wait_until

from blobfs.blocks import MiB, digest_of

BODY = bytes(range(256)) * 1024
Headers = Mapping[str, str] | None

WHOLE = {"x-ms-blob-type": "BlockBlob"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error_code(self) -> str | None:
        return self.headers.get("x-ms-error-code")


class Client:
    """A container seen over bare HTTP, one connection for each request unless it is given one."""

    def __init__(self, responder: Responder, container: str) -> None:
        self.responder = responder
        self.path = f"/{responder.account}/{container}"

    def send(self, method: str, name: str, body: bytes = b"", headers: Headers = None) -> HTTPConnection:
        connection = self.responder.connection()
        try:
            connection.request(method, f"{self.path}/{name}", body, dict(headers or {}))
        except OSError:
            connection.close()
            raise
        return connection

    def ask(self, method: str, name: str, body: bytes = b"", headers: Headers = None) -> Answer:
        with closing(self.send(method, name, body, headers)) as connection:
            reply = connection.getresponse()
            return Answer(reply.status, reply.headers, reply.read())

    def put(self, name: str, body: bytes = BODY) -> Answer:
        return self.ask("PUT", name, body, WHOLE)

    def stage(self, name: str, block_id: bytes, body: bytes) -> Answer:
        text = base64.b64encode(block_id).decode()
        return self.ask("PUT", f"{name}?comp=block&blockid={text}", body)

    def commit(self, name: str, *block_ids: bytes) -> Answer:
        entries = "".join(f"<Latest>{base64.b64encode(block_id).decode()}</Latest>" for block_id in block_ids)
        return self.ask("PUT", f"{name}?comp=blocklist", f"<BlockList>{entries}</BlockList>".encode())

    def get(self, name: str) -> bytes:
        return self.ask("GET", name).body


@pytest.fixture(scope="module")
def running() -> Iterator[Responder]:
    with Responder() as responder:
        yield responder


@pytest.fixture
def client(running: Responder) -> Iterator[Client]:
    name = uuid.uuid4().hex
    running.create_container(name)
    running.reset_counters()
    yield Client(running, name)
    running.order()


# Rules


def test_rule_hits_its_kind_and_its_pattern_only(client: Client) -> None:
    client.responder.order(Rule(kind="PUT blob", pattern=r"^PUT .*/b\?*$", status=503))
    assert [client.put(name).status for name in ("a", "b")] == [201, 503]
    assert client.ask("GET", "b").error_code == "BlobNotFound"
    assert client.responder.hits == [1]


def test_rule_spares_the_first_then_hits_every_nth_until_its_count(client: Client) -> None:
    client.responder.order(Rule(kind="PUT blob", skip=1, every=2, count=2, status=500))
    assert [client.put("x").status for _ in range(8)] == [201, 201, 500, 201, 500, 201, 201, 201]


def test_first_disturbance_is_the_only_one(client: Client) -> None:
    client.responder.order(Rule(count=1, status=500), Rule(status=503))
    assert [client.put("x").status for _ in range(2)] == [500, 503]
    client.responder.order()
    assert client.put("x").status == 201


def test_rule_that_makes_no_sense_is_refused(client: Client) -> None:
    with pytest.raises(RuntimeError, match="unterminated"):
        client.responder.order(Rule(pattern="("))


# Delays, seen by what cannot have taken less


def test_latency_comes_before_the_reply(client: Client) -> None:
    client.responder.order(Rule(latency_seconds=0.05), Rule(latency_seconds=0.05, jitter_seconds=0.01))
    started_at = time.monotonic()
    client.put("x")
    assert time.monotonic() - started_at >= 0.09


def test_bandwidth_bounds_both_directions(client: Client) -> None:
    client.responder.order(Rule(bytes_per_second=10 * len(BODY)))
    for exchange in (lambda: client.put("x"), lambda: client.get("x")):
        started_at = time.monotonic()
        exchange()
        assert time.monotonic() - started_at >= 0.1
    assert client.get("x") == BODY


# Refusals


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AuthenticationFailed"),
        (408, "RequestTimeout"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (502, "BadGateway"),
        (503, "ServerBusy"),
        (504, "GatewayTimeout"),
    ],
)
def test_refusal_leaves_everything_as_it_was(client: Client, status: int, code: str) -> None:
    client.responder.order(Rule(kind="PUT blob", status=status, retry_after_seconds=3))
    refused = client.put("x")
    assert (refused.status, refused.error_code, refused.headers["Retry-After"]) == (status, code, "3")
    assert ElementTree.fromstring(refused.body).findtext("Code") == code
    assert client.ask("GET", "x").status == 404


def test_refusal_may_have_a_code_of_its_own(client: Client) -> None:
    client.responder.order(Rule(status=500, error_code="OperationTimedOut"))
    assert client.put("x").error_code == "OperationTimedOut"


# The way there and back


def test_held_request_is_carried_out_once_other_rules_are_in_force(client: Client) -> None:
    client.responder.order(Rule(kind="PUT blob", fault=Fault.HOLD))
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(client.put, "x")
        wait_until(lambda: client.responder.hits == [1])
        assert client.responder.counters.statuses == {}
        client.responder.order()
        assert held.result(10).status == 201


def test_reset_comes_before_anything_is_done(client: Client) -> None:
    client.responder.order(Rule(fault=Fault.RESET, count=1))
    with pytest.raises(ConnectionResetError):
        client.put("x")
    assert client.ask("GET", "x").status == 404


def test_reset_upload_breaks_the_request_off(client: Client) -> None:
    client.responder.order(Rule(fault=Fault.RESET_UPLOAD, at_byte=10, count=1))
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.put("x", bytes(64 * MiB))
    assert client.ask("GET", "x").status == 404


def test_flipped_upload_is_found_by_its_checksum_and_kept_without_one(client: Client) -> None:
    client.responder.order(Rule(fault=Fault.FLIP_UPLOAD, at_byte=7, count=2))
    md5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    assert client.ask("PUT", "x", BODY, {**WHOLE, "Content-MD5": md5}).error_code == "Md5Mismatch"
    client.put("x")
    assert client.get("x") == BODY[:7] + bytes((BODY[7] ^ 0xFF,)) + BODY[8:]


def test_lost_reply_comes_after_the_work_is_done(client: Client) -> None:
    client.responder.order(Rule(fault=Fault.LOSE_REPLY, count=1))
    with pytest.raises(ConnectionResetError):
        client.put("x")
    assert client.get("x") == BODY


def test_reset_body_breaks_the_reply_off(client: Client) -> None:
    client.put("x", bytes(64 * MiB))
    client.responder.order(Rule(fault=Fault.RESET_BODY, at_byte=1000, count=1))
    with pytest.raises(ConnectionResetError):
        client.get("x")


def test_truncated_reply_ends_early_and_in_good_order(client: Client) -> None:
    client.put("x")
    client.responder.order(Rule(fault=Fault.TRUNCATE, at_byte=1000))
    with pytest.raises(IncompleteRead) as ended:
        client.get("x")
    assert ended.value.partial == BODY[:1000]
    assert ended.value.expected == len(BODY) - 1000


def test_stall_ends_after_its_time(client: Client) -> None:
    client.put("x")
    client.responder.order(Rule(fault=Fault.STALL, at_byte=1000, stall_seconds=0.05))
    started_at = time.monotonic()
    assert client.get("x") == BODY
    assert time.monotonic() - started_at >= 0.05


def test_stall_for_ever_holds_up_nobody_else(client: Client) -> None:
    client.put("x")
    client.responder.order(Rule(fault=Fault.STALL, at_byte=1000, count=1))
    connection = client.send("GET", "x")
    reply = connection.getresponse()
    assert reply.read(1000) == BODY[:1000]
    assert client.get("x") == BODY
    assert connection.sock is not None
    connection.sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        reply.read(1)
    connection.close()


def test_flip_turns_one_byte(client: Client) -> None:
    client.put("x")
    client.responder.order(Rule(fault=Fault.FLIP, at_byte=1000))
    damaged = client.get("x")
    assert damaged[:1000] + damaged[1001:] == BODY[:1000] + BODY[1001:]
    assert damaged[1000] == BODY[1000] ^ 0xFF


def test_dropped_blocks_cannot_be_committed(client: Client) -> None:
    client.stage("x", b"1", b"one")
    client.responder.order(Rule(kind="PUT block list", fault=Fault.DROP_BLOCKS, count=1))
    assert client.commit("x", b"1").error_code == "InvalidBlockList"
    client.stage("x", b"1", b"one")
    assert client.commit("x", b"1").status == 201


# Credentials


def test_sas_is_checked_only_where_that_is_asked_for(running: Responder) -> None:
    with Responder(checks_access=True) as strict:
        for responder, expected in ((running, (200, 404, 404)), (strict, (200, 403, 403))):
            name = uuid.uuid4().hex
            responder.create_container(name)
            valid, expired = container_sas(name, "l"), container_sas(name, "r", timedelta(hours=-1))
            client = Client(responder, name)
            listing = client.ask("GET", f"?restype=container&comp=list&{valid}")
            answers = [listing, client.ask("GET", f"x?{valid}"), client.ask("GET", f"x?{expired}")]
            assert tuple(answer.status for answer in answers) == expected
            codes = [answer.error_code for answer in answers[1:]]
    assert codes == ["AuthorizationPermissionMismatch", "AuthenticationFailed"]


# What no call of the port reaches


def test_block_is_copied_from_a_range_of_another_blob(client: Client) -> None:
    client.put("source")
    headers = {
        "x-ms-copy-source": f"{client.responder.endpoint}/{client.path.split('/')[2]}/source",
        "x-ms-source-range": "bytes=1000-1999",
    }
    assert client.ask("PUT", "x?comp=block&blockid=MQ==", headers=headers).status == 201
    assert client.commit("x", b"1").status == 201
    assert client.get("x") == BODY[1000:2000]


def test_checksum_of_a_range_is_told_up_to_4_mib(client: Client) -> None:
    client.put("x", bytes(5 * MiB))
    wanted = {"x-ms-range-get-content-md5": "true"}
    small = client.ask("GET", "x", headers={**wanted, "x-ms-range": "bytes=0-9"})
    assert small.headers["Content-MD5"] == md5(bytes(10))
    assert small.headers["x-ms-blob-content-md5"] == md5(bytes(5 * MiB))
    assert client.ask("GET", "x", headers={**wanted, "x-ms-range": f"bytes=0-{5 * MiB - 1}"}).status == 400


def test_times_are_conditions_as_well(client: Client) -> None:
    modified = client.put("x").headers["Last-Modified"]
    assert client.ask("GET", "x", headers={"If-Modified-Since": modified}).status == 304
    assert client.ask("GET", "x", headers={"If-Unmodified-Since": modified}).status == 200
    long_ago = "Thu, 01 Jan 1970 00:00:00 GMT"
    assert client.ask("DELETE", "x", headers={"If-Unmodified-Since": long_ago}).status == 412


def test_client_that_waits_for_leave_to_send_gets_it(client: Client) -> None:
    connection = client.send("PUT", "x", headers={**WHOLE, "Expect": "100-continue", "Content-Length": "4"})
    connection.send(b"body")
    assert connection.getresponse().status == 201
    connection.close()
    assert client.get("x") == b"body"


def test_operation_that_is_not_known_is_refused_and_counted(client: Client) -> None:
    assert client.ask("PUT", "x?comp=query").status == 501
    assert client.responder.counters.requests == {"unknown": 1}


def test_replaced_blob_is_sent_to_its_end(client: Client) -> None:
    client.put("x", b"old" * MiB)
    connection = client.send("GET", "x")
    reply = connection.getresponse()
    for _ in range(4):
        client.put("x", b"new" * MiB)
    assert reply.read() == b"old" * MiB
    connection.close()


# For benchmarks


def test_counters_tell_requests_bytes_and_connections(client: Client) -> None:
    client.put("x")
    client.get("x")
    client.ask("HEAD", "x")
    counters = client.responder.reset_counters()
    assert counters.requests == {"PUT blob": 1, "GET blob": 1, "HEAD blob": 1}
    assert counters.statuses == {201: 1, 200: 2}
    assert (counters.bytes_in, counters.bytes_out, counters.connections) == (len(BODY), len(BODY), 3)
    assert client.responder.counters.requests == {}


def test_made_blob_has_the_bytes_that_its_checksums_say(client: Client) -> None:
    recipe = Recipe("made", size_bytes=5 * MiB // 2, block_bytes=MiB, metadata={"k": "v"})
    client.responder.make_blobs(client.path.split("/")[2], recipe)
    made = client.ask("GET", "made")
    assert made.headers["Content-MD5"] == md5(made.body)
    assert made.headers["x-ms-meta-k"] == "v"
    entries = ElementTree.fromstring(client.get("made?comp=blocklist")).iterfind("CommittedBlocks/Block")
    blocks = [made.body[start : start + MiB] for start in range(0, len(made.body), MiB)]
    assert [(entry.findtext("Name"), entry.findtext("Size")) for entry in entries] == [
        (digest_of(block).block_id(), str(len(block))) for block in blocks
    ]


def test_made_blobs_fill_directories_and_differ(client: Client) -> None:
    recipe = Recipe("d{directory}/f{index}", count=6, directories=3, size_bytes=100)
    client.responder.make_blobs(client.path.split("/")[2], recipe)
    page = ElementTree.fromstring(client.get("?restype=container&comp=list"))
    names = [element.text for element in page.iterfind("Blobs/Blob/Name")]
    assert names == ["d0/f0", "d0/f1", "d1/f2", "d1/f3", "d2/f4", "d2/f5"]
    assert len({client.get(f"{name}") for name in names}) == 6


def test_very_large_blob_costs_nothing(client: Client) -> None:
    size_bytes = 10 * 1024 * MiB
    recipe = Recipe("large", size_bytes=size_bytes, content="zeros", has_md5=False)
    client.responder.make_blobs(client.path.split("/")[2], recipe)
    end = client.ask("GET", "large", headers={"x-ms-range": f"bytes={size_bytes - 10}-"})
    assert (end.status, end.body) == (206, bytes(10))


def test_discarded_bodies_keep_their_sizes() -> None:
    with Responder(discards_bodies=True) as responder:
        responder.create_container("discarded")
        client = Client(responder, "discarded")
        client.stage("x", b"1", BODY)
        client.stage("x", b"2", BODY)
        assert client.commit("x", b"1", b"2").status == 201
        assert client.get("x") == bytes(2 * len(BODY))
        assert responder.counters.bytes_in >= 2 * len(BODY)


def test_memory_that_is_kept_has_its_pages() -> None:
    pool, body = Pool(), os.urandom(8 * MiB)
    pool.keep(len(body), 3)

    def faults_to_receive() -> int:
        view = memoryview(pool.take(len(body)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        view[:] = body
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert min(faults_to_receive() for _ in range(3)) == 0


def test_checksums_are_believed_if_told_to() -> None:
    with Responder(believes_checksums=True) as responder:
        responder.create_container("believed")
        client = Client(responder, "believed")
        wrong = base64.b64encode(bytes(16)).decode()
        assert client.ask("PUT", "x", BODY, {**WHOLE, "Content-MD5": wrong}).status == 201
        assert client.get("x") == BODY


def test_everything_works_over_tls(tmp_path: Path) -> None:
    with Responder(*make_certificate(tmp_path)) as responder:
        responder.create_container("tls")
        client = Client(responder, "tls")
        client.put("x")
        assert client.get("x") == BODY
        responder.order(Rule(fault=Fault.TRUNCATE, at_byte=1000))
        with pytest.raises(IncompleteRead):
            client.get("x")


def md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()
