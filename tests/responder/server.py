"""Connections: receive a request, suffer what a rule orders, carry it out, reply."""

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from responder.access import Gate
from responder.account import Account
from responder.batches import reply_of, requests_of
from responder.commands import OWNER, Commands, Counters
from responder.faults import Fault, Plan, Rule, Rulebook
from responder.memory import Content, Part, Pattern, Pool, Received
from responder.messages import Reply, Request, parse_request, refusal_reply, whole
from responder.refusals import CODE_OF_STATUS, NotModified, Refusal
from responder.routes import BATCH, Operation, route
from responder.staging import drop_uncommitted
from responder.wire import Wire

_GLANCE_SECONDS = 0.01  # between two looks at the rules
_NOTHING = Content().part()
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections share."""

    gate: Gate | None = None  # without one, everybody may do everything
    discards_bodies: bool = False
    believes_checksums: bool = False
    account: Account = field(default_factory=Account)
    rulebook: Rulebook = field(default_factory=Rulebook)
    counters: Counters = field(default_factory=Counters)
    pool: Pool = field(default_factory=Pool)

    def carry_out(
        self, operation: Operation, request: Request, body: Part, rule: Rule, wait: Callable[[float], object]
    ) -> Reply:
        """Return the reply of the operation, or the refusal that the rule orders instead.

        ``wait(seconds)`` is called for the latency that rules order for the parts of a batch.
        """
        try:
            _refuse_by(rule)
            if self.gate:
                self.gate.check(self.account, request, operation)
            if rule.fault is Fault.DROP_BLOCKS:
                drop_uncommitted(self.account, request)
            if operation is BATCH:
                return self._carry_out_all(requests_of(request, body), wait)
            return operation.handler(self.account, request, body)
        except Refusal as refusal:
            return refusal_reply(refusal, request)
        except NotModified:
            return Reply(304)

    def _carry_out_all(self, parts: Sequence[tuple[str, Request]], wait: Callable[[float], object]) -> Reply:
        """Return the reply of a batch. Of what rules order for its parts they suffer latency and refusals."""
        planned = [
            (number, part, route(part), self.rulebook.plan(route(part).kind, f"{part.method} {part.target}"))
            for number, part in parts
        ]
        latency_seconds = max(plan.latency_seconds for _, _, _, plan in planned)
        if latency_seconds > 0:
            wait(latency_seconds)
        return reply_of(
            [
                (number, part, self.carry_out(operation, part, _NOTHING, plan.disturbance, wait))
                for number, part, operation, plan in planned
            ]
        )

    def obey(self, request: Request, body: Part) -> Reply:
        """Return the reply to a command to the responder itself."""
        try:
            commands = Commands(self.account, self.pool, self.rulebook, self.counters)
            return commands.obey(request, b"".join(body))
        except Refusal as refusal:
            return refusal_reply(refusal, request)


def serve_forever(listener: socket.socket, service: Service, tls: ssl.SSLContext | None) -> None:
    """Give each connection a thread."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, service, tls), daemon=True).start()


def _serve(connection: socket.socket, service: Service, tls: ssl.SSLContext | None) -> None:
    """Serve one connection until the client or a rule ends it."""
    try:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                connection = tls.wrap_socket(connection, server_side=True)
            with connection:
                _Conversation(Wire(connection), service).run()
    except OSError:
        return  # the client is gone, or a rule reset the connection


