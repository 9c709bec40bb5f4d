"""Many deletions in one request, by a service that answers as it is told."""

import time
from collections.abc import Iterator, Sequence

import pytest
from fakes import ManualClock

from blobfs.azure.client import Client
from blobfs.azure.credentials import Anonymous, Authorization
from blobfs.azure.messages import Reply, Request
from blobfs.azure.retry import RetryPolicy
from blobfs.azure.store import BATCH_PAUSE_SECONDS, AzureStore
from blobfs.azure.throttle import Throttle
from blobfs.azure.transport import Interrupted, ReplyProgress, Transport
from blobfs.errors import Unavailable
from blobfs.store import BlobVersion
from blobfs.waits import TO_THE_END

VERSIONS = [BlobVersion(name, "0x1") for name in "abc"]
LOST = Interrupted("reset", ReplyProgress(sent=True))


def reply(status: int, body: bytes = b"", code: str = "") -> Reply:
    return Reply(status, {"x-ms-error-code": code}, "id", body)


def parts(*statuses: int) -> Reply:
    """Return the reply to a batch with these statuses, in order."""
    texts = [
        f"--b\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 {status} x\r\n\r\n"
        for number, status in enumerate(statuses)
    ]
    return reply(202, "".join((*texts, "--b--\r\n")).encode())


class Script(Transport):
    """Answers with what it is given, and notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(
            "http://service",
            "container",
            connections=1,
            connect_seconds=1.0,
            read_seconds=1.0,
            stall_seconds=1.0,
            waits=TO_THE_END,
        )
        self.answers: list[Reply | Interrupted] = []
        self.asked: list[Request] = []

    def send(self, request: Request, authorization: Authorization, *, within_seconds: float) -> Reply:  # noqa: ARG002
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Interrupted):
            raise answer
        return answer

    @property
    def kinds(self) -> Sequence[str]:
        return [request.kind for request in self.asked]


class Renewed(Anonymous):
    """A credential that has another value after each refusal."""

    def __init__(self) -> None:
        self._number = 1

    def authorization(self, *, create_container: bool = False) -> Authorization:  # noqa: ARG002
        return Authorization(bearer=f"secret{self._number}")

    def renew(self) -> bool:
        self._number += 1
        return True


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script) -> Client:
    retry = RetryPolicy(total_seconds=0.5, first_wait_seconds=0.01, longest_wait_seconds=0.01)
    return Client(script, Renewed(), "container", retry, Throttle(4, TO_THE_END))


@pytest.fixture
def store(client: Client) -> Iterator[AzureStore]:
    store = AzureStore(client, sleep=time.sleep)
    yield store
    store.close()


def test_parts_tell_what_became_of_each_version(store: AzureStore, script: Script) -> None:
    script.answers = [parts(202, 404, 412)]
    assert store.delete_batch(VERSIONS) == VERSIONS[1:]
    assert script.kinds == ["POST batch"]


def test_batch_that_is_refused_as_a_whole_is_left_whole_and_not_tried_again_for_a_while(
    client: Client, script: Script
) -> None:
    clock = ManualClock()
    store = AzureStore(client, sleep=clock.advance, now=clock)
    script.answers = [reply(202, b"--b\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 400 x\r\n\r\n--b--")]
    for _ in range(2):
        assert store.delete_batch(VERSIONS) == VERSIONS
    assert script.kinds == ["POST batch"]
    clock.advance(BATCH_PAUSE_SECONDS)
    script.answers = [parts(202, 202, 202)]
    assert not store.delete_batch(VERSIONS)


@pytest.mark.parametrize("answer", [LOST, reply(503), parts(500, 0, 500)])
def test_who_cannot_tell_what_became_of_a_batch_deletes_one_by_one(
    store: AzureStore, script: Script, answer: Reply | Interrupted
) -> None:
    changed, gone = reply(412, code="ConditionNotMet"), reply(404, code="BlobNotFound")
    # The first was deleted by the batch, the second is now, and the third has changed.
    script.answers = [answer, gone, gone, reply(202), changed, reply(200)]
    assert store.delete_batch(VERSIONS) == VERSIONS[2:]
    kinds = ["POST batch", "DELETE blob", "HEAD blob", "DELETE blob", "DELETE blob", "HEAD blob"]
    assert script.kinds == kinds
    assert script.asked[1].headers["If-Match"] == '"0x1"'


def test_parts_have_the_credential_that_was_renewed_after_a_refusal(
    store: AzureStore, script: Script
) -> None:
    script.answers = [reply(401), parts(202, 202, 202)]
    assert not store.delete_batch(VERSIONS)
    first, second = (bytes(request.body) for request in script.asked)
    assert (first.count(b"Bearer secret1"), second.count(b"Bearer secret2")) == (3, 3)


def test_no_batch_is_sent_while_the_service_is_given_up(
    store: AzureStore, client: Client, script: Script
) -> None:
    client.outage.begin(Unavailable("nothing"), since=time.monotonic())
    with pytest.raises(Unavailable):
        store.delete_batch(VERSIONS)
    assert script.kinds == []
