"""Requests to the responder itself, below a path that no account can have."""

import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from responder.account import Account
from responder.faults import Rule, Rulebook
from responder.memory import Pool
from responder.messages import Reply, Request, whole
from responder.recipes import Recipe, make_blobs
from responder.refusals import Refusal

OWNER = ".responder"  # where the account stands in an address


class Counters:
    """What was asked for and moved. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the values
        self._values = _Values()

    def add_request(self, kind: str, body_bytes: int, *, is_first: bool) -> None:
        """Count a request with its body, and the connection with its first."""
        with self._lock:
            values = self._values
            values.requests[kind] += 1
            values.bytes_in += body_bytes
            values.connections += is_first

    def add_reply(self, status: int, body_bytes: int) -> None:
        """Count a reply with the body it announces."""
        with self._lock:
            self._values.statuses[status] += 1
            self._values.bytes_out += body_bytes

    def read(self, *, reset: bool) -> dict[str, Any]:
        """Return the values, and begin again at zero if asked to."""
        with self._lock:
            values = self._values
            if reset:
                self._values = _Values()
        return {**vars(values), "cpu_seconds": time.process_time()}


@dataclass
class _Values:
    requests: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    connections: int = 0


class Commands:
    """Carries out what `control.Responder` sends."""

    def __init__(self, account: Account, pool: Pool, rulebook: Rulebook, counters: Counters) -> None:
        self._account = account
        self._pool = pool
        self._rulebook = rulebook
        self._counters = counters

    def obey(self, request: Request, body: bytes) -> Reply:
        """Return the answer, in JSON. Raises Refusal."""
        try:
            return self._obey(request, body)
        except (TypeError, ValueError, re.error) as error:
            raise Refusal("InvalidInput", text=f"{error!r}") from error

    def _obey(self, request: Request, body: bytes) -> Reply:
        match request.method, request.container:
            case "GET", "counters":
                return _json(self._counters.read(reset=False))
            case "DELETE", "counters":
                return _json(self._counters.read(reset=True))
            case "GET", "rules":
                return _json(self._rulebook.hits)
            case "PUT", "rules":
                self._rulebook.replace([Rule.from_json(rule) for rule in json.loads(body)])
                return Reply(204)
            case "PUT", "blobs":
                owner, _, container = request.name.partition("/")
                make_blobs(self._account, owner, container, Recipe(**json.loads(body)))
                return Reply(201)
            case "PUT", "memory":
                self._pool.keep(**json.loads(body))
                return Reply(204)
        raise Refusal("NotImplemented")


def _json(value: object) -> Reply:
    return Reply(200, "Content-Type: application/json\r\n", whole(json.dumps(value).encode()))
