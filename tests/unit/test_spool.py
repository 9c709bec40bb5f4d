"""Files whose mount is gone: what their journals make of them. A crash is a file that nobody closes."""

import errno
import fcntl
import gc
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fakes import CALLER, FailingStore, Machine, MemoryStore, machine
from hypothesis import given, settings
from hypothesis import strategies as st

from blobfs.content.streams import Stream
from blobfs.errors import (
    AccessDenied,
    AlreadyExists,
    Changed,
    Damaged,
    InvalidArgument,
    NoSpace,
    TimedOut,
    Unavailable,
)
from blobfs.filesystem.files import File
from blobfs.format.attributes import Attributes
from blobfs.spool.directory import Spool, directories_of, leftovers_in
from blobfs.spool.files import NEW_FILES, JournalFile
from blobfs.spool.leftovers import Leftover, State
from blobfs.spool.records import records_in
from blobfs.spool.recovery import Recovery
from blobfs.store import BlobInfo, ContentHeaders

BLOCK = 1024
ATTRIBUTES = Attributes(stat.S_IFREG | 0o640, CALLER.uid, CALLER.gid, 1, 2, 3)
BODY = os.urandom(10 * BLOCK)


class Machines:
    """One service, and on this side a spool with mounts and recoveries that come and go."""

    def __init__(self, directory: Path, *, inline: bool = False) -> None:
        self.memory = MemoryStore()
        self.store = FailingStore(self.memory)
        self.directory = directory / "spool"
        self._stack = ExitStack()
        self.parts: Machine = self._stack.enter_context(machine(self.store, block_bytes=BLOCK, inline=inline))
        self.spool = Spool(self.directory, "account", "container", "")

    def close(self) -> None:
        self.spool.close()
        self._stack.close()

    def file(self, name: str = "x", base: BlobInfo | None = None) -> File:
        return File(
            name,
            1,
            base,
            ATTRIBUTES,
            store=self.parts.store,
            reader=self.parts.reader,
            make_writer=self.parts.writer,
            guess_headers=lambda _: ContentHeaders("test/made"),
            make_journal=self.spool.journal,
        )

    def recovery(self) -> Recovery:
        parts = self.parts
        return Recovery(parts.store, make_writer=parts.writer, reader=parts.reader, pool=parts.pool)

    def leftover(self) -> Leftover:
        (leftover,) = self.spool.leftovers()
        return leftover

    def journals(self) -> list[Path]:
        """Return those with anything in them; empty ones are kept to be used again."""
        return sorted(path for path in self.directory.rglob("*.journal") if path.stat().st_size)


@pytest.fixture
def crash(tmp_path: Path) -> Iterator[Machines]:
    machines = Machines(tmp_path)
    yield machines
    machines.close()


def crashed(file: File) -> None:
    """Leave the file as kill -9 does."""
    file.leave_journal()


@contextmanager
def no_collection() -> Iterator[None]:
    """Have Python free only what nothing refers to."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the spool's disk take no record whole."""

    def full(descriptor: int, buffers: list[memoryview], position: int) -> int:
        os.pwrite(descriptor, buffers[0][:10], position)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", full)
        yield


