"""Every operation of the store under every fault of the responder: what comes of it, as one table."""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from responder.control import Responder
from responder.faults import Fault, Rule
from waiting import wait_until

from blobfs.azure.assembly import open_store
from blobfs.azure.store import AzureStore
from blobfs.blocks import digest_of
from blobfs.errors import AccessDenied, Changed, Failure, NotFound, TimedOut, Unavailable
from blobfs.store import ALWAYS, IF_ABSENT, Condition, ContentHeaders, Properties

BODY = bytes(range(256)) * 4096
PROPERTIES = Properties({"k": "v"}, ContentHeaders("a/b"), hashlib.md5(BODY).digest())
DIGEST = digest_of(BODY)
TOTAL_SECONDS = 0.5
STALL_SECONDS = 0.1


@pytest.fixture(scope="module")
def service() -> Iterator[Responder]:
    with Responder() as service:
        yield service


@pytest.fixture
def store(service: Responder, caplog: pytest.LogCaptureFixture) -> Iterator[AzureStore]:
    service.order()
    opened = open_store(
        Responder.account,
        uuid.uuid4().hex,
        endpoint=service.endpoint,
        connections=4,
        total_seconds=TOTAL_SECONDS,
        first_wait_seconds=0.01,
        longest_wait_seconds=0.05,
        connect_seconds=1.0,
        read_seconds=1.0,
        stall_seconds=STALL_SECONDS,
    )
    opened.create_container()
    yield opened
    opened.close()
    service.order()
    caplog.clear()


Action = Callable[[], object]
Operation = Callable[[AzureStore], Action]


def put(store: AzureStore) -> Action:
    return lambda: store.put_blob("new", BODY, PROPERTIES, IF_ABSENT)


def replace(store: AzureStore) -> Action:
    before = store.put_blob("x", b"before", Properties(), ALWAYS)
    return lambda: store.put_blob("x", BODY, PROPERTIES, Condition(if_match=before.etag))


def stage(store: AzureStore) -> Action:
    return lambda: store.stage_block("x", DIGEST.block_id(), BODY, DIGEST.md5)


def commit(store: AzureStore) -> Action:
    store.stage_block("new", DIGEST.block_id(), BODY, DIGEST.md5)
    return lambda: store.commit_blocks("new", [DIGEST.block_id()], PROPERTIES, IF_ABSENT, len(BODY))


def set_metadata(store: AzureStore) -> Action:
    info = store.put_blob("x", BODY, PROPERTIES, ALWAYS)
    return lambda: store.set_metadata(info.version, {"new": "2"})


def copy(store: AzureStore) -> Action:
    info = store.put_blob("x", BODY, PROPERTIES, ALWAYS)
    return lambda: store.copy(info, "copy", {"new": "2"}, IF_ABSENT)


def delete(store: AzureStore) -> Action:
    info = store.put_blob("x", BODY, PROPERTIES, ALWAYS)
    return lambda: store.delete("x", Condition(if_match=info.etag))


def read(store: AzureStore) -> Action:
    info = store.put_blob("x", BODY, PROPERTIES, ALWAYS)

    def action() -> None:
        buffer = bytearray(len(BODY))
        assert store.read_range("x", 0, memoryview(buffer), if_match=info.etag)[0] == len(BODY)
        assert buffer == BODY

    return action


def head(store: AzureStore) -> Action:
    store.put_blob("x", BODY, PROPERTIES, ALWAYS)
    return lambda: store.head("x")


def listing(store: AzureStore) -> Action:
    store.put_blob("x", BODY, PROPERTIES, ALWAYS)
    return lambda: store.list_page("")


def block_list(store: AzureStore) -> Action:
    info = store.put_blob("x", BODY, PROPERTIES, ALWAYS)
    return lambda: store.committed_blocks(info.version)


CHANGES: tuple[Operation, ...] = (put, replace, stage, commit, set_metadata, copy, delete)
LOOKS: tuple[Operation, ...] = (read, head, listing, block_list)
EVERYTHING = CHANGES + LOOKS
OF_A_VERSION: tuple[Operation, ...] = (read, block_list)
SOME: tuple[Operation, ...] = (put, read, listing)
WITH_BODY: tuple[Operation, ...] = (read, listing)
UPLOADS: tuple[Operation, ...] = (put, replace, stage)
WITH_HEADERS = (put, replace, commit, set_metadata, copy, head, read)

# What happens once and is cured by another attempt.
CURED = [
    *((operation, Rule(status=status, count=1)) for status in (408, 429, 500, 502, 503, 504)
      for operation in EVERYTHING),
    *((operation, Rule(fault=fault, count=1)) for fault in (Fault.RESET, Fault.LOSE_REPLY, Fault.GARBAGE,
      Fault.HUGE_HEADERS) for operation in EVERYTHING),
    *((operation, Rule(fault=Fault.RESET_UPLOAD, at_byte=70_000, count=1)) for operation in UPLOADS),
    *((operation, Rule(fault=fault, at_byte=at_byte, count=1, stall_seconds=stall_seconds))
      for fault, stall_seconds in ((Fault.RESET_BODY, 0.0), (Fault.TRUNCATE, 0.0), (Fault.STALL, 0.0),
      (Fault.DRIP, 0.05)) for operation in WITH_BODY for at_byte in (0, 100)),
]  # fmt: skip

