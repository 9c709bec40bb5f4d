import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import CALLER, FailingStore, Machine, MemoryStore, machine
from syscalls import BLOCK, BODY

from blobfs.blocks import KiB
from blobfs.content.streams import Stream
from blobfs.errors import AlreadyExists, Changed, NoSpace, TimedOut, Unavailable, Unsupported
from blobfs.filesystem.file_table import FileTable
from blobfs.filesystem.files import File, FileState
from blobfs.format.attributes import Attributes
from blobfs.store import ALWAYS, BlobInfo, BlobKind

ATTRIBUTES = Attributes(stat.S_IFREG | 0o640, CALLER.uid, CALLER.gid, 1, 2, 3)


def new(parts: Machine, name: str = "x", base: BlobInfo | None = None) -> File:
    return parts.file(name, 1, base, ATTRIBUTES)


def content(file: File) -> bytes:
    target = memoryview(bytearray(file.size_bytes))
    assert file.read_into(0, target, Stream()) == file.size_bytes
    return bytes(target)


def test_new_file_is_nowhere_before_its_commit(parts: Machine, memory: MemoryStore) -> None:
    file = new(parts)
    file.write(0, memoryview(b"bytes"))
    assert file.is_uncommitted
    assert content(file) == b"bytes"
    assert memory.bodies == {}
    assert file.commit()
    assert memory.bodies == {"x": b"bytes"}
    assert memory.head("x").metadata["permissions"] == str(ATTRIBUTES.mode)
    assert memory.head("x").headers.content_type == "test/made"


def test_second_commit_without_changes_sends_nothing(parts: Machine, memory: MemoryStore) -> None:
    file = new(parts)
    file.commit()
    memory.requests.clear()
    assert not file.commit()
    assert memory.requests == {}


def test_open_file_that_nobody_changes_is_read_without_a_writer(parts: Machine, memory: MemoryStore) -> None:
    file = new(parts, base=memory.put("x", BODY))
    assert not file.is_uncommitted
    assert content(file) == BODY
    assert not file.commit()
    assert set(memory.requests) == {"GET blob", "GET block list"}


def test_write_sets_the_times_and_they_travel_with_the_commit(parts: Machine, memory: MemoryStore) -> None:
    before_ns = time.time_ns()
    file = new(parts)
    file.write(0, memoryview(b"1"))
    file.commit()
    assert file.attributes.mtime_ns >= before_ns
    assert memory.head("x").metadata["modtime"] == str(file.attributes.mtime_ns)


def test_attributes_set_before_the_commit_cost_no_request(parts: Machine, memory: MemoryStore) -> None:
    file = new(parts)
    file.set_attributes(lambda old: old._replace(mtime_ns=17))
    file.commit()
    assert memory.requests == {"PUT blob": 1}
    assert memory.head("x").metadata["modtime"] == "17"


def test_attributes_set_after_the_commit_cost_one_request(parts: Machine, memory: MemoryStore) -> None:
    file = new(parts)
    file.commit()
    memory.requests.clear()
    file.set_attributes(lambda old: old._replace(mtime_ns=17))
    assert memory.requests == {"PUT metadata": 1}
    file.write(0, memoryview(b"more"))
    file.commit()
    assert memory.bodies == {"x": b"more"}


def test_attributes_without_room_are_refused_and_change_nothing(parts: Machine) -> None:
    file = new(parts)
    with pytest.raises(NoSpace):
        file.set_attributes(lambda old: old._replace(xattrs={"big": bytes(9000)}))
    file.commit()
    assert file.attributes == ATTRIBUTES


def test_metadata_and_headers_of_other_tools_survive_an_edit(parts: Machine, memory: MemoryStore) -> None:
    file = new(parts, base=memory.put("x", BODY, {"theirs": "kept"}))
    file.write(0, memoryview(b"!"))
    file.commit()
    assert memory.head("x").metadata["theirs"] == "kept"
    assert memory.head("x").headers == file.base.headers if file.base else False


def test_append_goes_to_the_end_wherever_that_is_by_then(parts: Machine) -> None:
    file = new(parts)
    for text in (b"one ", b"two ", b"three"):
        file.write(None, memoryview(text))
    assert content(file) == b"one two three"


