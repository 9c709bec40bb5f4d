"""SQLite databases that several programs use at the same time, and that one of them leaves in the middle."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection, connect

import pytest
from mounts import Mount, Mounts

WRITERS, TRANSACTIONS = 3, 10
ROWS = 20  # of each transaction: all of them are there, or none

# Each transaction also counts its rows; connections come and go, and one stays open.
WRITER = """
import sqlite3, sys
path, writer, transactions, rows = sys.argv[1], *map(int, sys.argv[2:])
stays = sqlite3.connect(path, timeout=60, isolation_level=None)
for number in range(transactions):
    other = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection = (stays, other)[number % 2]
    connection.execute("begin immediate")
    connection.executemany("insert into rows values (?, ?, ?)",
        [(writer, number, "x" * 300) for _ in range(rows)])
    connection.execute("update total set count = count + ?", [rows])
    connection.execute("commit")
    other.close()
"""

# It spills pages into the database before it dies, so the journal is hot.
DYING = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("pragma cache_size = 5")
connection.execute("begin immediate")
connection.executemany("insert into rows values (9, 9, ?)", [("y" * 300,)] * 1000)
connection.execute("delete from total")
os._exit(7)
"""


@pytest.fixture(scope="module")
def shared_mount(shared_mounts: Mounts) -> Mount:
    """A mount of blocks so small that a database has several."""
    return shared_mounts("--block-size", "64KiB")


def create(path: Path, journal: str) -> None:
    with closing(connect(path)) as connection:
        assert connection.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
        connection.executescript(
            "create table rows (writer, number, filling); create index by_writer on rows (writer, number);"
        )
        connection.executescript("create table total (count); insert into total values (0);")


def counted(connection: Connection) -> int:
    """Return how many rows there are, which must be whole transactions, as many as were counted."""
    (found,) = connection.execute("select count(*) from rows").fetchone()
    partial = "select 1 from rows group by writer, number having count(*) != ?"
    assert connection.execute(partial, [ROWS]).fetchall() == []
    return int(found)


def assert_sound(path: Path, rows: int) -> None:
    with closing(connect(path, timeout=60)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert counted(connection) == rows
        assert connection.execute("select count from total").fetchone() == (rows,)


def run(program: str, *arguments: str | Path | int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)])


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite_loses_nothing_of_several_programs_and_everything_of_one_that_dies(
    directory: Path, remounted: Callable[[], Path], journal: str
) -> None:
    path = directory / "base.db"
    create(path, journal)
    writers = [run(WRITER, path, writer, TRANSACTIONS, ROWS) for writer in range(WRITERS)]
    with closing(connect(path, timeout=60)) as reader:
        seen = [0]
        while any(writer.poll() is None for writer in writers):
            seen.append(counted(reader))
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    assert seen == sorted(seen)
    rows = WRITERS * TRANSACTIONS * ROWS
    assert_sound(path, rows)
    assert run(DYING, path).wait() == 7
    assert_sound(path, rows)
    assert_sound(remounted() / "base.db", rows)


def test_connections_share_the_index_of_a_write_ahead_log_through_memory(directory: Path) -> None:
    path = directory / "base.db"
    create(path, "wal")
    with closing(connect(path, timeout=60)) as reader:
        assert counted(reader) == 0
        assert run(WRITER, path, 1, 1, ROWS).wait() == 0
        assert (directory / "base.db-wal").stat().st_size > 0
        assert (directory / "base.db-shm").stat().st_size > 0
        assert counted(reader) == ROWS
    assert not (directory / "base.db-shm").exists()
    assert_sound(path, ROWS)
