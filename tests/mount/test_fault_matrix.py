"""Every fault of the service under everything that programs do: what comes of it, as docs/faults.md tells."""

import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from mounts import PROJECT, Mount, Mounts
from operations import (
    BLOCK_BYTES,
    OPERATIONS,
    SURVIVED,
    UNMOUNT,
    Attempt,
    Operation,
    Place,
    close_temporary,
    sequential_write,
    unmount,
)
from responder.control import Responder
from responder.faults import Fault, Rule
from tokens import container_sas
from waiting import wait_until

DOCUMENT = PROJECT / "docs" / "faults.md"
AT_ONCE = 32  # most of them wait: for a stalled reply, or as the service asks
EVERY_COLUMN = (*OPERATIONS, UNMOUNT)
NOT_MET = "not met"  # nothing that the operation sends can have this fault

# A rule's pattern says which methods it is about. Replies to a PUT have no body that could be damaged.
ANY, UPLOADS, REPLIES = "^(GET|HEAD|PUT|DELETE) ", "^PUT ", "^GET "

PASSING: Mapping[str, Rule] = {
    **{f"{status}": Rule(pattern=ANY, status=status, count=2) for status in (408, 500, 502, 503, 504)},
    "429 and Retry-After": Rule(pattern=ANY, status=429, retry_after_seconds=1, count=1),
    "503 and Retry-After": Rule(pattern=ANY, status=503, retry_after_seconds=1, count=1),
    "reset": Rule(pattern=ANY, fault=Fault.RESET, count=2),
    "reset in an upload": Rule(pattern=UPLOADS, fault=Fault.RESET_UPLOAD, at_byte=2, count=2),
    "reset in a reply": Rule(pattern=REPLIES, fault=Fault.RESET_BODY, at_byte=2, count=2),
    "lost reply": Rule(pattern=ANY, fault=Fault.LOSE_REPLY, count=2),
    "truncated reply": Rule(pattern=REPLIES, fault=Fault.TRUNCATE, at_byte=2, count=2),
    "stalled reply": Rule(pattern=REPLIES, fault=Fault.STALL, at_byte=2, count=1),
    "flipped byte of an upload": Rule(pattern=UPLOADS, fault=Fault.FLIP_UPLOAD, at_byte=2, count=1),
    "flipped byte of a reply": Rule(kind="GET blob", pattern=REPLIES, fault=Fault.FLIP, at_byte=2, count=1),
    "no HTTP": Rule(pattern=ANY, fault=Fault.GARBAGE, count=2),
}
STAYING: Mapping[str, Rule] = {
    "401": Rule(pattern=ANY, status=401),
    "403": Rule(pattern=ANY, status=403),
    "418": Rule(pattern=ANY, status=418),
    "501": Rule(pattern=ANY, status=501, error_code="NotImplemented"),
    "redirected": Rule(pattern=ANY, status=302),
    "success that is none": Rule(pattern=ANY, status=200),
    "503": Rule(pattern=ANY, status=503),
    "429 and Retry-After": Rule(pattern=ANY, status=429, retry_after_seconds=1),
    "504": Rule(pattern=ANY, status=504),
    "no answer": Rule(pattern=ANY, latency_seconds=600),
    "reset": Rule(pattern=ANY, fault=Fault.RESET),
    "no HTTP": Rule(pattern=ANY, fault=Fault.GARBAGE),
    "truncated replies": Rule(pattern=REPLIES, fault=Fault.TRUNCATE, at_byte=2),
    "flipped bytes of uploads": Rule(pattern=UPLOADS, fault=Fault.FLIP_UPLOAD, at_byte=2),
    "flipped bytes of replies": Rule(kind="GET blob", pattern=REPLIES, fault=Fault.FLIP, at_byte=2),
}
EXPIRED = "expired SAS"
DROPPED = "uncommitted blocks dropped"


PASS, STAY, SPOOLED = "Faults that pass", "Faults that stay", "A fault that passes with a spool"


@dataclass(frozen=True)
class Cell:
    """What came of one operation under one fault."""

    outcome: str
    hits: int  # requests that met the fault
    requests: int  # all that were sent
    complaint: str = ""  # what is wrong with the files

    def __str__(self) -> str:
        return f"{self.outcome} ({self.hits}/{self.requests})"


UNHARMED = Cell(SURVIVED, 0, 0)

Row = Mapping[str, Cell]  # by operation
Table = Mapping[str, Row]  # by fault