@pytest.mark.parametrize("body", [b"small", BODY])
def test_lost_update_is_refused_and_refused_again(parts: Machine, memory: MemoryStore, body: bytes) -> None:
    file = new(parts, base=memory.put("x", body))
    file.write(0, memoryview(b"mine"))
    memory.put("x", b"theirs")
    for _ in range(2):
        with pytest.raises(Changed):
            file.commit()
    with pytest.raises(Changed):
        file.write(0, memoryview(b"more"))
    assert file.state is FileState.FAILED
    assert file.is_uncommitted
    assert memory.bodies == {"x": b"theirs"}


@pytest.mark.parametrize("body", [b"", b"bytes"])
def test_file_truncated_and_removed_elsewhere_is_lost_whatever_it_held(
    parts: Machine, memory: MemoryStore, body: bytes
) -> None:
    file = new(parts, base=memory.put("x", body))
    file.truncate(0)
    memory.delete("x", ALWAYS)
    for _ in range(2):
        with pytest.raises(Changed):
            file.commit()
    assert not memory.bodies


def test_name_taken_meanwhile_is_not_overwritten(parts: Machine, memory: MemoryStore) -> None:
    file = new(parts)
    file.write(0, memoryview(b"mine"))
    memory.put("x", b"theirs")
    for _ in range(2):
        with pytest.raises(AlreadyExists):
            file.commit()
    assert memory.bodies == {"x": b"theirs"}


def test_commit_that_failed_may_be_tried_again(
    parts: Machine, memory: MemoryStore, store: FailingStore
) -> None:
    file = new(parts)
    file.write(0, memoryview(b"bytes"))
    store.fail_call(0, Unavailable("no service"))
    with pytest.raises(Unavailable):
        file.commit()
    assert file.is_uncommitted
    assert file.commit()
    assert memory.bodies == {"x": b"bytes"}


def test_blob_of_another_kind_is_read_and_not_written(parts: Machine, memory: MemoryStore) -> None:
    memory.put("x", BODY)
    memory.set_kind("x", BlobKind.APPEND)
    file = new(parts, base=memory.head("x"))
    assert content(file) == BODY
    with pytest.raises(Unsupported, match="AppendBlob"):
        file.write(0, memoryview(b"!"))
    with pytest.raises(Unsupported):
        file.truncate(0)
    assert not file.is_uncommitted


def test_file_that_gets_other_metadata_while_it_is_read_is_read_on(
    parts: Machine, memory: MemoryStore, store: FailingStore
) -> None:
    file = new(parts, base=memory.put("x", BODY))
    changes = iter(range(3))

    def chmod(method: str) -> None:
        if method == "read_range" and next(changes, None) is not None:
            file.set_attributes(lambda old: old._replace(mode=old.mode ^ 0o040))

    store.on_call = chmod
    assert content(file) == BODY


def test_file_that_another_client_replaces_while_it_is_read_is_not_read_on(
    parts: Machine, memory: MemoryStore
) -> None:
    file = new(parts, base=memory.put("x", BODY))
    memory.put("x", BODY[::-1])
    with pytest.raises(Changed):
        content(file)


def test_unlinked_file_lives_on_for_its_handles(parts: Machine, memory: MemoryStore) -> None:
    file = new(parts, base=memory.put("x", BODY))
    file.unlink()
    memory.delete("x", ALWAYS)
    assert content(file) == BODY
    file.write(len(BODY), memoryview(b" and more"))
    file.set_attributes(lambda old: old._replace(mode=stat.S_IFREG | 0o600))
    assert content(file) == BODY + b" and more"
    assert not file.is_uncommitted
    assert not file.commit()
    assert memory.bodies == {}


def test_unlinked_file_whose_blocks_are_only_staged_keeps_its_bytes(memory: MemoryStore) -> None:
    with machine(memory, block_bytes=BLOCK, inline=True) as parts:
        file = new(parts)
        file.write(0, memoryview(BODY))
        file.release_memory()
        file.release_memory()
        file.unlink()
        memory.delete("x", ALWAYS)
        assert content(file) == BODY


def test_file_unlinked_while_memory_is_short_keeps_its_bytes(memory: MemoryStore) -> None:
    with machine(memory, block_bytes=BLOCK, inline=True, budget_bytes=64 * KiB * 3) as parts:
        base = memory.put("x", BODY)
        file = new(parts, base=base)
        parts.pool.add_reclaimer(lambda _size_bytes: file.release_memory())
        file.write(0, memoryview(b"!"))
        file.write(20, memoryview(b"!"))
        expected = content(file)
        file.unlink()
        memory.delete("x", ALWAYS)
        assert content(file) == expected
        assert memory.staged == {}


