"""Processes at work on a mount that is killed at random moments, again and again."""

import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest
from load import state_of
from mounts import blobfs, is_mountpoint
from nursery import Nursery, Process
from responder.control import Responder
from responder.faults import Rule
from unix import libc
from waiting import wait_until

LANES = 4  # mounts at a time
ROUNDS = 25  # of each: a hundred crashes
PROCESSES = 3  # at work on each
WORK_SECONDS = (0.03, 0.3)  # until the mount is killed
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


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


class Lane:
    """One container that is mounted, worked on and killed, again and again."""

    def __init__(self, service: Responder, nursery: Nursery, local: Path, kind: str) -> None:
        self._nursery = nursery
        self._local = local
        self._numbers = count()
        self.is_spooled = kind != "without a spool"
        self.path = local / "mount"
        self.path.mkdir(parents=True)
        box = uuid4().hex
        service.create_container(box)
        self._where = [service.account, box, "--endpoint", service.endpoint]
        self._spool = ["--spool-dir", str(local / "spool")] if self.is_spooled else []
        self._writeback = ["--writeback"] if kind == "writing back" else []
        self._mount = self._mounted()

    def round(self) -> Sequence[Record]:
        """Have processes work on the mount until it dies, mount again, and return what they were told."""
        number = str(next(self._numbers))
        (self.path / number).mkdir()
        (self._local / number).mkdir()
        loads = [
            self._nursery.start(
                "load", self.path / number, self._local / number / seed, seed, output=self._file("load")
            )
            for seed in map(str, random.sample(range(10**6), PROCESSES))
        ]
        assert not loads[0].has_ended(random.uniform(*WORK_SECONDS)), loads[0].said
        self._mount.kill()
        assert all(load.has_ended(60) for load in loads)
        detach(self.path)
        self._mount = self._mounted()
        return [Record.read(path) for path in (self._local / number).iterdir()]

    def directory(self) -> Path:
        """Return where the last round was."""
        return max((path for path in self.path.iterdir()), key=lambda path: int(path.name))

    def commit_offers(self) -> int:
        """Have everything committed that the crash left and nobody had closed; return how much that was."""
        offered = [each["name"] for each in json.loads(self._recover("--json"))]
        if offered:
            self._recover(*offered, "--commit")
        return len(offered)

    def end(self) -> None:
        """Unmount in good order."""
        ended = blobfs("umount", self.path)
        assert ended.returncode == 0, ended.stderr
        assert self._mount.has_ended(60)

    def clear(self) -> None:
        """Leave no mount and no process, whatever happened."""
        if not self._mount.has_ended():
            self._mount.kill()
        if is_mountpoint(self.path):
            detach(self.path)

    def _mounted(self) -> Process:
        mount = self._nursery.start(*self._mount_arguments(), output=self._file("mount"))
        wait_until(lambda: " is mounted on " in mount.said or mount.has_ended())
        assert not mount.has_ended(), mount.said
        return mount

    def _mount_arguments(self) -> Sequence[str]:
        options = ["--block-size", "64KiB", "--attr-timeout", "0", "--memory", "64MiB"]
        where = [*self._where[:2], str(self.path), *self._where[2:]]
        return [
            "mount",
            *where,
            *options,
            *self._spool,
            *self._writeback,
            "--binding",
            "libfuse3",
            "--foreground",
        ]

    def _recover(self, *arguments: str) -> str:
        recover = self._nursery.start(
            "recover", *self._where, *self._spool, *arguments, output=self._file("recover")
        )
        assert recover.has_ended(60)
        return recover.said

    def _file(self, name: str) -> Path:
        return self._local / f"{name}-{next(self._numbers)}"


def detach(path: Path) -> None:
    """Take a dead mount away. umount2(2)"""
    lazily = 2
    assert libc.umount2(os.fsencode(path), lazily) == 0


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


def crash_again_and_again(lane: Lane) -> tuple[int, int]:
    """Return how many writes the crashes hit in flight, and how many unclosed files they left."""
    hits = offers = 0
    for _ in range(ROUNDS):
        records = lane.round()
        hits += sum(record.in_flight[:1] != [] and record.in_flight[0] in IN_FLIGHT for record in records)
        check_acknowledged(lane.directory(), records)
        if lane.is_spooled:
            offers += lane.commit_offers()
            check_every_write(lane.directory(), records)
    lane.end()
    return hits, offers


@pytest.mark.parametrize("kind", ["without a spool", "with a spool", "writing back"])
def test_nothing_that_was_acknowledged_is_lost_in_a_hundred_crashes(
    service: Responder, nursery: Nursery, tmp_path: Path, kind: str
) -> None:
    lanes = [Lane(service, nursery, tmp_path / str(number), kind) for number in range(LANES)]
    is_spooled = lanes[0].is_spooled
    with ExitStack() as clearing, ThreadPoolExecutor(LANES) as threads:
        for lane in lanes:
            clearing.callback(lane.clear)
        hits, offers = map(sum, zip(*threads.map(crash_again_and_again, lanes), strict=True))
    print(f"{LANES * ROUNDS} mounts killed, {hits} writes in flight, {offers} files never closed")
    assert hits >= ROUNDS
    assert offers > 0 or not is_spooled