class Laboratory:
    """A service with a container, mounts of it, and the cells that are tried on them."""

    def __init__(self, service: Responder, container: ContainerClient, mounts: Mounts, local: Path) -> None:
        self._service = service
        self._container = container
        self._mounts = mounts
        self._local = local
        self._sas_file = local / "sas"
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._kept: list[tuple[Attempt, Place]] = []  # closed while nothing could be sent

    def passing(self) -> Table:
        """Try the faults that pass, all at once, and end by unmounting while each is met once more."""
        mount = self._mount()
        tasks = [(operation, mount, rule) for rule in PASSING.values() for operation in OPERATIONS.values()]
        cells = self._try(tasks)
        closes = [(close_temporary, mount, rule) for rule in PASSING.values()]
        unmounts = self._try(closes, then=lambda: self._mounts.unmount(mount))
        width = len(OPERATIONS)
        return {
            row: dict(zip(EVERY_COLUMN, [*cells[index * width : (index + 1) * width], end], strict=True))
            for index, (row, end) in enumerate(zip(PASSING, unmounts, strict=True))
        }

    def dropping(self) -> Table:
        """Try what costs an upload, unless there is a spool."""
        mount = self._mount("--spool-dir", self._local / "spool")
        rule = Rule(kind="PUT block list", pattern=UPLOADS, fault=Fault.DROP_BLOCKS, count=1)
        cells = self._try([(operation, mount, rule) for operation in OPERATIONS.values()])
        self._mounts.unmount(mount)
        return {DROPPED: dict(zip(EVERY_COLUMN, [*cells, UNHARMED], strict=True))}

    def staying(self) -> Table:
        """Try the faults that stay, one after the other, because each concerns the whole mount."""
        self._renew_sas()
        mount = self._mount("--timeout", "0.5", "--sas-file", self._sas_file)
        rows = {row: self._row(mount, rule) for row, rule in STAYING.items()}
        rows[EXPIRED] = self._row(mount, Rule(), sas_hours=-1)
        wait_until(lambda: _answers(mount))
        self._mounts.unmount(mount)
        for attempt, place in self._kept:
            assert place.blobs() == attempt.after, "what could not be sent was not sent later"
        return rows

    def _row(self, mount: Mount, rule: Rule, sas_hours: int = 1) -> Row:
        cells: list[Cell] = []
        for operations in (OPERATIONS.values(), [unmount]):
            wait_until(lambda: _answers(mount))
            if operations == [unmount] and rule.pattern == REPLIES:
                cells.append(UNHARMED)  # it only sends, and the mount would be gone
            else:
                tasks = [(operation, mount, rule) for operation in operations]
                cells += self._try(tasks, sas_hours=sas_hours)
        return dict(zip(EVERY_COLUMN, cells, strict=True))

    def _mount(self, *options: str | Path) -> Mount:
        return self._mounts("--attr-timeout", "0", "--block-size", f"{BLOCK_BYTES}", *options)

    def _try(
        self,
        tasks: Sequence[tuple[Operation, Mount, Rule]],
        *,
        sas_hours: int = 1,
        then: Callable[[], None] = lambda: None,
    ) -> list[Cell]:
        places = [self._place(mount) for _, mount, _ in tasks]
        operations = [operation for operation, _, _ in tasks]
        attempts = list(self._threads.map(lambda begin, place: begin(place), operations, places))
        rules = [_rule_at(place, rule) for place, (_, _, rule) in zip(places, tasks, strict=True)]
        self._renew_sas(sas_hours)
        self._service.order(*rules, *(Rule(pattern=place.name) for place in places))
        outcomes = list(self._threads.map(Attempt.outcome, attempts))
        then()
        hits = self._service.hits
        self._service.order()
        self._renew_sas()
        complaints = [
            attempt.complaint(place.blobs(), outcome)
            for attempt, place, outcome in zip(attempts, places, outcomes, strict=True)
        ]
        self._kept += [
            (attempt, place)
            for attempt, place, (operation, _, rule) in zip(attempts, places, tasks, strict=True)
            if operation in (sequential_write, unmount) and rule.pattern != UPLOADS
        ]
        return list(map(Cell, outcomes, hits, hits[len(tasks) :], complaints))

    def _place(self, mount: Mount) -> Place:
        name = uuid.uuid4().hex
        (self._local / name).mkdir()
        return Place(mount.path, name, self._local / name, self._service, self._container)

    def _renew_sas(self, hours: int = 1) -> None:
        sas = container_sas(self._container.container_name, life=timedelta(hours=hours))
        new = self._sas_file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(sas)
        new.rename(self._sas_file)


def _rule_at(place: Place, rule: Rule) -> Rule:
    return replace(rule, pattern=f"{rule.pattern}.*{place.name}")


