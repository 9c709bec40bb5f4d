"""Rules that delay, refuse and damage; which requests they hit is counted."""

import enum
import random
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


class Fault(enum.Enum):
    """What goes wrong on the way. A position is the rule's `at_byte`, in the body."""

    HOLD = "hold"  # nothing is done until other rules are in force, nor at all if the client hangs up
    RESET = "reset"  # after the request has arrived; nothing is done
    RESET_UPLOAD = "reset upload"  # when that much of the request's body has arrived; nothing is done
    FLIP_UPLOAD = "flip upload"  # all bits of the request's byte there are turned before it is looked at
    LOSE_REPLY = "lose reply"  # reset after the operation was done
    RESET_BODY = "reset body"  # when that much of the reply's body is sent
    TRUNCATE = "truncate"  # the reply's body ends there, and so does the connection, in good order
    STALL = "stall"  # the reply's body stops there, for `stall_seconds` or until the client hangs up
    DRIP = "drip"  # from there on the reply's body comes a byte every `stall_seconds`
    FLIP = "flip"  # all bits of the reply's byte there are turned
    BARE = "bare"  # the reply has no headers but its length
    GARBAGE = "garbage"  # the reply is no HTTP
    HUGE_HEADERS = "huge headers"  # the reply has more of them than anybody reads
    LIE = "lie"  # the reply announces half of its body, and sends all
    DROP_BLOCKS = "drop blocks"  # the blob's uncommitted blocks vanish before the operation is done


_IN_BODY = (Fault.RESET_BODY, Fault.TRUNCATE, Fault.STALL, Fault.DRIP, Fault.FLIP)
_IN_HEAD = (Fault.BARE, Fault.GARBAGE, Fault.HUGE_HEADERS, Fault.LIE)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests are hit, and by what. A rule without a fault or a status only slows down."""

    kind: str = ""  # as the counters name it; empty for all
    pattern: str = ""  # a regular expression, searched for in "METHOD /PATH?QUERY" as sent
    skip: int = 0  # so many are spared first
    every: int = 1  # then each so-manieth is hit
    count: int = 0  # until so many were hit; 0 is for ever
    latency_seconds: float = 0.0  # before the reply
    jitter_seconds: float = 0.0  # more or less than that, at most
    bytes_per_second: float = 0.0  # of one connection, each way; 0 is as fast as it goes
    status: int = 0  # a refusal instead of the operation
    error_code: str = ""  # of the refusal; empty for the usual one
    retry_after_seconds: int | None = None
    fault: Fault | None = None
    at_byte: int = 0
    stall_seconds: float = 0.0  # 0 is for ever

    @property
    def disturbs(self) -> bool:
        """Whether it does more than slow down."""
        return self.fault is not None or bool(self.status)

    def to_json(self) -> dict[str, Any]:
        """Return the rule as JSON has it."""
        return asdict(self) | {"fault": self.fault.value if self.fault else None}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Rule":
        """Return the rule that JSON tells of. Raises TypeError, ValueError."""
        fault = fields.get("fault")
        return cls(**{**fields, "fault": Fault(fault) if fault else None})


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request has to suffer."""

    latency_seconds: float = 0.0
    bytes_per_second: float = 0.0
    disturbance: Rule = Rule()

    @property
    def fault(self) -> Fault | None:
        """What goes wrong on the way, if anything does."""
        return self.disturbance.fault

    @property
    def disturbs_reply(self) -> bool:
        """Whether something goes wrong in the body of the reply."""
        return self.fault in _IN_BODY

    @property
    def disturbs_head(self) -> bool:
        """Whether something is wrong with the head of the reply."""
        return self.fault in _IN_HEAD


UNDISTURBED = Plan()


class Rulebook:
    """The rules in force. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the counts
        self._rules: list[_Counted] = []

    def replace(self, rules: Sequence[Rule]) -> None:
        """Put these rules in force instead of all others."""
        self._rules = [_Counted(rule) for rule in rules]

    def is_in_force(self, rule: Rule) -> bool:
        """Return whether a rule that hit a request has not been replaced since."""
        return any(counted.rule is rule for counted in self._rules)

    @property
    def hits(self) -> list[int]:
        """How many requests each rule hit."""
        return [counted.hits for counted in self._rules]

    def plan(self, kind: str, subject: str) -> Plan:
        """Return what is ordered for this request, counting it.

        Delays add up, the lowest speed holds, and the first disturbance is the only one.
        """
        rules = self._rules
        if not rules:
            return UNDISTURBED
        with self._lock:
            fired = [counted.rule for counted in rules if counted.fires(kind, subject)]
        return _plan_of(fired)


class _Counted:
    """A rule and how often it was met."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.hits = 0
        self._seen = 0
        self._matches = re.compile(rule.pattern).search

    def fires(self, kind: str, subject: str) -> bool:
        """Return whether the rule hits this request."""
        rule = self.rule
        if (rule.kind and rule.kind != kind) or not self._matches(subject):
            return False
        self._seen += 1
        number = self._seen - rule.skip
        is_over = rule.count and self.hits >= rule.count
        if is_over or number <= 0 or number % rule.every:
            return False
        self.hits += 1
        return True


def _plan_of(rules: Sequence[Rule]) -> Plan:
    speeds = [rule.bytes_per_second for rule in rules if rule.bytes_per_second]
    return Plan(
        sum(rule.latency_seconds + random.uniform(-1, 1) * rule.jitter_seconds for rule in rules),
        min(speeds, default=0.0),
        next((rule for rule in rules if rule.disturbs), Rule()),
    )
