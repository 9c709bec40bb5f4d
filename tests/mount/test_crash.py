"""Processes at work on a mount that is killed at random moments, again and again."""

import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from load import state_of
from mounts import Mount, Mounts, blobfs
from responder.control import Responder
from responder.faults import Rule

LOAD = Path(__file__).parents[1] / "load.py"
ROUNDS = 8
PROCESSES = 3
ACKNOWLEDGING = {"fsync", "close", "rename"}
IN_FLIGHT = {"write", "fsync", "close"}


@dataclass
class Name:
    """What a record tells of one name."""

    since_acknowledged: list[str] = field(default_factory=lambda: [""])  # states, that one included
    since_ended: list[str] = field(default_factory=lambda: [""])  # the last one that a call returned for
    last_ended: str = ""


@dataclass
class Record:
    """What one process was told before its mount died."""

    names: dict[str, Name]
    in_flight: Sequence[str]  # the operation that had begun, with its name and state; empty if none

    @classmethod
    def read(cls, path: Path) -> "Record":
        names: dict[str, Name] = defaultdict(Name)
        begun: list[list[str]] = []
        for line in path.read_text().splitlines():
            when, operation, name, state = json.loads(line)
            if when == "begin":
                begun.append([operation, name, state])
                names[name].since_acknowledged.append(state)
                names[name].since_ended.append(state)
            else:
                begun.pop()
                names[name].since_ended = [state]
                names[name].last_ended = operation
                if operation in ACKNOWLEDGING:
                    names[name].since_acknowledged = [state]
        return cls(names, begun[0] if begun else [])


@pytest.fixture(scope="module")
def service() -> Iterator[Responder]:
    with Responder(checks_access=True) as service:
        service.order(Rule(latency_seconds=0.005))
        yield service


@pytest.fixture
def box(service: Responder) -> str:
    name = uuid4().hex
    service.create_container(name)
    return name


@pytest.fixture
def mounts(service: Responder, box: str) -> Iterator[Mounts]:
    with Mounts(service, box, "libfuse3") as mounts:
        mounts.tolerate_log("is left in the spool")
        yield mounts


def work_and_crash(mount: Mount, directory: Path, records: Path, seconds: float) -> list[Record]:
    """Have processes work on the mount until it dies, and return what they were told."""
    directory.mkdir()
    records.mkdir()
    loads = [
        subprocess.Popen([sys.executable, LOAD, directory, records / str(seed), str(seed)])
        for seed in random.sample(range(10**6), PROCESSES)
    ]
    for load in loads:
        with pytest.raises(subprocess.TimeoutExpired):
            load.wait(seconds / PROCESSES)
    mount.kill()
    for load in loads:
        assert load.wait(60) == 0
    return [Record.read(path) for path in records.iterdir()]


def state_in(directory: Path, name: str) -> str:
    try:
        return state_of((directory / name).read_bytes())
    except FileNotFoundError:
        return ""


def check_acknowledged(directory: Path, records: Sequence[Record]) -> None:
    """Every name is as it was when a call last promised that, or as it was later."""
    for record in records:
        for name, told in record.names.items():
            assert state_in(directory, name) in told.since_acknowledged, (name, told, record.in_flight)


def check_every_write(directory: Path, records: Sequence[Record]) -> None:
    """Every file is as the last write that returned has left it, or with the one that was under way."""
    for record in records:
        for name, told in record.names.items():
            if told.last_ended in IN_FLIGHT:
                assert state_in(directory, name) in told.since_ended, (name, told, record.in_flight)


def recover(service: Responder, box: str, spool: Path, *arguments: str) -> str:
    where = [service.account, box, "--endpoint", service.endpoint, "--spool-dir", spool]
    ended = blobfs("recover", *where, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("kind", ["without a spool", "with a spool", "writing back"])
def test_nothing_that_was_acknowledged_is_lost_in_a_crash(
    service: Responder, box: str, mounts: Mounts, tmp_path: Path, kind: str
) -> None:
    spool, is_spooled = tmp_path / "spool", kind != "without a spool"
    options = ["--block-size", "64KiB", "--attr-timeout", "0"]
    options += ["--spool-dir", str(spool)] if is_spooled else []
    options += ["--writeback"] if kind == "writing back" else []
    mount = mounts(*options)
    hits = offers = 0
    for number in range(ROUNDS):
        records = work_and_crash(
            mount, mount.path / str(number), tmp_path / str(number), random.uniform(0.5, 1.0)
        )
        hits += sum(record.in_flight[:1] != [] and record.in_flight[0] in IN_FLIGHT for record in records)
        mounts.unmount(mount)
        mount = mounts(*options)
        check_acknowledged(mount.path / str(number), records)
        if is_spooled:
            offered = [each["name"] for each in json.loads(recover(service, box, spool, "--json"))]
            offers += len(offered)
            if offered:
                recover(service, box, spool, *offered, "--commit")
            check_every_write(mount.path / str(number), records)
    assert hits > 0
    assert offers > 0 or not is_spooled
