"""The values that the parts of the benchmark hand each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from responder.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Place:
    """Where a workload is done."""

    mount: Path  # the mounted container
    source: Path  # local files, as `Workload.prepare` made them
    scratch: Path  # an empty local directory, in memory if there is such a filesystem


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a blob."""

    name: str
    start: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Ideal:
    """The fewest requests that do the same work, and how many connections share them."""

    gets: Sequence[Span] = ()
    puts: Sequence[Span] = ()  # a blob, or a block of one when it starts beyond zero or `are_blocks`
    are_blocks: bool = False
    connections: int = 1


@dataclass(frozen=True, slots=True)
class Transfer:
    """The same work for a program that copies: this file or tree, to or from the same name."""

    name: str
    is_upload: bool


@dataclass(frozen=True, slots=True)
class Workload:
    """Something worth measuring."""

    name: str
    title: str
    amount: float  # of work, in units
    unit: str
    run: Callable[[Place], None]  # through a mount; the only part that is timed
    recipes: Sequence[Recipe] = ()  # blobs that stand in the container before
    prepare: Callable[[Path], None] | None = None  # makes what `source` needs, once
    uploads: Sequence[str] = ()  # files of `source` that stand in the container before
    wanted_bytes: int = 0  # what the reader asks for, where read amplification is a question
    transfer: Transfer | None = None
    ideal: Ideal | None = None
    run_memory_bytes: int = 0  # touched before each run, so that it does not wait for the host
    service_memory_bytes: int = 0  # the same for the service: what is stored
    changes: bool = False  # the container; done only when the service has everything
    is_rehearsed: bool = False  # done once before, on an earlier mount, untimed
    is_repeated: bool = False  # done again on the same mount: the warm row
    suits_zeros: bool = False  # meaningful on a mount of zeros, too


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one workload on one system."""

    model: str
    workload: str
    system: str
    repeat: int
    is_warm: bool
    seconds: float = 0.0
    client_cpu_seconds: float = 0.0
    daemon_cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0  # of the daemon; of the largest process where there is none
    requests: Mapping[str, int] = field(default_factory=dict)  # by kind; empty where nobody counts
    received_bytes: int = 0  # bodies that the service received
    sent_bytes: int = 0  # and sent
    stolen_share: float = 0.0  # of the processors' time, taken by the host for other machines
    error: str = ""  # why it could not be done

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)