# What does not end, and what the caller gets then.
REPORTED = [
    *((operation, Rule(status=status), failure) for operation in EVERYTHING for status, failure in (
        (401, AccessDenied), (403, AccessDenied), (418, Unavailable), (302, Unavailable),
        (501, Unavailable))),
    *((operation, Rule(status=404), Changed if operation in OF_A_VERSION else NotFound)
      for operation in EVERYTHING),
    *((operation, Rule(status=status), failure) for operation in SOME for status, failure in (
        (408, TimedOut), (429, Unavailable), (500, Unavailable), (502, Unavailable), (503, Unavailable),
        (504, TimedOut))),
    *((operation, Rule(fault=fault), Unavailable) for operation in SOME for fault in (
        Fault.RESET, Fault.GARBAGE, Fault.HUGE_HEADERS)),
    *((operation, Rule(fault=Fault.LOSE_REPLY), Unavailable) for operation in EVERYTHING),
    *((operation, Rule(fault=Fault.BARE), Unavailable) for operation in WITH_HEADERS),
    *((operation, Rule(fault=Fault.LIE), Unavailable) for operation in WITH_BODY),
    *((operation, Rule(status=200), Unavailable)
      for operation in (*WITH_HEADERS, stage, delete, listing, block_list)),
    (copy, Rule(status=412, error_code="SourceConditionNotMet"), Changed),
    *((operation, Rule(fault=Fault.STALL), TimedOut) for operation in WITH_BODY),
    *((operation, Rule(fault=Fault.DRIP, stall_seconds=0.05), TimedOut) for operation in WITH_BODY),
    *((operation, Rule(fault=Fault.TRUNCATE, at_byte=at_byte), Unavailable) for operation in WITH_BODY
      for at_byte in (0, 100)),
    *((operation, Rule(latency_seconds=30.0), TimedOut) for operation in SOME),
]  # fmt: skip


REFUSALS = (401, 403, 404, 418, 302, 501)


def name_of(value: object) -> str:
    if isinstance(value, Rule):
        fault = value.fault.value if value.fault else str(value.status or "slow")
        return f"{fault} at {value.at_byte}" if value.at_byte else fault
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("operation", "rule"), CURED, ids=name_of)
def test_fault_that_passes_is_not_noticed(
    service: Responder, store: AzureStore, operation: Operation, rule: Rule
) -> None:
    action = operation(store)
    service.order(rule)
    action()
    assert service.hits == [1]


@pytest.mark.parametrize(("operation", "rule", "failure"), REPORTED, ids=name_of)
def test_fault_that_stays_is_named_in_time(
    service: Responder, store: AzureStore, operation: Operation, rule: Rule, failure: type[Failure]
) -> None:
    action = operation(store)
    service.order(rule)
    with pytest.raises(failure) as raised:
        action()
    assert type(raised.value) is failure
    if rule.status in REFUSALS:
        assert service.hits == [1]


def test_write_is_recognised_however_often_its_reply_is_lost(service: Responder, store: AzureStore) -> None:
    action = put(store)
    service.order(Rule(fault=Fault.LOSE_REPLY, count=3))
    action()
    assert store.requests["PUT blob"] == 4
    assert store.head("new").content_md5 == PROPERTIES.content_md5


@pytest.mark.parametrize(
    ("rules", "may_be_done"),
    [
        ([Rule(fault=Fault.LOSE_REPLY)], True),
        ([Rule(fault=Fault.LOSE_REPLY, count=1), Rule(status=403)], True),
        ([Rule(status=503)], True),
        ([Rule(status=429)], False),
        ([Rule(status=403)], False),
    ],
)
def test_failure_tells_whether_the_write_may_have_been_carried_out(
    service: Responder, store: AzureStore, rules: list[Rule], may_be_done: bool
) -> None:
    action = put(store)
    service.order(*rules)
    with pytest.raises(Failure) as raised:
        action()
    assert raised.value.may_be_done is may_be_done


@pytest.mark.parametrize("fault", [Fault.TRUNCATE, Fault.STALL, Fault.DRIP])
def test_read_goes_on_where_it_broke_off(service: Responder, store: AzureStore, fault: Fault) -> None:
    action = read(store)
    service.reset_counters()
    service.order(
        Rule(kind="", fault=fault, at_byte=700_000, stall_seconds=0.05 * (fault is Fault.DRIP), count=1)
    )
    action()
    counters = service.counters
    assert sum(counters.requests.values()) == 2
    again_bytes = counters.bytes_out - len(BODY)
    assert again_bytes < len(BODY) / 2


def test_read_that_gets_on_has_more_than_its_time(service: Responder, store: AzureStore) -> None:
    action = read(store)
    service.order(Rule(fault=Fault.STALL, at_byte=140_000))
    began_at = time.monotonic()
    action()
    assert time.monotonic() - began_at > TOTAL_SECONDS
    assert service.hits[0] == 8


def test_outage_fails_at_once_and_ends_by_itself(service: Responder, store: AzureStore) -> None:
    action = head(store)
    service.order(Rule(fault=Fault.RESET))
    with pytest.raises(Unavailable, match="gave up after"):
        action()
    hits = service.hits[0]
    for _ in range(50):
        with pytest.raises(Unavailable):
            action()
    assert service.hits[0] - hits <= 5
    service.order()

    def is_over() -> bool:
        try:
            action()
        except Unavailable:
            return False
        return True

    wait_until(is_over)
