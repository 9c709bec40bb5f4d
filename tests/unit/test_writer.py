import base64
import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import FailingStore, Machine, MemoryStore, machine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from syscalls import BLOCK

from blobfs.blocks import KiB, digest_of
from blobfs.content.draft import OnlyStaged
from blobfs.content.memory import SMALLEST_BYTES
from blobfs.content.staging import BLOCKS_IN_FLIGHT
from blobfs.content.streams import Stream
from blobfs.content.writer import BlobWriter
from blobfs.errors import AlreadyExists, Changed, OtherIdLength, TooLarge, Unavailable
from blobfs.store import (
    ALWAYS,
    IF_ABSENT,
    BlobInfo,
    BlobStore,
    CommittedBlock,
    Condition,
    ContentHeaders,
    Properties,
)

Step = Callable[[BlobWriter], None]

PROPERTIES = Properties({"modtime": "7"}, ContentHeaders("test/made"))


def text(length: int) -> bytes:
    """Return bytes of which no two blocks are equal."""
    return b"".join(b"%04d" % number for number in range(-(-length // 4)))[:length]


def put_blocks(
    store: BlobStore,
    name: str,
    bodies: Sequence[bytes],
    id_bytes: int = 52,
    properties: Properties = PROPERTIES,
) -> BlobInfo:
    """Write a blob of these blocks as a tool does whose ids are so long."""
    ids = []
    for number, body in enumerate(bodies):
        ids.append(base64.b64encode(b"%0*d" % (id_bytes, number)).decode())
        store.stage_block(name, ids[-1], body, digest_of(body).md5)
    return store.commit_blocks(name, ids, properties, ALWAYS, sum(map(len, bodies)))


def raw_id(block: CommittedBlock) -> bytes:
    return base64.b64decode(block.block_id)


class CountingStore(FailingStore):
    """Counts the bytes of the blocks and blobs that it is sent."""

    def __init__(self, memory: MemoryStore) -> None:
        super().__init__(memory)
        self._memory = memory
        self.sent_bytes = 0

    def stage_block(self, name: str, block_id: str, body: memoryview, md5: bytes) -> None:
        self.sent_bytes += len(body)
        self._memory.stage_block(name, block_id, body, md5)

    def put_blob(self, name: str, body: memoryview, properties: Properties, condition: Condition) -> BlobInfo:
        self.sent_bytes += len(body)
        return self._memory.put_blob(name, body, properties, condition)


def put_ours(parts: Machine, name: str, body: bytes) -> BlobInfo:
    writer = parts.writer(name)
    writer.write(0, memoryview(body))
    return writer.commit(PROPERTIES, IF_ABSENT)


def content(writer: BlobWriter) -> bytes:
    target = memoryview(bytearray(writer.size_bytes))
    assert writer.read_into(0, target, Stream()) == writer.size_bytes
    return bytes(target)


def onto(info: BlobInfo | None) -> Condition:
    return Condition(if_match=info.etag) if info else IF_ABSENT


class WriterMachine(RuleBasedStateMachine):
    """Any changes of any blob, with commits and losses of memory in between, beside a bytearray."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.store = MemoryStore()
        self.parts = self.stack.enter_context(machine(self.store, block_bytes=BLOCK, inline=True))

    def teardown(self) -> None:
        self.stack.close()

    @initialize(
        sizes=st.lists(st.integers(1, 45), max_size=5),
        id_bytes=st.sampled_from([0, 4, 48, 52]),
        copies_ranges=st.booleans(),
        left_id_bytes=st.sampled_from([0, 0, 9]),
    )
    def open(self, sizes: list[int], id_bytes: int, copies_ranges: bool, left_id_bytes: int) -> None:
        """Start from nothing, one Put Blob, or blocks with ids of some length; perhaps with leftovers."""
        self.store.copies_ranges = copies_ranges
        bodies = [text(sum(sizes))[sum(sizes[:i]) :][:size] for i, size in enumerate(sizes)]
        self.base: BlobInfo | None = None
        if sizes and id_bytes:
            self.base = put_blocks(self.store, "x", bodies, id_bytes)
        elif sizes:
            self.base = self.store.put("x", b"".join(bodies), PROPERTIES.metadata)
        if left_id_bytes:
            leave_unfinished(self.store, left_id_bytes)
        self.expected = bytearray(b"".join(bodies))
        self.writer = self.parts.writer("x", self.base)

    @rule(offset=st.integers(0, 120), data=st.binary(min_size=1, max_size=40))
    def write(self, offset: int, data: bytes) -> None:
        self.with_bytes(lambda: self.writer.write(offset, memoryview(data)))
        self.expected.extend(bytes(max(0, offset - len(self.expected))))
        self.expected[offset : offset + len(data)] = data

    @rule(data=st.binary(min_size=1, max_size=40))
    def append(self, data: bytes) -> None:
        self.write(len(self.expected), data)

    @rule(data=st.binary(min_size=1, max_size=40))
    def write_again_from_the_start(self, data: bytes) -> None:
        self.truncate(0)
        self.write(0, data)

    @rule(size=st.integers(0, 200))
    def truncate(self, size: int) -> None:
        self.with_bytes(lambda: self.writer.truncate(size))
        self.expected.extend(bytes(max(0, size - len(self.expected))))
        del self.expected[size:]

    @rule(offset=st.integers(0, 200), length=st.integers(1, 60))
    def read(self, offset: int, length: int) -> None:
        target = memoryview(bytearray(length))
        count = self.with_bytes(lambda: self.writer.read_into(offset, target, Stream()))
        assert bytes(target[:count]) == self.expected[offset : offset + length]

    @rule(times=st.integers(1, 3))
    def lose_memory(self, times: int) -> None:
        for _ in range(times):
            self.writer.release_memory()

    @rule()
    def commit(self) -> None:
        self.base = self.writer.commit(PROPERTIES, onto(self.base))
        assert self.store.bodies["x"] == self.expected
        found = self.store.head("x")
        assert found == self.base
        assert found.metadata == PROPERTIES.metadata
        assert found.headers == PROPERTIES.headers
        assert found.content_md5 in (None, hashlib.md5(self.expected).digest())
        assert not self.store.staged

    @rule()
    def reopen(self) -> None:
        if self.base is not None:
            self.commit()
            self.writer = self.parts.writer("x", self.base)

    @rule()
    def change_metadata(self) -> None:
        if self.base is not None and not self.writer.is_changed:
            self.store.set_metadata(self.base.version, PROPERTIES.metadata)
            self.base = self.store.head("x")
            self.writer.rebase(self.base)

    @invariant()
    def size_is_right(self) -> None:
        if hasattr(self, "writer"):
            assert self.writer.size_bytes == len(self.expected)

    def with_bytes(self, action: Callable[[], object]) -> object:
        try:
            return action()
        except OnlyStaged:
            self.base = self.writer.commit(PROPERTIES, onto(self.base))
            return action()


TestAnyChanges = WriterMachine.TestCase
TestAnyChanges.settings = settings(max_examples=150, stateful_step_count=30)


# What is sent


class AzuriteLike(MemoryStore):
    """Takes uncommitted blocks for a blob when it is to put a new one."""

    def put_blob(
        self, name: str, body: memoryview | bytes, properties: Properties, condition: Condition
    ) -> BlobInfo:
        if condition.if_absent and self.staged.get(name):
            raise AlreadyExists(name)
        return super().put_blob(name, body, properties, condition)


def test_small_file_is_committed_as_a_block_where_leftovers_keep_it_from_going_whole() -> None:
    store = AzuriteLike()
    store.stage_block("x", digest_of(b"theirs").block_id(), b"theirs", hashlib.md5(b"theirs").digest())
    with machine(store, block_bytes=BLOCK) as parts:
        writer = parts.writer("x")
        writer.write(0, memoryview(b"ours"))
        writer.commit(PROPERTIES, IF_ABSENT)
        assert store.bodies == {"x": b"ours"}
        late = parts.writer("x")
        late.write(0, memoryview(b"late"))
        with pytest.raises(AlreadyExists):
            late.commit(PROPERTIES, IF_ABSENT)


def test_small_file_is_one_request(parts: Machine, memory: MemoryStore) -> None:
    info = put_ours(parts, "x", text(BLOCK))
    assert memory.requests == {"PUT blob": 1}
    assert memory.bodies == {"x": text(BLOCK)}
    assert (info.metadata, info.headers) == (PROPERTIES.metadata, PROPERTIES.headers)


def test_small_file_that_was_just_written_is_read_without_a_request(
    parts: Machine, memory: MemoryStore
) -> None:
    writer = parts.writer("x")
    writer.write(0, memoryview(text(BLOCK)))
    info = writer.commit(PROPERTIES, IF_ABSENT)
    writer.write(0, memoryview(b"edit"))
    into = memoryview(bytearray(BLOCK))
    assert parts.reader.read_into(info, 0, into, Stream()) == BLOCK
    assert bytes(into) == text(BLOCK)
    assert memory.requests == {"PUT blob": 1}


def test_empty_file_is_one_request(parts: Machine, memory: MemoryStore) -> None:
    parts.writer("x").commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": b""}
    assert memory.requests == {"PUT blob": 1}


def test_file_written_in_order_is_staged_once_and_has_its_md5(parts: Machine, memory: MemoryStore) -> None:
    body = text(10 * BLOCK + 3)
    writer = parts.writer("x")
    for start in range(0, len(body), 5):
        writer.write(start, memoryview(body)[start : start + 5])
    info = writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": body}
    assert memory.requests == {"PUT block": 11, "PUT block list": 1}
    assert info.content_md5 == hashlib.md5(body).digest()


def test_edit_of_one_byte_stages_one_block(parts: Machine, memory: MemoryStore) -> None:
    body = bytearray(text(20 * BLOCK))
    base = put_ours(parts, "x", body)
    memory.requests.clear()
    writer = parts.writer("x", base)
    writer.write(77, memoryview(b"!"))
    writer.commit(PROPERTIES, onto(base))
    body[77:78] = b"!"
    assert memory.bodies == {"x": body}
    assert memory.requests["PUT block"] == 1
    assert memory.head("x").content_md5 is None


def test_append_stages_the_last_block_only(parts: Machine, memory: MemoryStore) -> None:
    body = text(5 * BLOCK + 2)
    base = put_ours(parts, "x", body)
    memory.requests.clear()
    writer = parts.writer("x", base)
    writer.write(len(body), memoryview(b"more"))
    writer.commit(PROPERTIES, onto(base))
    assert memory.bodies == {"x": body + b"more"}
    assert memory.requests["PUT block"] == 1


def test_block_overwritten_whole_is_not_read_back(parts: Machine, memory: MemoryStore) -> None:
    base = put_ours(parts, "x", text(5 * BLOCK))
    memory.requests.clear()
    writer = parts.writer("x", base)
    writer.write(BLOCK, memoryview(b"8 bytes!"))
    writer.commit(PROPERTIES, onto(base))
    assert memory.requests == {"GET block list": 1, "PUT block": 1, "PUT block list": 1}


def test_unchanged_block_written_again_is_not_staged_again(parts: Machine, memory: MemoryStore) -> None:
    body = text(5 * BLOCK)
    base = put_ours(parts, "x", body)
    memory.requests.clear()
    writer = parts.writer("x", base)
    writer.write(0, memoryview(body))
    info = writer.commit(PROPERTIES, onto(base))
    assert memory.requests == {"GET block list": 1, "PUT block list": 1}
    assert info.content_md5 == hashlib.md5(body).digest()


def test_hole_is_one_block_of_zeros_staged_once(parts: Machine, memory: MemoryStore) -> None:
    writer = parts.writer("x")
    writer.write(50 * BLOCK, memoryview(b"end"))
    writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": bytes(50 * BLOCK) + b"end"}
    assert memory.requests == {"PUT block": 2, "PUT block list": 1}


def test_zeros_that_were_written_are_staged_once_if_the_first_is_there(
    parts: Machine, memory: MemoryStore
) -> None:
    writer = parts.writer("x")
    writer.write(0, memoryview(bytes(BLOCK)))
    writer.release_memory()
    base = writer.commit(PROPERTIES, IF_ABSENT)
    writer.write(BLOCK, memoryview(bytes(1)))
    base = writer.commit(PROPERTIES, onto(base))
    memory.requests.clear()
    writer.write(BLOCK, memoryview(bytes(30 * BLOCK)))
    writer.commit(PROPERTIES, onto(base))
    assert memory.bodies == {"x": bytes(31 * BLOCK)}
    assert memory.requests["PUT block"] == 0


@pytest.mark.parametrize("copies_ranges", [True, False])
def test_blob_put_whole_and_larger_than_a_block_becomes_blocks_by_the_service_if_it_can(
    parts: Machine, memory: MemoryStore, copies_ranges: bool
) -> None:
    memory.copies_ranges = copies_ranges
    body = bytearray(text(5 * BLOCK + 3))
    base = memory.put("x", body)
    writer = parts.writer("x", base)
    writer.write(12, memoryview(b"!"))
    info = writer.commit(PROPERTIES, onto(base))
    body[12:13] = b"!"
    assert memory.bodies == {"x": body}
    assert memory.requests["PUT block"] == (1 if copies_ranges else 6)
    assert memory.requests["GET blob"] == (1 if copies_ranges else 6)
    prefixes = [raw_id(block)[:4] for block in memory.committed_blocks(info.version)]
    assert prefixes == [b"bfs0", b"bfs1", *[b"bfs0"] * 4] if copies_ranges else [b"bfs1"] * 6
    assert {len(raw_id(block)) for block in memory.committed_blocks(info.version)} == {52}


def test_short_stretch_that_lost_its_block_gets_a_checksum(parts: Machine, memory: MemoryStore) -> None:
    base = put_ours(parts, "x", text(5 * BLOCK))
    writer = parts.writer("x", base)
    writer.truncate(3 * BLOCK - 2)
    info = writer.commit(PROPERTIES, onto(base))
    assert memory.bodies == {"x": text(3 * BLOCK - 2)}
    assert memory.requests["PUT block from URL"] == 0
    assert {raw_id(block)[:4] for block in memory.committed_blocks(info.version)} == {b"bfs1"}


@pytest.mark.parametrize("base_blocks", [0, 1, 20])
@pytest.mark.parametrize("reopens", [True, False])
def test_many_small_appends_leave_few_blocks_and_stage_little(
    memory: MemoryStore, base_blocks: int, reopens: bool
) -> None:
    block_bytes, line = 4096, b"a line of a log\n"
    store = CountingStore(memory)
    expected = bytearray(text(base_blocks * block_bytes))
    with machine(store, block_bytes=block_bytes, inline=True) as parts:
        base = memory.put("x", bytes(expected)) if base_blocks else None
        writer = parts.writer("x", base)
        for _ in range(1500):
            writer.write(len(expected), memoryview(line))
            expected += line
            base = writer.commit(PROPERTIES, onto(base))
            writer = parts.writer("x", base) if reopens else writer
    assert memory.bodies == {"x": expected}
    sizes = [block.size_bytes for block in memory.committed_blocks(memory.head("x").version)]
    assert len(sizes) <= base_blocks + 1500 * len(line) // block_bytes * 2 + 12
    assert store.sent_bytes < 10 * 1500 * len(line) + 2 * block_bytes


def test_small_blocks_of_others_are_joined_when_the_file_grows(parts: Machine, memory: MemoryStore) -> None:
    base = put_blocks(memory, "x", [b"%d" % (i % 10) for i in range(40)])
    writer = parts.writer("x", base)
    writer.write(40, memoryview(b"abcd"))
    info = writer.commit(PROPERTIES, onto(base))
    assert memory.bodies["x"] == b"0123456789" * 4 + b"abcd"
    assert [block.size_bytes for block in memory.committed_blocks(info.version)] == [1] * 36 + [8]


def test_commit_of_appended_bytes_reads_and_stages_nothing_else(parts: Machine, memory: MemoryStore) -> None:
    base = put_ours(parts, "x", text(50 * BLOCK))
    writer = parts.writer("x", base)
    memory.requests.clear()
    for number in range(30):
        writer.write(50 * BLOCK + 3 * number, memoryview(b"%03d" % number))
        base = writer.commit(PROPERTIES, onto(base))
    assert memory.requests["PUT block list"] == memory.requests["PUT block"] == 30
    assert memory.requests["GET blob"] == 0


# The MD5 of the whole file


def md5_after(parts: Machine, memory: MemoryStore, base: BlobInfo | None, *steps: Step) -> bytes | None:
    """Take the steps and commit; return the MD5 the blob has then, which is right if there is one."""
    writer = parts.writer("x", base)
    for step in steps:
        step(writer)
    md5 = writer.commit(PROPERTIES, onto(base)).content_md5
    assert md5 in (None, hashlib.md5(memory.bodies["x"]).digest())
    return md5


def put_at(offset: int, body: bytes) -> Step:
    return lambda writer: writer.write(offset, memoryview(body))


def cut_at(size: int) -> Step:
    return lambda writer: writer.truncate(size)


LONG = text(6 * BLOCK + 3)
SEEN_WHOLE = {
    "written anew": [cut_at(0), put_at(0, LONG), put_at(len(LONG), b"the end")],
    "written over from start to end": [put_at(0, LONG[:30]), put_at(30, LONG[30:])],
    "written again from the start": [put_at(0, LONG), put_at(0, LONG)],
    "last block written in any order": [
        put_at(0, LONG),
        put_at(6 * BLOCK + 1, b"!"),
        put_at(len(LONG), b"?"),
    ],
    "edited while small": [cut_at(0), put_at(0, b"small"), put_at(2, b"!")],
    "cut to less than a block": [put_at(0, LONG), cut_at(5)],
}
NOT_SEEN_WHOLE = {
    "edited in the middle": [put_at(20, b"!")],
    "appended to": [put_at(len(LONG), b"more")],
    "cut": [cut_at(20)],
    "grown by a hole": [put_at(0, LONG), cut_at(100)],
    "edited behind the writer": [cut_at(0), put_at(0, LONG), put_at(3, b"!")],
    "cut behind the writer": [put_at(0, LONG), cut_at(20), put_at(20, LONG)],
}


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("how", SEEN_WHOLE)
def test_file_whose_bytes_were_all_seen_has_its_md5(memory: MemoryStore, how: str, inline: bool) -> None:
    with machine(memory, block_bytes=BLOCK, inline=inline) as parts:
        base = put_ours(parts, "x", LONG)
        assert base.content_md5 == hashlib.md5(LONG).digest()
        assert md5_after(parts, memory, base, *SEEN_WHOLE[how]) is not None


@pytest.mark.parametrize("how", NOT_SEEN_WHOLE)
def test_file_of_which_bytes_were_not_seen_loses_its_md5(
    parts: Machine, memory: MemoryStore, how: str
) -> None:
    base = put_ours(parts, "x", LONG)
    assert md5_after(parts, memory, base, *NOT_SEEN_WHOLE[how]) is None
    assert memory.head("x").content_md5 is None


@pytest.mark.parametrize("step", [1, 3, 5])
def test_file_md5_goes_on_over_commits(parts: Machine, step: int) -> None:
    writer, base = parts.writer("x"), None
    for start in range(0, len(LONG), step):
        writer.write(start, memoryview(LONG)[start : start + step])
        base = writer.commit(PROPERTIES, onto(base))
        assert base.content_md5 == hashlib.md5(LONG[: start + step]).digest()


def test_first_block_is_hashed_once_for_itself_and_the_file(
    parts: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    class Md5:
        def __init__(self, data: bytes | memoryview, *, usedforsecurity: bool) -> None:
            self.so_far = hashlib.md5(data, usedforsecurity=usedforsecurity)
            self.digest = self.so_far.digest
            hashed.append(bytes(data))

        def update(self, data: memoryview) -> None:
            self.so_far.update(data)
            hashed.append(bytes(data))

        def copy(self) -> "Md5":
            copied = Md5(b"", usedforsecurity=False)
            copied.so_far = self.so_far.copy()
            copied.digest = copied.so_far.digest
            return copied

    monkeypatch.setattr("blobfs.blocks.hashlib", SimpleNamespace(md5=Md5))
    writer = parts.writer("x")
    writer.write(0, memoryview(LONG))
    info = writer.commit(PROPERTIES, IF_ABSENT)
    assert info.content_md5 == hashlib.md5(LONG).digest()
    for start in range(0, len(LONG), BLOCK):
        assert hashed.count(LONG[start : start + BLOCK]) == (1 if start == 0 else 2)


def test_file_md5_can_be_done_without(memory: MemoryStore) -> None:
    with machine(memory, block_bytes=BLOCK) as parts:
        writer = replace(parts, file_md5=False).writer("x")
        writer.write(0, memoryview(LONG))
        assert writer.commit(PROPERTIES, IF_ABSENT).content_md5 is None


# What another client left unfinished


def leave_unfinished(memory: MemoryStore, id_bytes: int) -> None:
    block_id = base64.b64encode(b"?" * id_bytes).decode()
    memory.stage_block("x", block_id, b"theirs", digest_of(b"theirs").md5)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("copies_ranges", [True, False])
@pytest.mark.parametrize("id_bytes", [0, 7, 52])
def test_unfinished_upload_of_another_client_does_not_stop_an_edit(
    memory: MemoryStore, id_bytes: int, copies_ranges: bool, inline: bool
) -> None:
    memory.copies_ranges = copies_ranges
    bodies = [LONG[start : start + BLOCK] for start in range(0, len(LONG), BLOCK)]
    base = put_blocks(memory, "x", bodies, id_bytes) if id_bytes else memory.put("x", LONG)
    leave_unfinished(memory, 24)
    with machine(memory, block_bytes=BLOCK, inline=inline) as parts:
        writer = parts.writer("x", base)
        writer.write(20, memoryview(b"!"))
        writer.write(len(LONG), memoryview(LONG))
        assert memory.head("x") == base
        info = writer.commit(PROPERTIES, onto(base))
        assert memory.bodies["x"] == LONG[:20] + b"!" + LONG[21:] + LONG
        assert {len(raw_id(block)) for block in memory.committed_blocks(info.version)} == {24}
        assert not memory.staged
        writer.write(0, memoryview(b"once more"))
        writer.commit(PROPERTIES, onto(info))


@pytest.mark.parametrize("inline", [True, False])
def test_unfinished_upload_of_another_client_does_not_stop_a_new_file(
    memory: MemoryStore, inline: bool
) -> None:
    leave_unfinished(memory, 7)
    body = text(40 * BLOCK)
    with machine(memory, block_bytes=BLOCK, inline=inline) as parts:
        assert put_ours(parts, "x", body).content_md5 == hashlib.md5(body).digest()
    assert memory.bodies == {"x": body}


def test_service_that_takes_ids_of_no_length_is_reported(memory: MemoryStore) -> None:
    store = FailingStore(memory)
    store.fail_method("stage_block", OtherIdLength("no"))
    with machine(store, block_bytes=BLOCK) as parts, pytest.raises(OtherIdLength):
        put_ours(parts, "x", LONG)


def test_blocks_of_other_tools_keep_their_ids(parts: Machine, memory: MemoryStore) -> None:
    bodies = [text(100)[start : start + 10] for start in range(0, 100, 10)]
    base = put_blocks(memory, "x", bodies, id_bytes=7)
    old = [block.block_id for block in memory.committed_blocks(base.version)]
    writer = parts.writer("x", base)
    writer.write(35, memoryview(b"!"))
    info = writer.commit(PROPERTIES, onto(base))
    new = [block.block_id for block in memory.committed_blocks(info.version)]
    assert [i for i in range(10) if old[i] != new[i]] == [3]
    assert memory.bodies == {"x": text(100)[:35] + b"!" + text(100)[36:]}


def test_block_size_grows_so_that_a_blob_never_has_too_many(parts: Machine) -> None:
    writer = parts.writer("x")
    with pytest.raises(TooLarge):
        writer.truncate(50_000 * parts.largest_block_bytes + 1)
    assert writer.size_bytes == 0


def test_large_hole_takes_few_blocks(memory: MemoryStore) -> None:
    with machine(memory, block_bytes=BLOCK) as parts:
        writer = parts.writer("x")
        writer.truncate(1_000_000)
        writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": bytes(1_000_000)}
    assert len(memory.committed_blocks(memory.head("x").version)) <= 50_000


# Truncation


def test_blob_emptied_and_written_anew_has_nothing_of_the_old(parts: Machine, memory: MemoryStore) -> None:
    base = put_ours(parts, "x", text(5 * BLOCK))
    writer = parts.writer("x", base)
    writer.truncate(0)
    writer.write(0, memoryview(b"new"))
    writer.commit(PROPERTIES, onto(base))
    assert memory.bodies == {"x": b"new"}


def test_bytes_cut_off_do_not_come_back(parts: Machine, memory: MemoryStore) -> None:
    base = put_ours(parts, "x", text(5 * BLOCK))
    writer = parts.writer("x", base)
    writer.truncate(11)
    writer.truncate(30)
    writer.commit(PROPERTIES, onto(base))
    assert memory.bodies == {"x": text(11) + bytes(19)}


def test_truncation_of_what_is_only_staged_changes_nothing_before_the_commit(
    memory: MemoryStore,
) -> None:
    body = text(3 * BLOCK)
    with machine(memory, block_bytes=BLOCK, inline=True) as parts:
        writer = parts.writer("x")
        writer.write(0, memoryview(body))
        writer.release_memory()
        with pytest.raises(OnlyStaged):
            writer.truncate(12)
        assert writer.size_bytes == len(body)
        writer.commit(PROPERTIES, IF_ABSENT)
        assert memory.bodies == {"x": body}


# Memory


def test_sequential_writer_that_lost_its_memory_goes_on_without_a_commit(memory: MemoryStore) -> None:
    body = text(6 * BLOCK)
    with machine(memory, block_bytes=BLOCK, inline=True) as parts:
        writer = parts.writer("x")
        for start in range(0, len(body), 3):
            writer.write(start, memoryview(body)[start : start + 3])
            writer.release_memory()
            writer.release_memory()
        assert memory.bodies == {}
        info = writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": body}
    assert info.content_md5 == hashlib.md5(body).digest()


def test_block_that_was_staged_a_moment_ago_is_changed_without_a_commit(
    parts: Machine, memory: MemoryStore
) -> None:
    body = bytearray(text(6 * BLOCK))
    writer = parts.writer("x")
    writer.write(0, memoryview(body))
    writer.write(2 * BLOCK + 1, memoryview(b"!"))
    body[2 * BLOCK + 1 : 2 * BLOCK + 2] = b"!"
    assert content(writer) == body
    writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": body}
    assert memory.requests == {"PUT block": 7, "PUT block list": 1}


def test_staged_blocks_leave_memory_when_more_than_a_quarter_of_it_is_in_use(memory: MemoryStore) -> None:
    with machine(memory, block_bytes=BLOCK, inline=True, budget_bytes=256 * KiB) as parts:
        writer = parts.writer("x")
        for block in range(100):
            writer.write(block * BLOCK, memoryview(text(BLOCK)))
            # Besides, the first one and the one that is being written.
            assert parts.pool.in_use_bytes <= 64 * KiB + 2 * SMALLEST_BYTES
        assert parts.pool.in_use_bytes >= 64 * KiB
        writer.release_memory()
        assert parts.pool.in_use_bytes <= 2 * SMALLEST_BYTES


def test_bytes_that_are_only_staged_are_read_back_after_a_commit(memory: MemoryStore) -> None:
    body = text(6 * BLOCK)
    with machine(memory, block_bytes=BLOCK, inline=True) as parts:
        writer = parts.writer("x")
        writer.write(0, memoryview(body))
        writer.release_memory()
        writer.release_memory()
        with pytest.raises(OnlyStaged):
            content(writer)
        writer.commit(PROPERTIES, IF_ABSENT)
        assert content(writer) == body


def test_small_file_in_pieces_is_committed_though_memory_is_short(memory: MemoryStore) -> None:
    with machine(memory, block_bytes=BLOCK, inline=True, budget_bytes=128 * KiB) as parts:
        writer = parts.writer("x")
        parts.pool.add_reclaimer(lambda _size_bytes: writer.release_memory())
        writer.write(0, memoryview(b"abc"))
        writer.truncate(3 * BLOCK)
        writer.truncate(6)
        held = parts.pool.take(64 * KiB)
        writer.commit(PROPERTIES, IF_ABSENT)
        assert held.size_bytes == 64 * KiB
    assert memory.bodies == {"x": b"abc" + bytes(3)}


def test_writer_that_waits_for_memory_goes_on_as_soon_as_a_block_is_staged(
    memory: MemoryStore, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobfs.content.memory.RECHECK_SECONDS", 60.0)
    waits = threading.Event()
    store.on_call = lambda _method: waits.wait(10)
    body = text(4 * BLOCK)
    with (
        machine(store, block_bytes=BLOCK, budget_bytes=2 * SMALLEST_BYTES) as parts,
        ThreadPoolExecutor(1) as thread,
    ):
        writer = parts.writer("x")

        def release_memory(_size_bytes: int) -> None:
            writer.release_memory()
            waits.set()

        parts.pool.add_reclaimer(release_memory)
        thread.submit(writer.write, 0, memoryview(body)).result(10)
        writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": body}


# Failures


# A blob of six blocks is changed in the middle, at the end and beyond.
STEPS = [(10, b"middle"), (6 * BLOCK - 3, b"the end and more"), (12 * BLOCK, b"beyond")]
CHANGED = bytearray(text(6 * BLOCK))
CHANGED[10:16] = b"middle"
CHANGED[6 * BLOCK - 3 :] = b"the end and more"
CHANGED += bytes(12 * BLOCK - len(CHANGED)) + b"beyond"


def write_despite_losses(writer: BlobWriter, base: BlobInfo, offset: int, data: bytes) -> BlobInfo:
    """Write; what an earlier attempt staged and let go of is committed first."""
    try:
        writer.write(offset, memoryview(data))
    except OnlyStaged:
        base = writer.commit(PROPERTIES, onto(base))
        writer.write(offset, memoryview(data))
    return base


def attempt(writer: BlobWriter, base: BlobInfo) -> None:
    for offset, data in STEPS:
        base = write_despite_losses(writer, base, offset, data)
    writer.commit(PROPERTIES, onto(base))


def count_calls() -> int:
    store = FailingStore(MemoryStore())
    with machine(store, block_bytes=BLOCK, inline=True) as parts:
        base = put_ours(parts, "x", text(6 * BLOCK))
        store.heal()
        attempt(parts.writer("x", base), base)
    return len(store.calls)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("number", range(count_calls()))
def test_failure_of_any_request_is_reported_and_costs_nothing(
    number: int, carried_out: bool, inline: bool
) -> None:
    memory = MemoryStore()
    store = FailingStore(memory)
    with machine(store, block_bytes=BLOCK, inline=inline) as parts:
        base = put_ours(parts, "x", text(6 * BLOCK))
        writer = parts.writer("x", base)
        is_last = number == count_calls() - 1
        store.fail_call(number, Unavailable("no service"), carried_out=carried_out and not is_last)
        with pytest.raises(Unavailable, match="no service"):
            attempt(writer, base)
        assert memory.bodies == {"x": text(6 * BLOCK)}
        assert memory.head("x").etag == base.etag
        attempt(writer, base)
        assert memory.bodies == {"x": CHANGED}


def test_md5_is_never_of_bytes_that_a_failed_write_did_not_put(memory: MemoryStore) -> None:
    store = FailingStore(memory)
    body = text((BLOCKS_IN_FLIGHT + 8) * BLOCK)
    with machine(store, block_bytes=BLOCK, inline=True) as parts:
        writer = parts.writer("x")
        store.fail_method("stage_block", Unavailable("no service"))
        with pytest.raises(Unavailable):
            writer.write(0, memoryview(body))
        store.heal()
        assert 0 < writer.size_bytes < len(body)
        writer.truncate(len(body))
        info = writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies["x"] != body
    assert info.content_md5 is None


def test_blocks_that_failed_are_sent_again_by_the_next_commit(memory: MemoryStore) -> None:
    store = FailingStore(memory)
    with machine(store, block_bytes=BLOCK, inline=True) as parts:
        writer = parts.writer("x")
        store.fail_method("stage_block", Unavailable("no service"))
        writer.write(0, memoryview(text(9 * BLOCK)))
        with pytest.raises(Unavailable):
            writer.commit(PROPERTIES, IF_ABSENT)
        store.heal()
        writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": text(9 * BLOCK)}


def test_writer_short_of_memory_sends_blocks_again_that_failed(memory: MemoryStore) -> None:
    store = FailingStore(memory)
    with machine(store, block_bytes=BLOCK, inline=True, budget_bytes=64 * KiB * 4) as parts:
        writer = parts.writer("x")
        parts.pool.add_reclaimer(lambda _size_bytes: writer.release_memory())
        store.fail_call(0, Unavailable("no service"))
        writer.write(0, memoryview(text(9 * BLOCK)))
        writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": text(9 * BLOCK)}


@pytest.mark.parametrize("size", [3, 5 * BLOCK])
def test_name_taken_meanwhile_is_not_overwritten(parts: Machine, memory: MemoryStore, size: int) -> None:
    writer = parts.writer("x")
    writer.write(0, memoryview(text(size)))
    memory.put("x", b"theirs")
    with pytest.raises((AlreadyExists, Changed)):
        writer.commit(PROPERTIES, IF_ABSENT)
    assert memory.bodies == {"x": b"theirs"}


@pytest.mark.parametrize("size", [3, 5 * BLOCK])
def test_blob_replaced_meanwhile_is_not_overwritten(parts: Machine, memory: MemoryStore, size: int) -> None:
    base = put_ours(parts, "x", text(size))
    writer = parts.writer("x", base)
    writer.write(0, memoryview(b"mine"))
    memory.put("x", b"theirs")
    with pytest.raises(Changed):
        writer.commit(PROPERTIES, onto(base))
    assert memory.bodies == {"x": b"theirs"}


# Unlinked files


def test_detached_file_is_read_and_written_without_the_service(parts: Machine, memory: MemoryStore) -> None:
    expected = bytearray(text(5 * BLOCK + 3))
    base = put_ours(parts, "x", expected)
    writer = parts.writer("x", base)
    writer.detach()
    memory.delete("x", ALWAYS)
    memory.requests.clear()
    assert content(writer) == expected
    writer.write(13, memoryview(b"written"))
    writer.write(60, memoryview(b"beyond"))
    writer.truncate(64)
    writer.release_memory()
    expected[13:20] = b"written"
    expected += bytes(60 - len(expected)) + b"beyo"
    assert content(writer) == expected
    assert memory.requests == {}


def test_detached_file_holds_no_memory(parts: Machine) -> None:
    expected = text(5 * BLOCK + 3)
    writer = parts.writer("x")
    writer.write(0, memoryview(expected))
    writer.truncate(8 * BLOCK)
    writer.detach()
    writer.write(7 * BLOCK, memoryview(b"written"))
    assert parts.pool.in_use_bytes == 0
    assert content(writer) == expected + bytes(7 * BLOCK - len(expected)) + b"written" + bytes(1)
