"""A request until it has an answer: with a credential, retried, and counted."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from blobfs.azure.batch import batch_request
from blobfs.azure.credentials import Authorization, Credential
from blobfs.azure.failures import is_damage, lack_of_permission, refusal_of
from blobfs.azure.messages import Reply, Request, rest_of
from blobfs.azure.outage import Outage
from blobfs.azure.pace import LEAST_BYTES
from blobfs.azure.retry import Deadline, RetryPolicy, Transient
from blobfs.azure.throttle import Throttle
from blobfs.azure.transport import Interrupted, ReplyProgress, Transport
from blobfs.counters import Counters
from blobfs.errors import Abandoned, AccessDenied, Failure, TimedOut, Unavailable

_TRIED_AGAIN = frozenset((408, 429, 500, 502, 503, 504))
_NEVER_DONE = frozenset((429,))  # the other statuses may follow a write that was carried out
_TIMEOUTS = frozenset((408, 504))
_REFUSED = frozenset((401, 403))
_BUSY = frozenset((429, 503))
_QUIET_ATTEMPTS = 2  # a reset now and then is normal; more without any answer is worth a warning
_CREATE_CONTAINER = "PUT container"


@dataclass(frozen=True, slots=True)
class Dealings:
    """What went on between this process and the service, and what goes on now."""

    requests: Counter[str]  # sent, by kind, repeated ones included
    traffic: Counter[str]  # retries, busy_replies, sent_bytes and received_bytes of bodies
    in_flight: int
    in_flight_limit: int
    is_answering: bool  # False while the service is given up
    credential_name: str
    credential_kind: str
    expires_at: datetime | None  # of a credential that nobody renews


class Client:
    """Sends requests to one container. Safe to use from many threads."""

    def __init__(
        self,
        transport: Transport,
        credential: Credential,
        container: str,
        retry: RetryPolicy,
        throttle: Throttle,
    ) -> None:
        self._transport = transport
        self.credential = credential
        self._container = container
        self._retry = retry
        self.throttle = throttle
        self.outage = Outage()
        self.requests = Counters()  # sent, by kind, repeated ones included
        self.traffic = Counters()  # retries, busy_replies, sent_bytes and received_bytes of bodies

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def signed_url(self, name: str) -> str:
        """Return an address by which the service itself can read the blob. It is a secret.

        A bearer token needs nothing here: it covers the source too within one account
        (https://learn.microsoft.com/rest/api/storageservices/copy-blob).
        """
        sas = self.credential.authorization().sas
        return f"{self._transport.url(name)}?{sas}" if sas else self._transport.url(name)

    def source_headers(self, name: str) -> dict[str, str]:
        """Return the headers by which the service reads the blob as the source of a block. They are secret.

        Here a bearer token must be said again
        (https://learn.microsoft.com/rest/api/storageservices/put-block-from-url).
        """
        bearer = self.credential.authorization().bearer
        headers = {"x-ms-copy-source": self.signed_url(name)}
        return {**headers, "x-ms-copy-source-authorization": f"Bearer {bearer}"} if bearer else headers

    @property
    def origin(self) -> str:
        """Scheme and host of the endpoint."""
        return self._transport.origin

    def dealings(self) -> Dealings:
        """Return what was counted until now. Sends nothing."""
        return Dealings(
            requests=self.requests.totals(),
            traffic=self.traffic.totals(),
            in_flight=self.throttle.in_flight,
            in_flight_limit=self.throttle.limit,
            is_answering=not self.outage.is_on,
            credential_name=self.credential.name,
            credential_kind=self.credential.kind,
            expires_at=self.credential.expires_at,
        )

    def ask(self, request: Request, *, within_seconds: float | None = None) -> Reply:
        """Return the reply that trying again would not change, success or refusal.

        Raises TimedOut or Unavailable when there was none in time, or the service is given up.
        """
        deadline = self._retry.deadline() if within_seconds is None else Deadline(within_seconds)
        call = _Call(self, request, deadline)
        try:
            return self._retry.run(call.attempt, deadline)
        except Failure as failure:
            # Who leaves does not say how far the request was.
            failure.may_be_done = call.is_doubtful or isinstance(failure, Abandoned)
            if call.is_unanswered and isinstance(failure, (TimedOut, Unavailable)):
                self.outage.begin(failure, since=call.began_at)
            raise

    def call(self, request: Request, *, within_seconds: float | None = None) -> Reply:
        """Return the reply of a success; raise the failure that a refusal is."""
        reply = self.ask(request, within_seconds=within_seconds)
        self.check(request, reply)
        return reply

    def ask_batch(self, requests: Sequence[Request]) -> Reply | None:
        """Return the reply of one attempt to have these done together, whatever its status.

        They have no body. Returns None if the attempt went unanswered. Raises what `ask` raises
        while the service is given up.
        """
        deadline = self._retry.deadline()
        try:
            with self.outage.attempt():
                reply = self._send_batch(requests, deadline)
                if reply.status in _REFUSED and self.credential.renew():
                    reply = self._send_batch(requests, deadline)
        except (Interrupted, TimeoutError):
            return None
        if reply.status not in _TRIED_AGAIN:
            self.outage.note_answer()
        return reply

    def check(self, request: Request, reply: Reply) -> None:
        """Raise the failure that a refusal is; return for a success."""
        if not reply.ok:
            used = self._authorization(request)
            name = self.credential.name
            failure = refusal_of(request, reply, self._container, used, credential_name=name)
            failure.may_be_done = reply.doubtful
            raise failure

    def check_permission(self, request: Request) -> None:
        """Raise AccessDenied if the credential shows, as it is now, that it may not do this. Asks nobody."""
        lack = lack_of_permission(request, self._authorization(request))
        if lack:
            raise AccessDenied(f"{request.name}: {lack.format(credential=self.credential.name)}")

    def send(self, request: Request, deadline: Deadline) -> Reply:
        """Send once; once more if that may cure a refused credential or a body damaged on the way."""
        reply = self._send_once(request, deadline)
        refused = reply.status in _REFUSED
        if is_damage(request, reply) or (refused and self.credential.renew()):
            return self._send_once(request, deadline)
        return reply

    def _send_batch(self, requests: Sequence[Request], deadline: Deadline) -> Reply:
        """Send a batch once, each part with the credential as it is now."""
        heads = [self._transport.part_head(request, self._authorization(request)) for request in requests]
        return self._send_once(batch_request(heads), deadline)

    def _send_once(self, request: Request, deadline: Deadline) -> Reply:
        authorization = self._authorization(request)
        with self.throttle.slot(deadline.remaining_seconds) as throttle_round:
            self.requests.add(request.kind)
            self.traffic.add("sent_bytes", len(request.body))
            within_seconds = max(deadline.remaining_seconds, deadline.least_seconds)
            reply = self._transport.send(request, authorization, within_seconds=within_seconds)
        self.traffic.add("received_bytes", reply.received_bytes + len(reply.body))
        if reply.status in _BUSY:
            self.traffic.add("busy_replies")
            self.throttle.note_busy(throttle_round)
        else:
            self.throttle.note_served()
        return reply

    def _authorization(self, request: Request) -> Authorization:
        return self.credential.authorization(create_container=request.kind == _CREATE_CONTAINER)


class _Call:
    """One request over however many attempts it takes."""

    def __init__(self, client: Client, request: Request, deadline: Deadline) -> None:
        self.began_at = time.monotonic()
        self.is_unanswered = False  # the last attempt was, and trying again may help
        self.is_doubtful = False  # an attempt went unanswered and may have been carried out
        self._client = client
        self._request = request
        self._deadline = deadline
        self._attempts = 0
        self._cause: Exception | None = None  # of the attempt before
        self._skipped_bytes = 0

    def attempt(self) -> Reply:
        """Return the reply. Raises Transient if another attempt may fare better."""
        self._attempts += 1
        if self._attempts > 1:
            self._client.traffic.add("retries")
        self.is_unanswered = False
        with self._client.outage.attempt():
            reply = self._sent()
            if reply.status in _TRIED_AGAIN:
                self.is_doubtful |= reply.status not in _NEVER_DONE
                reason = f"HTTP {reply.status} {reply.error_code}, request {reply.request_id}"
                gives = TimedOut if reply.status in _TIMEOUTS else Unavailable
                raise self._transient(reason, gives, wait_seconds=reply.retry_after_seconds(time.time()))
            self._client.outage.note_answer()
        if self.is_doubtful or self._skipped_bytes:
            return reply._replace(doubtful=self.is_doubtful, skipped_bytes=self._skipped_bytes)
        return reply

    def _sent(self) -> Reply:
        try:
            return self._client.send(self._request, self._deadline)
        except Interrupted as error:
            self.is_doubtful |= error.progress.sent
            self._go_on_from(error.progress)
            if error.timed_out and self._cause and not self._deadline.remaining_seconds:
                self.is_unanswered = True
                raise self._cause from error  # only the call's end made this attempt too slow
            raise self._transient(str(error), TimedOut if error.timed_out else Unavailable) from error
        except TimeoutError:
            raise self._transient("the service is too busy", Unavailable) from None

    def _go_on_from(self, progress: ReplyProgress) -> None:
        """Keep what has arrived. A call that gets on, not by a trickle, has all its time again."""
        if progress.headers:
            self._client.outage.note_answer()
        self._client.traffic.add("received_bytes", progress.received_bytes)
        rest = rest_of(self._request, progress.headers, progress.received_bytes)
        if rest is not self._request:
            self._skipped_bytes += progress.received_bytes
            self._request = rest
            if progress.received_bytes >= LEAST_BYTES:
                self._deadline.renew()

    def _transient(self, reason: str, gives: type[Failure], *, wait_seconds: float = 0.0) -> Exception:
        """Return what says that an attempt failed; finally so if the service is given up."""
        self.is_unanswered = True
        reason = f"{self._request.kind} {self._request.name}".strip() + f": {reason}"
        outage = self._client.outage
        if outage.is_on:
            return gives(reason, is_reported=True)
        if self._attempts > _QUIET_ATTEMPTS:
            outage.suspect(reason, since=self.began_at)
        self._cause = Transient(reason, gives, wait_seconds=wait_seconds)
        return self._cause
