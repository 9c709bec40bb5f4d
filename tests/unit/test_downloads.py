"""Downloads without a service or a process of their own: what they leave beside files, and of attributes."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import DEFAULTS, MemoryStore, machine

from blobfs.copying.carrying import LocalCarrier
from blobfs.copying.checker import Checker
from blobfs.copying.comparing import Comparer
from blobfs.copying.copier import Copier, Orders, TreeCopy
from blobfs.copying.downloading import Downloader, Keeping
from blobfs.copying.interruption import Interruption
from blobfs.copying.meter import Meter
from blobfs.copying.part_file import part_path
from blobfs.copying.plan import Rules
from blobfs.copying.report import Outcome, Report, Unwatched, Verdict
from blobfs.copying.selection import Selection
from blobfs.copying.trees import LocalTree, RemoteTree
from blobfs.copying.units import Units
from blobfs.store import Condition


class Copies:
    """Copies all of a store to a directory, and compares the two."""

    def __init__(self, store: MemoryStore, units: Units, comparer: Comparer, here: Path) -> None:
        self.store = store
        self.units = units
        self.here = here
        self._comparer = comparer
        self._there = RemoteTree(store, "", DEFAULTS, Selection())

    def download(self, rules: Rules, *, preserves: bool = True) -> dict[str, Verdict]:
        """Return what became of each entry, by its name there."""
        report, verdicts = _report()
        keeping = Keeping(preserves, owners=False, umask=0o022)
        carrier = LocalCarrier(
            Downloader(self.units, self.here, keeping), self._comparer, rules, dry_run=False
        )
        orders = Orders(rules, recursive=True, deletes=False, skips_links=False, dry_run=False)
        local = LocalTree(self.here, Selection())
        root = self._there.root()
        assert root is not None
        Copier(carrier, report, Interruption(), orders=orders, jobs=1).copy(
            TreeCopy(self._there, root, local, local.root())
        )
        return verdicts

    def compare(self) -> dict[str, Verdict]:
        """Return what comparing each entry gave, by its path here or its name there."""
        report, verdicts = _report()
        Checker(self._comparer, report, Interruption(), jobs=1).compare(
            LocalTree(self.here, Selection()), self._there
        )
        return verdicts


class Verdicts(Unwatched):
    """Keeps what became of each entry."""

    def __init__(self) -> None:
        self.by_source: dict[str, Verdict] = {}

    def tell(self, outcome: Outcome) -> None:
        self.by_source[outcome.source] = outcome.verdict


def _report() -> tuple[Report, dict[str, Verdict]]:
    verdicts = Verdicts()
    return Report(verdicts), verdicts.by_source


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Copies]:
    store = MemoryStore()
    with machine(store) as parts:
        meter = Meter(Interruption(), limit_bytes_per_second=0, watch=lambda _: None)
        units = Units(parts.reader, parts.pool, parts.transfers, meter, ahead=2, verifies=True)
        comparer = Comparer(units, parts.pool, meter, reads_all=False)
        yield Copies(store, units, comparer, tmp_path / "here")


def test_what_an_unfinished_download_left_is_not_copied_and_named(
    copies: Copies, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have the name under which its sibling is made."""
    part = part_path(Path("dir/x"))
    for name in ("dir/x", str(part), "dir/.blobfs-0.part"):
        copies.store.put(name, name.encode())
    with caplog.at_level(logging.WARNING):
        verdicts = copies.download(Rules())
    assert verdicts == dict.fromkeys(("", "dir/x", "dir/.blobfs-0.part"), Verdict.COPIED)
    assert (copies.here / "dir" / "x").read_bytes() == b"dir/x"
    assert f"{part}: not copied" in caplog.text
    (copies.here / part).touch()
    assert set(copies.compare().values()) == {Verdict.MATCHES}
    copies.store.delete(str(part), Condition())
    assert set(copies.compare().values()) == {Verdict.MATCHES}


def test_a_file_has_no_extended_attributes_of_what_an_earlier_attempt_left(copies: Copies) -> None:
    copies.store.put("x", b"bytes")
    copies.here.mkdir()
    part = part_path(copies.here / "x")
    part.write_bytes(b"older bytes")
    os.setxattr(part, "user.secret", b"of an older file")
    copies.download(Rules())
    assert (copies.here / "x").read_bytes() == b"bytes"
    assert os.listxattr(copies.here / "x") == []


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_comes_to_a_file_system_without_locks(
    copies: Copies, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    copies.store.put("x", b"bytes")
    copies.download(Rules())
    assert {path.name: path.read_bytes() for path in copies.here.iterdir()} == {"x": b"bytes"}