def failing(number: int) -> Callable[..., None]:
    """Return a system call that fails."""

    def call(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def write(file: File, offset: int | None, data: bytes) -> None:
    file.write(offset, memoryview(data))


def stage(crash: Machines, file: File) -> None:
    """Have the service hold the file's blocks, and not commit them."""
    crash.store.fail_method("commit_blocks", Unavailable("x"))
    with pytest.raises(Unavailable):
        file.commit()
    crash.store.heal()


def content(file: File) -> bytes:
    target = bytearray(file.size_bytes)
    assert file.read_into(0, memoryview(target), Stream()) == file.size_bytes
    return bytes(target)


# The life of a journal…


def test_a_committed_file_has_no_journal(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, BODY)
    assert len(crash.journals()) == 1
    file.commit()
    assert crash.journals() == []
    write(file, 0, b"more")
    assert len(crash.journals()) == 1
    file.unlink()
    write(file, 0, b"of no interest")
    assert crash.journals() == []


def test_a_request_to_commit_that_says_nothing_new_is_not_written_again(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, BODY)
    assert file.request_commit()
    size_bytes = crash.journals()[0].stat().st_size
    assert file.request_commit()
    assert crash.journals()[0].stat().st_size == size_bytes
    write(file, 0, BODY)
    assert file.request_commit()
    assert crash.journals()[0].stat().st_size > size_bytes + len(BODY)


def test_disk_is_waited_for_after_edits_and_a_new_name_and_not_for_metadata(
    crash: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fdatasync", synced.append)
    file = crash.file()

    def waits() -> bool:
        synced.clear()
        assert file.request_commit()
        return bool(synced)

    write(file, 0, BODY)
    assert waits()
    file.set_attributes(lambda attributes: attributes._replace(mode=stat.S_IFREG | 0o600))
    assert not waits()
    file.move_unsent("y", "")
    assert waits()
    file.truncate(1)
    assert waits()
    crashed(file)
    assert crash.leftover().name == "y"


def test_journals_are_used_again(crash: Machines) -> None:
    for number in range(2 * NEW_FILES):
        file = crash.file(str(number))
        write(file, 0, BODY)
        file.commit()
    assert len(list(crash.directory.rglob("*.journal"))) == NEW_FILES
    crash.spool.close()
    assert list(crash.directory.rglob("*.journal")) == []


def test_a_file_that_is_open_is_no_leftover(crash: Machines) -> None:
    write(crash.file(), 0, BODY)
    assert list(crash.spool.leftovers()) == []


def test_journals_are_private(crash: Machines) -> None:
    write(crash.file(), 0, BODY)
    (journal,) = crash.journals()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (crash.directory, journal.parent, journal)] == [
        0o700,
        0o700,
        0o600,
    ]


def test_a_file_that_was_never_closed_is_offered_and_not_committed(crash: Machines, tmp_path: Path) -> None:
    file = crash.file()
    write(file, 0, BODY)
    crashed(file)
    leftover = crash.leftover()
    assert leftover.state is State.NEVER_CLOSED
    assert crash.recovery().save(leftover, tmp_path / "x") == []
    assert (tmp_path / "x").read_bytes() == BODY
    assert crash.memory.bodies == {}
    crash.recovery().commit_named(leftover)
    assert crash.memory.bodies == {"x": BODY}
    assert crash.journals() == []


def test_blocks_that_the_service_still_holds_are_not_sent_again(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, BODY)
    stage(crash, file)
    crashed(file)
    crash.memory.requests.clear()
    crash.recovery().commit(crash.leftover())
    assert crash.memory.bodies == {"x": BODY}
    assert crash.memory.requests["PUT block list"] == 1
    assert "PUT block" not in crash.memory.requests


def test_blocks_that_have_gone_meanwhile_are_sent_again(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, BODY)
    stage(crash, file)
    crashed(file)
    crash.memory.requests.clear()
    crash.store.fail_call(3, Changed("staged blocks are gone"))
    crash.recovery().commit(crash.leftover())
    assert crash.store.calls[:4] == ["head", "head", "uncommitted_ids", "commit_blocks"]
    assert crash.memory.requests["PUT block"] == 10
    assert crash.memory.bodies == {"x": BODY}


def test_attributes_and_content_type_are_those_of_the_commit(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, b"1")
    file.set_attributes(lambda old: old._replace(mtime_ns=17, xattrs={"a": b"b"}))
    file.request_commit()
    crashed(file)
    info = crash.recovery().commit(crash.leftover())
    assert (info.metadata["modtime"], info.headers.content_type) == ("17", "test/made")
    assert info.metadata["permissions"] == str(ATTRIBUTES.mode)


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_time_that_was_set_is_kept_by_a_commit_on_command(crash: Machines, is_closed: bool) -> None:
    file = crash.file()
    write(file, 0, b"1")
    if is_closed:
        file.request_commit()
    file.set_attributes(lambda old: old._replace(mtime_ns=17))
    crashed(file)
    info = crash.recovery().commit_named(crash.leftover())
    assert info.metadata["modtime"] == "17"


def test_edits_that_were_never_closed_have_the_time_of_the_last_record(crash: Machines) -> None:
    file = crash.file()
    file.set_attributes(lambda old: old._replace(mtime_ns=17))
    file.request_commit()
    write(file, 0, b"1")
    crashed(file)
    leftover = crash.leftover()
    info = crash.recovery().commit_named(leftover)
    assert info.metadata["modtime"] == info.metadata["posix_ctime"] == str(leftover.modified_ns)


def test_a_commit_of_the_closed_part_is_not_taken_for_one_of_all_of_it(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, b"closed")
    file.request_commit()
    write(file, None, b" and more")
    file.set_attributes(lambda old: old._replace(mtime_ns=17))
    crashed(file)
    crash.store.fail_commits(TimedOut("x"), carried_out=True)
    leftover = crash.leftover()
    with closing(leftover), pytest.raises(TimedOut):
        crash.recovery().commit(leftover)
    crash.store.heal()
    assert crash.memory.bodies == {"x": b"closed"}
    info = crash.recovery().commit_named(crash.leftover())
    assert crash.memory.bodies == {"x": b"closed and more"}
    assert info.metadata["modtime"] == "17"


def test_a_commit_that_was_carried_out_is_not_repeated(crash: Machines) -> None:
    file = crash.file(base=crash.memory.put("x", BODY))
    write(file, 5, b"new")
    crash.store.fail_commits(TimedOut("x"), carried_out=True)
    with pytest.raises(TimedOut):
        file.commit()
    crash.store.heal()
    crashed(file)
    etag = crash.memory.head("x").etag
    assert crash.recovery().commit(crash.leftover()).etag == etag
    assert crash.memory.head("x").etag == etag
    assert crash.journals() == []


@pytest.mark.parametrize("is_carried_out", [True, False])
def test_what_came_after_the_last_close_stays_a_leftover(crash: Machines, is_carried_out: bool) -> None:
    file = crash.file(base=crash.memory.put("x", BODY))
    write(file, 0, b"closed")
    crash.store.fail_commits(Unavailable("x"), carried_out=is_carried_out)
    with pytest.raises(Unavailable):
        file.commit()
    crash.store.heal()
    write(file, None, b"not closed")
    crashed(file)
    crash.recovery().commit(crash.leftover())
    assert crash.memory.bodies["x"] == b"closed" + BODY[6:]
    leftover = crash.leftover()
    assert leftover.state is State.NEVER_CLOSED
    crash.recovery().commit_named(leftover)
    assert crash.memory.bodies["x"] == b"closed" + BODY[6:] + b"not closed"


@pytest.mark.parametrize("is_time_set", [True, False])
def test_what_stays_a_leftover_keeps_its_times(crash: Machines, is_time_set: bool) -> None:
    file = crash.file()
    write(file, 0, b"closed")
    file.request_commit()
    write(file, None, b" and more")
    if is_time_set:
        file.set_attributes(lambda old: old._replace(mtime_ns=17))
    crashed(file)
    os.utime(crash.journals()[0], ns=(99, 99))
    crash.recovery().commit(crash.leftover())
    info = crash.recovery().commit_named(crash.leftover())
    assert crash.memory.bodies == {"x": b"closed and more"}
    assert (info.metadata["modtime"], info.metadata["posix_ctime"]) == ("17" if is_time_set else "99", "99")


def test_edits_that_were_never_closed_are_told_from_what_was(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, b"closed")
    file.request_commit()
    file.set_attributes(lambda old: old._replace(mtime_ns=17))
    crashed(file)
    leftover = crash.leftover()
    assert (leftover.state, leftover.has_unclosed_edits) == (State.TO_COMMIT, False)
    leftover.discard()
    write(file := crash.file(), 0, b"closed")
    file.request_commit()
    file.truncate(3)
    crashed(file)
    leftover = crash.leftover()
    assert (leftover.state, leftover.has_unclosed_edits) == (State.TO_COMMIT, True)
    crash.recovery().commit_named(leftover)
    assert (crash.memory.bodies, leftover.has_unclosed_edits) == ({"x": b"clo"}, False)


# What is staged and no longer in memory…


def test_a_closed_file_can_be_read_while_the_service_refuses_its_commit(crash: Machines) -> None:
    file = crash.file(base=crash.memory.put("x", b"old"))
    file.truncate(0)
    write(file, 0, BODY)
    crash.store.fail_method("commit_blocks", AccessDenied("x"))
    with pytest.raises(AccessDenied):
        file.commit()
    crash.store.calls.clear()
    assert content(file) == BODY
    assert crash.store.calls == []


def test_a_block_is_edited_again_without_a_commit_between(crash: Machines) -> None:
    file = crash.file(base=crash.memory.put("x", BODY))
    write(file, 3 * BLOCK, b"first")
    stage(crash, file)
    write(file, 3 * BLOCK + 3, b"second")
    assert crash.memory.bodies == {"x": BODY}
    file.commit()
    edited = bytearray(BODY)
    edited[3 * BLOCK : 3 * BLOCK + 9] = b"firsecond"
    assert crash.memory.bodies == {"x": bytes(edited)}


def test_a_journal_is_read_once_however_often_bytes_are_read_back(
    crash: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        "blobfs.spool.journal.records_in", lambda read_at: read.append("") or records_in(read_at)
    )
    file, expected = crash.file(), bytearray(BODY)
    write(file, 0, BODY)
    for number in range(6):
        stage(crash, file)
        file.release_memory()
        write(file, number * BLOCK + 9, b"edited")
        expected[number * BLOCK + 9 : number * BLOCK + 15] = b"edited"
        assert content(file) == expected
    assert read == [""]


def test_staged_blocks_that_have_gone_are_sent_again(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, BODY)
    stage(crash, file)
    crash.memory.drop_staged("x")
    file.commit()
    assert crash.memory.bodies == {"x": BODY}


def test_staged_blocks_that_somebody_replaced_are_a_conflict(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, BODY)
    stage(crash, file)
    crash.memory.put("x", b"theirs")
    with pytest.raises(AlreadyExists):
        file.commit()
    assert crash.memory.bodies == {"x": b"theirs"}
    assert crash.leftover().state is State.CONFLICT


def test_a_journal_that_is_damaged_is_not_read_back(
    crash: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    file = crash.file()
    write(file, 0, BODY)
    crash.store.fail_method("commit_blocks", Unavailable("x"))
    with pytest.raises(Unavailable):
        file.commit()
    file.release_memory()
    (journal,) = crash.journals()
    with journal.open("r+b") as damaged:
        damaged.seek(5 * BLOCK)
        damaged.write(b"flipped")
    with pytest.raises(Unavailable):
        content(file)
    assert "cannot be read back" in caplog.text
    crash.store.heal()
    assert content(file) == BODY


def test_a_file_that_nobody_needs_gives_its_memory_back_at_once(tmp_path: Path) -> None:
    with closing(Machines(tmp_path, inline=True)) as crash, no_collection():
        file = crash.file()
        write(file, 0, BODY)
        assert crash.parts.pool.in_use_bytes > 0
        del file
        assert crash.parts.pool.in_use_bytes == 0


# Names…


def test_a_renamed_file_is_committed_under_its_new_name(crash: Machines) -> None:
    old = crash.memory.put("y", b"replaced")
    file = crash.file()
    write(file, 0, b"new")
    file.request_commit()
    file.move_unsent("y", old.etag)
    crashed(file)
    crash.recovery().commit(crash.leftover())
    assert crash.memory.bodies == {"y": b"new"}


def test_a_file_whose_blob_got_a_new_name_is_committed_there(crash: Machines) -> None:
    file = crash.file(base=crash.memory.put("x", BODY))
    write(file, 2, b"new")
    file.rebase(crash.memory.put("y", BODY), ATTRIBUTES)
    file.request_commit()
    crashed(file)
    crash.recovery().commit(crash.leftover())
    assert crash.memory.bodies["y"] == BODY[:2] + b"new" + BODY[5:]


# Conflicts…


def test_a_newer_version_by_somebody_else_is_kept_and_so_is_ours(crash: Machines, tmp_path: Path) -> None:
    file = crash.file(base=crash.memory.put("x", BODY))
    write(file, 2000, b"ours")
    file.request_commit()
    crashed(file)
    crash.memory.put("x", b"theirs")
    leftover = crash.leftover()
    with pytest.raises(Changed):
        crash.recovery().commit(leftover)
    assert crash.memory.bodies == {"x": b"theirs"}
    assert leftover.state is State.CONFLICT
    leftover.close()
    leftover = crash.leftover()
    assert leftover.state is State.CONFLICT
    assert crash.recovery().save(leftover, tmp_path / "x") == [(0, 2000), (2004, len(BODY))]
    assert (tmp_path / "x").read_bytes() == bytes(2000) + b"ours" + bytes(len(BODY) - 2004)


def test_a_new_file_does_not_replace_one_that_somebody_else_made(crash: Machines) -> None:
    file = crash.file()
    write(file, 0, b"ours")
    file.request_commit()
    crashed(file)
    crash.memory.put("x", b"theirs")
    with pytest.raises(Changed):
        crash.recovery().commit(crash.leftover())
    assert crash.memory.bodies == {"x": b"theirs"}


def test_the_loser_of_a_race_leaves_a_conflict(crash: Machines, caplog: pytest.LogCaptureFixture) -> None:
    file = crash.file(base=crash.memory.put("x", BODY))
    write(file, 0, b"ours")
    crash.memory.put("x", b"theirs")
    with pytest.raises(Changed):
        file.commit()
    assert "blobfs recover account container --spool-dir" in caplog.text
    assert crash.leftover().state is State.CONFLICT


# Trouble…


def test_a_damaged_journal_is_saved_up_to_the_damage_and_never_committed(
    crash: Machines, tmp_path: Path
) -> None:
    file = crash.file()
    write(file, 0, b"first")
    write(file, None, b"second")
    file.request_commit()
    crashed(file)
    (journal,) = crash.journals()
    journal.write_bytes(journal.read_bytes().replace(b"second", b"sEcond"))
    leftover = crash.leftover()
    assert leftover.state is State.DAMAGED
    with pytest.raises(Exception, match="checksum"):
        crash.recovery().commit_named(leftover)
    crash.recovery().save(leftover, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"first"


def torn_behind_a_close(crash: Machines, *, closes_again: bool) -> Leftover:
    """Leave a file that was closed, and edits after that of which the disk has lost a page."""
    file = crash.file()
    write(file, 0, b"closed")
    assert file.request_commit()
    write(file, None, b" and more")
    write(file, 0, BODY)
    if closes_again:
        assert file.request_commit()
    crashed(file)
    (journal,) = crash.journals()
    page = BODY[BLOCK : 2 * BLOCK]
    journal.write_bytes(journal.read_bytes().replace(page, bytes(BLOCK)))
    return crash.leftover()


def test_edits_that_a_dying_machine_has_torn_do_not_keep_what_was_closed_before(crash: Machines) -> None:
    leftover = torn_behind_a_close(crash, closes_again=False)
    assert leftover.state is State.TO_COMMIT
    assert "do not match their checksum" in leftover.lost_edits
    with closing(leftover):
        crash.recovery().commit(leftover)
    assert crash.memory.bodies == {"x": b"closed"}
    rest = crash.leftover()
    assert rest.state is State.NEVER_CLOSED
    crash.recovery().commit_named(rest)
    assert crash.memory.bodies == {"x": b"closed and more"}


def test_a_journal_damaged_in_front_of_a_close_is_never_committed(crash: Machines) -> None:
    leftover = torn_behind_a_close(crash, closes_again=True)
    assert leftover.state is State.DAMAGED
    with pytest.raises(Damaged):
        crash.recovery().commit_named(leftover)


def test_a_file_that_cannot_be_saved_whole_is_not_there(
    crash: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = crash.file()
    write(file, 0, BODY)
    crashed(file)
    leftover = crash.leftover()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            crash.recovery().save(leftover, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    crash.recovery().save(leftover, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY


def test_a_directory_that_cannot_be_synced_keeps_no_journals(
    crash: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EDQUOT))
        for _ in range(3):
            with pytest.raises(NoSpace, match="quota"):
                write(crash.file(), 0, BODY)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(crash.directory.rglob("*.journal")) == []


def test_a_disk_without_locks_is_no_place_for_a_spool(
    crash: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOSYS))
    with pytest.raises(NoSpace, match="no journal can be locked: Function not implemented"):
        write(crash.file(), 0, BODY)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(crash.directory.rglob("*.journal")) == []


def test_a_full_spool_refuses_the_write_and_keeps_what_it_has(
    crash: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = crash.file()
    write(file, 0, b"kept")
    with full_disk(monkeypatch):
        with pytest.raises(NoSpace):
            write(file, None, b"refused")
        file.request_commit()
    crashed(file)
    leftover = crash.leftover()
    assert leftover.state is State.NEVER_CLOSED
    crash.recovery().commit_named(leftover)
    assert crash.memory.bodies == {"x": b"kept"}


def test_a_full_spool_keeps_a_closed_file_whose_attributes_it_cannot_note(
    crash: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = crash.file()
    write(file, 0, b"closed")
    assert file.request_commit()
    with full_disk(monkeypatch):
        file.set_attributes(lambda old: old._replace(mode=stat.S_IFREG | 0o600))
        assert not file.request_commit()
    write(file, None, b" and more")
    assert file.request_commit()
    crashed(file)
    info = crash.recovery().commit(crash.leftover())
    assert crash.memory.bodies == {"x": b"closed and more"}
    assert info.metadata["permissions"] == str(stat.S_IFREG | 0o600)


def test_a_full_spool_keeps_a_closed_file_under_the_name_that_it_has_noted(
    crash: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = crash.file()
    write(file, 0, b"closed")
    assert file.request_commit()
    with full_disk(monkeypatch):
        file.move_unsent("y", "")
    assert not file.request_commit()
    write(file, 0, b"of the new name")
    crashed(file)
    crash.recovery().commit(crash.leftover())
    assert crash.memory.bodies == {"x": b"closed"}


def test_a_file_renamed_while_the_spool_was_full_leaves_nothing_once_it_is_committed(
    crash: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = crash.file()
    write(file, 0, b"closed")
    file.request_commit()
    with full_disk(monkeypatch):
        file.move_unsent("y", "")
    file.commit()
    assert (crash.memory.bodies, crash.journals()) == ({"y": b"closed"}, [])
    write(file, 0, b"edited")
    assert file.request_commit()
    crashed(file)
    crash.recovery().commit(crash.leftover())
    assert crash.memory.bodies == {"y": b"edited"}


def test_a_write_that_failed_leaves_no_note(crash: Machines) -> None:
    file = crash.file(base=crash.memory.put("x", BODY))
    crash.store.fail_method("committed_blocks", Unavailable("x"))
    with pytest.raises(Unavailable):
        write(file, 0, b"refused")
    assert crash.journals() == []


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_spool_that_others_could_read_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(InvalidArgument, match="chmod 700"):
        Spool(tmp_path, "account", "container", "")


def test_a_spool_of_somebody_else_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 65533, 65533)
    with pytest.raises(InvalidArgument, match="belongs to another user"):
        Spool(tmp_path, "account", "container", "")


def test_a_spool_without_a_parent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No such file"):
        Spool(tmp_path / "missing" / "spool", "account", "container", "")


def test_leftovers_are_looked_for_only_where_there_is_a_spool(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No such file"):
        directories_of(tmp_path / "spol", "account", "container")


def test_each_part_of_a_container_has_its_own_journals(tmp_path: Path) -> None:
    spool_dir = tmp_path / "spool"
    for container, prefix in [("container", ""), ("container", "a/"), ("container-2", "")]:
        Spool(spool_dir, "account", container, prefix)
    assert len(directories_of(spool_dir, "account", "container")) == 2
    assert list(leftovers_in(directories_of(spool_dir, "account", "other"))) == []


def test_a_journal_that_somebody_removes_meanwhile_is_not_taken(tmp_path: Path) -> None:
    assert JournalFile.take(tmp_path / "gone") is None


# Any history…


class History:
    """A file, what it must be, and what it was when somebody last counted on it."""

    def __init__(self, crash: Machines, body: bytes | None) -> None:
        self._crash = crash
        self._file = crash.file(base=None if body is None else crash.memory.put("x", body))
        self.content = bytearray(body or b"")
        self.requested: bytes | None = None
        self._is_doubtful = False  # a commit was done without a reply: until the next, bytes cannot be had

    def write(self, offset: int, data: bytes) -> None:
        if self._is_doubtful:
            return
        with self._committing_nothing():
            write(self._file, offset, data)
        self.content = self.content.ljust(offset, b"\0")
        self.content[offset : offset + len(data)] = data

    def truncate(self, size_bytes: int) -> None:
        if self._is_doubtful:
            return
        with self._committing_nothing():
            self._file.truncate(size_bytes)
        self.content = self.content[:size_bytes].ljust(size_bytes, b"\0")

    def release_memory(self) -> None:
        for _ in range(2):
            self._file.release_memory()

    def read(self) -> None:
        if self._is_doubtful:
            return
        with self._committing_nothing():
            assert content(self._file) == self.content

    @contextmanager
    def _committing_nothing(self) -> Iterator[None]:
        """What has left memory is in the journal: nobody sees half a change."""
        before = self._crash.memory.bodies.get("x")
        yield
        assert self._crash.memory.bodies.get("x") == before

    def commit(self) -> None:
        self._file.commit()
        self._is_doubtful = False
        self.requested = bytes(self.content)

    def fail_to_commit(self, is_carried_out: bool) -> None:
        if self._file.is_uncommitted:
            self.requested = bytes(self.content)
            self._is_doubtful = is_carried_out
            self._crash.store.fail_commits(TimedOut("x"), carried_out=is_carried_out)
            with suppress(TimedOut):  # not raised if only the times were changed: that is no write
                self._file.commit()
            self._crash.store.heal()

    def crash(self) -> None:
        crashed(self._file)


sizes = st.integers(0, 6 * BLOCK)
steps = (
    st.tuples(st.just("write"), sizes, st.binary(min_size=1, max_size=9).map(lambda data: data * 300))
    | st.tuples(st.just("truncate"), sizes)
    | st.tuples(st.sampled_from(("commit", "release_memory", "read")))
    | st.tuples(st.just("fail_to_commit"), st.booleans())
)


@settings(max_examples=100)
@given(st.none() | sizes, st.lists(steps, min_size=1, max_size=8))
def test_whatever_was_done_the_crash_gives_it_back(
    tmp_path_factory: pytest.TempPathFactory, base_bytes: int | None, history: list[tuple[Any, ...]]
) -> None:
    crash = Machines(tmp_path_factory.mktemp("crash"))
    with closing(crash):
        file = History(crash, None if base_bytes is None else BODY[:base_bytes])
        for method, *arguments in history:
            getattr(file, method)(*arguments)
        file.read()
        file.crash()
        for leftover in crash.spool.leftovers():
            with closing(leftover):
                if leftover.state is State.TO_COMMIT:
                    crash.recovery().commit(leftover)
        if file.requested is not None:
            assert crash.memory.bodies["x"] == file.requested
        for leftover in crash.spool.leftovers():
            crash.recovery().commit_named(leftover)
        assert crash.memory.bodies.get("x", b"") == file.content
        assert crash.journals() == []