class _Conversation:
    """Requests and replies on one connection."""

    def __init__(self, wire: Wire, service: Service) -> None:
        self._wire = wire
        self._service = service
        self._is_new = True  # nothing was asked for yet

    def run(self) -> None:
        """Answer requests until there is none, or one was the last."""
        while request := self._next_request():
            if request.header("expect").lower() == "100-continue":
                self._wire.send(_CONTINUE)
            if request.account == OWNER:
                self._send(request, self._service.obey(request, self._receive(request)))
            elif not self._answer(request):
                return
            if request.header("connection").lower() == "close":
                return

    def _next_request(self) -> Request | None:
        """Return what comes next; None if nothing does, or something that is no request."""
        head = self._wire.receive_head()
        try:
            return parse_request(head) if head else None
        except ValueError:
            return None

    def _answer(self, request: Request) -> bool:
        """Answer one request to the service; return whether the connection stays of use."""
        operation = route(request)
        plan = self._service.rulebook.plan(operation.kind, f"{request.method} {request.target}")
        body = self._receive_upload(request, operation, plan)
        self._service.counters.add_request(operation.kind, body.size_bytes, is_first=self._is_new)
        self._is_new = False
        if plan.latency_seconds > 0:
            self._wire.wait_for_hang_up(plan.latency_seconds)
        if plan.fault is Fault.HOLD:
            self._hold(plan.disturbance)
        if plan.fault is Fault.RESET:
            self._wire.reset()
        reply = self._service.carry_out(
            operation, request, body, plan.disturbance, self._wire.wait_for_hang_up
        )
        self._service.counters.add_reply(reply.status, reply.body.size_bytes if reply.body else 0)
        if plan.fault is Fault.LOSE_REPLY:
            self._wire.reset()
        return self._send_by(plan, request, reply)

    def _hold(self, rule: Rule) -> None:
        while self._service.rulebook.is_in_force(rule):
            if self._wire.wait_for_hang_up(_GLANCE_SECONDS):
                self._wire.reset()

    def _receive_upload(self, request: Request, operation: Operation, plan: Plan) -> Part:
        if plan.fault is Fault.RESET_UPLOAD:
            self._wire.discard(min(plan.disturbance.at_byte, request.size_bytes), plan.bytes_per_second)
            self._wire.reset()
        if self._service.discards_bodies and operation.is_upload:
            request.is_unchecked = True
            self._wire.discard(request.size_bytes, plan.bytes_per_second)
            return Content((Pattern("zeros", 0, request.size_bytes),)).part()
        request.is_unchecked = self._service.believes_checksums
        body = self._receive(request, plan.bytes_per_second)
        return _damaged(body, plan.disturbance.at_byte) if plan.fault is Fault.FLIP_UPLOAD else body

    def _receive(self, request: Request, bytes_per_second: float = 0.0) -> Part:
        if not request.size_bytes:
            return _NOTHING
        received = Received(request.size_bytes, self._service.pool)
        self._wire.receive(received.view, bytes_per_second)
        return Content((received,)).part()

    def _send(self, request: Request, reply: Reply) -> None:
        self._wire.send(reply.head(request), reply.body)

    def _send_by(self, plan: Plan, request: Request, reply: Reply) -> bool:
        """Send a reply as a plan orders; return whether the connection stays of use."""
        if plan.disturbs_head:
            self._wire.send(_head_by(plan, request, reply), reply.body)
            return plan.fault is Fault.LIE
        if plan.bytes_per_second or plan.disturbs_reply:
            return self._send_disturbed(plan, request, reply)
        self._send(request, reply)
        return True

    def _send_disturbed(self, plan: Plan, request: Request, reply: Reply) -> bool:
        rule, speed, body = plan.disturbance, plan.bytes_per_second, reply.body or _NOTHING
        at_byte = rule.at_byte if plan.disturbs_reply else body.size_bytes
        self._wire.send(reply.head(request))
        self._wire.send_paced(body.before(at_byte), speed)
        match rule.fault:
            case Fault.TRUNCATE:
                return False
            case Fault.RESET_BODY:
                self._wire.reset()
            case Fault.STALL:
                self._wire.wait_for_hang_up(rule.stall_seconds)
            case Fault.DRIP:
                speed = 1 / rule.stall_seconds
            case Fault.FLIP if at_byte < body.size_bytes:
                self._wire.send_paced(_flipped(body.after(at_byte).before(1)), speed)
                at_byte += 1
        self._wire.send_paced(body.after(at_byte), speed)
        return True


def _head_by(plan: Plan, request: Request, reply: Reply) -> bytes:
    """Return a reply's head with what a plan orders to be wrong with it."""
    body_bytes = reply.body.size_bytes if reply.body else 0
    match plan.fault:
        case Fault.BARE:
            return f"HTTP/1.1 {reply.status} OK\r\nContent-Length: {body_bytes}\r\n\r\n".encode()
        case Fault.GARBAGE:
            return b"\x00\xff no HTTP at all \r\n" * 3
        case Fault.HUGE_HEADERS:
            return b"HTTP/1.1 200 OK\r\nX-Huge: " + b"x" * (1 << 20) + b"\r\n\r\n"
    return replace(reply, announced_bytes=body_bytes // 2).head(request)


def _refuse_by(rule: Rule) -> None:
    """Raise the Refusal that a rule orders; return if it orders none."""
    if rule.status:
        code = rule.error_code or CODE_OF_STATUS.get(rule.status, "InternalError")
        after = rule.retry_after_seconds
        headers = "" if after is None else f"Retry-After: {after}\r\n"
        raise Refusal(code, status=rule.status, headers=headers)


def _damaged(part: Part, at_byte: int) -> Part:
    """Return the same bytes with all bits of one turned, if there are so many."""
    flipped = _flipped(part.after(at_byte).before(1))
    return whole(b"".join([*part.before(at_byte), *flipped, *part.after(at_byte + 1)]))


def _flipped(part: Part) -> Part:
    return whole(bytes(byte ^ 0xFF for view in part for byte in view))