def test_file_moved_before_its_commit_costs_nothing(parts: Machine, memory: MemoryStore) -> None:
    file = new(parts, "temporary")
    file.write(0, memoryview(b"new"))
    old = memory.put("final", b"old")
    assert file.can_move_unsent()
    file.move_unsent("final", old.etag)
    file.commit()
    assert memory.bodies == {"final": b"new"}
    assert memory.requests == {"PUT blob": 1}


def test_blocks_staged_under_one_name_are_not_expected_under_another(memory: MemoryStore) -> None:
    with machine(memory, block_bytes=BLOCK, inline=True) as parts:
        file = new(parts, "temporary")
        file.write(0, memoryview(BODY[: 2 * BLOCK]))
        file.truncate(0)
        file.write(0, memoryview(b"!"))
        if file.can_move_unsent():
            file.move_unsent("final", "")
        file.write(0, memoryview(BODY[: 2 * BLOCK]))
        file.commit()
    assert list(memory.bodies.values()) == [BODY[: 2 * BLOCK]]


def test_many_files_written_at_once_stay_in_a_small_budget(memory: MemoryStore) -> None:
    body = bytes(range(256)) * (5 * KiB)
    table = FileTable()
    peaks = []

    def write(number: int) -> None:
        file = new(parts, f"{number}")
        table.add(file)
        for start in range(0, len(body), 100_000):
            file.write(start, memoryview(body)[start : start + 100_000])
            peaks.append(parts.pool.in_use_bytes)
        file.commit()
        table.remove(file)

    with machine(memory, block_bytes=128 * KiB, budget_bytes=2048 * KiB, fragment_bytes=64 * KiB) as parts:
        parts.pool.add_reclaimer(table.release_memory)
        with ThreadPoolExecutor(50) as threads:
            list(threads.map(write, range(50)))
        assert max(peaks) <= parts.pool.budget_bytes
    assert memory.requests["PUT block list"] == len(memory.bodies) == 50
    assert set(memory.bodies.values()) == {body}


def test_table_forgets_a_file_only_if_its_name_is_still_its_own(parts: Machine) -> None:
    table, first, second = FileTable(), new(parts), new(parts)
    table.add(first)
    table.add(second)
    table.remove(first)
    assert table.get("x") is second
    assert table.under("x") == [second]
    table.remove(second)
    assert list(table) == []


def test_table_keeps_a_file_that_was_written_again_while_it_was_committed(parts: Machine) -> None:
    table, file = FileTable(), new(parts)
    table.enter(file)
    file.write(0, memoryview(b"first"))
    file.commit()
    file.write(0, memoryview(b"again"))
    table.leave(file)
    table.forget_committed(file)  # by who committed it, and is late
    assert table.get("x") is file
    file.commit()
    table.forget_committed(file)
    assert table.get("x") is file  # nobody else knows what became of it
    file.unnoted_commit = None
    table.forget_committed(file)
    assert list(table) == []


@pytest.mark.parametrize("size_bytes", [BLOCK, len(BODY)])
def test_commit_without_a_reply_is_ours_when_it_is_tried_again(
    parts: Machine, store: FailingStore, memory: MemoryStore, size_bytes: int
) -> None:
    file = new(parts, base=memory.put("x", b"old"))
    file.truncate(0)
    file.write(0, memoryview(BODY[:size_bytes]))
    commit = "put_blob" if size_bytes <= BLOCK else "commit_blocks"
    store.fail_method(commit, TimedOut("no reply"), carried_out=True)
    with pytest.raises(TimedOut):
        file.commit()
    assert store.calls[-1] == commit
    store.heal()
    file.write(0, memoryview(b"#"))
    assert file.commit()
    assert memory.bodies["x"] == b"#" + BODY[1:size_bytes]


def test_commit_without_a_reply_does_not_hide_somebody_elses(
    parts: Machine, store: FailingStore, memory: MemoryStore
) -> None:
    file = new(parts, base=memory.put("x", b"old"))
    file.write(0, memoryview(b"new"))
    store.fail_call(0, TimedOut("no reply"))
    with pytest.raises(TimedOut):
        file.commit()
    store.heal()
    memory.put("x", b"theirs")
    with pytest.raises(Changed):
        file.commit()
    assert memory.bodies["x"] == b"theirs"