def _answers(mount: Mount) -> bool:
    """Tell whether the mount has found out that the service is back."""
    try:
        os.listdir(mount.path)
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    box = uuid.uuid4().hex
    local = tmp_path_factory.mktemp("local")
    with Responder(checks_access=True) as service:
        service.create_container(box)
        with service.client() as client, Mounts(service, box, "libfuse3") as mounts:
            for line in EXPECTED_LOG:
                mounts.tolerate_log(line)
            yield Laboratory(service, client.get_container_client(box), mounts, local)
            service.order()


EXPECTED_LOG = (
    "the service (is busy|does not answer|answers again)|until the service answers again",
    "closed and is not committed yet|is committed after all",
    "closed without being committed|is not committed: |ended: not committed",
    "damaged bytes arrived|expected (MD5|XXH3)",
)


@pytest.fixture(scope="module")
def tables(laboratory: Laboratory) -> Mapping[str, Table]:
    return {PASS: laboratory.passing(), STAY: laboratory.staying(), SPOOLED: laboratory.dropping()}


def cells_of(tables: Mapping[str, Table]) -> Iterator[tuple[str, Cell]]:
    for title, table in tables.items():
        for row, cells in table.items():
            for column, cell in cells.items():
                yield f"{title}: {row}, {column}", cell


def test_everything_succeeds_with_the_right_bytes_or_is_reported_with_the_old_ones(
    tables: Mapping[str, Table],
) -> None:
    complaints = {where: cell.complaint for where, cell in cells_of(tables) if cell.complaint}
    assert not complaints


def test_faults_that_pass_are_survived(tables: Mapping[str, Table]) -> None:
    cells = cells_of({title: tables[title] for title in (PASS, SPOOLED)})
    failed = {where: str(cell) for where, cell in cells if cell.outcome != SURVIVED}
    assert not failed


def test_nothing_succeeds_while_every_request_fails(tables: Mapping[str, Table]) -> None:
    rows = {row: tables[STAY][row] for row, rule in STAYING.items() if rule.pattern == ANY}
    unnoticed = {where: str(cell) for where, cell in cells_of({STAY: rows}) if cell.outcome == SURVIVED}
    assert not unnoticed


def test_every_fault_was_met(tables: Mapping[str, Table]) -> None:
    for table in tables.values():
        for row, cells in table.items():
            assert sum(cell.hits > 0 for cell in cells.values()) > 0, row


def test_the_document_tells_what_was_found(
    tables: Mapping[str, Table], request: pytest.FixtureRequest
) -> None:
    document = document_of(tables)
    print(document)
    if request.config.getoption("--keep-matrix"):
        DOCUMENT.write_text(document)
    assert outcomes_in(document) == outcomes_in(DOCUMENT.read_text())


INTRODUCTION = """\
# What programs see of faults

Each cell is a program at work on a real mount while the service, a test server of this project, does to its
requests what the row says.

- `survived`: the call or the program succeeded, and another client then finds exactly the bytes meant.
- An errno, or `failed` (a message and an exit status): what was reported. Another client then finds each file
  as it was before or as it was to be; a new one may end early where `write()` itself has failed.
- (2/7): 2 requests met the fault, of 7 that were sent. (0/0): the mount knew already that the service is away
  or the SAS expired.
- `not met`: nothing that is sent can have the fault.

`scripts/test -k fault_matrix --keep-matrix` writes this file; without that option the tests compare the
outcomes with it. The numbers of requests change from run to run.
"""
NOTES = {
    PASS: "Each meets the first one or two requests that it can, with default options.",
    STAY: "Each meets every request, of a mount with `--timeout 0.5`. Afterwards the service is "
    "well again, and everything that could not be sent is sent.",
    SPOOLED: "Blocks that were staged are gone before their commit, as when somebody else commits the name. "
    "With `--spool-dir`, as here, they are sent again. Without, those that are not in memory any more "
    "cannot be: the writer gets ESTALE.",
}


def document_of(tables: Mapping[str, Table]) -> str:
    parts = [INTRODUCTION]
    for title, table in tables.items():
        head = f"| fault | {' | '.join(EVERY_COLUMN)} |\n|---{'|---' * len(EVERY_COLUMN)}|\n"
        parts.append(f"## {title}\n\n{NOTES[title]}\n\n{head}{_lines(table)}")
    return "\n".join(parts)


def _lines(table: Table) -> str:
    return "".join(f"| {row} | {' | '.join(map(_text, cells.values()))} |\n" for row, cells in table.items())


def _text(cell: Cell) -> str:
    return str(cell) if cell.hits or cell.outcome != SURVIVED else NOT_MET


def outcomes_in(document: str) -> Sequence[Sequence[str]]:
    """Return the tables' rows without the numbers of requests, which depend on the moment."""
    rows = [line for line in document.splitlines() if line.startswith("|")]
    return [[re.sub(r" \(\d+/\d+\)", "", cell).strip() for cell in row.split("|")] for row in rows]
