"""Writes whose reply never came: what a file and its name are afterwards, carried out or not."""

import pytest
from fakes import CALLER, FailingStore, Machine, MemoryStore, machine
from syscalls import BLOCK, BODY, HIDDEN, Mount, close, create, entries, later, write

from blobfs.blocks import KiB
from blobfs.content.streams import Stream
from blobfs.errors import AccessDenied, AlreadyExists, Failure, NotFound, Unavailable
from blobfs.filesystem.files import File
from blobfs.filesystem.filesystem import Filesystem
from blobfs.format.attributes import Attributes, metadata_of
from blobfs.store import IF_ABSENT, BlobInfo, Properties

LARGE = bytes(range(256)) * 150
ATTRIBUTES = Attributes(0o100640, CALLER.uid, CALLER.gid, 1, 2, 3)


def new(parts: Machine, base: BlobInfo | None = None) -> File:
    return parts.file("x", 1, base, ATTRIBUTES)


def content(file: File) -> bytes:
    target = memoryview(bytearray(file.size_bytes))
    assert file.read_into(0, target, Stream()) == file.size_bytes
    return bytes(target)


def of_blocks(parts: Machine) -> File:
    """Return a committed file of five blocks, which has nothing in memory."""
    file = new(parts)
    file.write(0, memoryview(BODY))
    file.commit()
    return new(parts, file.base)


def lost() -> Failure:
    failure = Unavailable("no reply")
    failure.may_be_done = True
    return failure


def commit_unanswered(file: File, store: FailingStore) -> None:
    """Commit a file, which the service does without a reply."""
    store.fail_commits(lost(), carried_out=True)
    with pytest.raises(Unavailable):
        file.commit()
    store.heal()


@pytest.mark.parametrize("failure", [Unavailable, AccessDenied])
def test_whatever_came_after_it_a_write_that_was_carried_out_is_no_conflict(
    parts: Machine, store: FailingStore, memory: MemoryStore, failure: type[Failure]
) -> None:
    file = new(parts)
    file.write(0, memoryview(b"bytes"))
    store.fail_commits(failure("no reply to the first attempt"), carried_out=True)
    with pytest.raises(failure):
        file.commit()
    store.heal()
    assert file.commit()
    assert memory.bodies == {"x": b"bytes"}


def test_write_that_is_carried_out_after_later_ones_and_the_last_look_is_no_conflict(
    parts: Machine, store: FailingStore, memory: MemoryStore
) -> None:
    file, sent = new(parts), []
    store.fail_commits(lost())
    for body in (b"first", b"second"):
        file.write(0, memoryview(body))
        sent.append(Properties(metadata_of(file.attributes, {})))
        with pytest.raises(Unavailable):
            file.commit()
    store.heal()

    def carry_out(method: str) -> None:
        if method == "put_blob" and not memory.bodies:
            memory.put_blob("x", b"first", sent[0], IF_ABSENT)

    store.on_call = carry_out
    assert file.commit()
    assert memory.bodies == {"x": b"second"}


def test_somebody_else_s_write_is_a_conflict_all_the_same(
    parts: Machine, store: FailingStore, memory: MemoryStore
) -> None:
    file = new(parts)
    file.write(0, memoryview(b"mine"))
    commit_unanswered(file, store)
    memory.put("x", b"theirs")
    for _ in range(2):
        with pytest.raises(AlreadyExists):
            file.commit()
    assert memory.bodies == {"x": b"theirs"}


def test_file_that_grows_after_it_was_sent_whole_lists_no_blocks_that_are_gone(memory: MemoryStore) -> None:
    store = FailingStore(memory)
    with machine(store, block_bytes=1024 * KiB) as parts:
        file = new(parts)
        for body in (LARGE[:30_000], LARGE[30_000:]):  # two blocks, too large to be sent whole
            file.write(None, memoryview(body))
            file.commit()
        file.truncate(30_500)
        commit_unanswered(file, store)
        assert memory.committed_blocks(memory.head("x").version) == []
        file.write(None, memoryview(LARGE[30_500:36_000]))
        assert file.commit()
    assert memory.bodies["x"] == LARGE[:36_000]


@pytest.mark.parametrize("is_edited_since", [False, True])
def test_file_of_many_blocks_is_not_sent_again(
    parts: Machine, store: FailingStore, memory: MemoryStore, is_edited_since: bool
) -> None:
    file = of_blocks(parts)
    file.write(1, memoryview(b"edit"))
    commit_unanswered(file, store)
    if is_edited_since:
        file.write(2 * BLOCK, memoryview(b"more"))
    memory.requests.clear()
    assert file.commit()
    assert memory.requests["PUT block"] == is_edited_since
    more = b"more" if is_edited_since else BODY[2 * BLOCK :][:4]
    assert memory.bodies["x"] == BODY[:1] + b"edit" + BODY[5 : 2 * BLOCK] + more + BODY[2 * BLOCK + 4 :]


def test_file_is_read_and_written_before_its_next_commit(parts: Machine, store: FailingStore) -> None:
    file = of_blocks(parts)
    file.write(1, memoryview(b"edit"))
    commit_unanswered(file, store)
    file.write(2 * BLOCK + 1, memoryview(b"more"))  # into a block that only the service has
    parts.cache.drop(file.version)
    assert content(file) == BODY[:1] + b"edit" + BODY[5 : 2 * BLOCK + 1] + b"more" + BODY[2 * BLOCK + 5 :]


def test_file_whose_attributes_were_set_without_a_reply_is_read(
    parts: Machine, store: FailingStore, memory: MemoryStore
) -> None:
    file = new(parts, base=memory.put("x", BODY))
    store.fail_method("set_metadata", lost(), carried_out=True)
    with pytest.raises(Unavailable):
        file.set_attributes(lambda old: old._replace(mode=0o100600))
    store.heal()
    assert content(file) == BODY


def write_unanswered(fs: Filesystem, store: FailingStore, path: str) -> int:
    """Return the handle of a new file that the service has made without a reply."""
    handle = create(fs, path)
    fs.handles.write(handle, 0, memoryview(b"bytes"))
    store.fail_commits(lost(), carried_out=True)
    with pytest.raises(Unavailable):
        fs.handles.fsync(handle)
    return handle


def close_unanswered(fs: Filesystem, store: FailingStore, path: str) -> None:
    """Have a new file kept that the service has made without a reply."""
    handle = write_unanswered(fs, store, path)
    store.fail_method("head", Unavailable("away"))
    fs.handles.release(handle)
    store.heal()


@pytest.fixture
def fs(mount: Mount, store: FailingStore) -> Filesystem:
    return mount(store)


def test_name_can_be_removed(fs: Filesystem, store: FailingStore, memory: MemoryStore) -> None:
    close_unanswered(fs, store, "/x")
    fs.unlink("/x")
    later(fs)
    assert (memory.bodies, entries(fs, "/")) == ({}, [])


def test_name_can_be_removed_while_it_is_open(
    fs: Filesystem, store: FailingStore, memory: MemoryStore
) -> None:
    handle = write_unanswered(fs, store, "/x")
    store.heal()
    fs.rename("/x", HIDDEN)
    fs.unlink(HIDDEN)
    close(fs, handle)
    later(fs)
    assert (memory.bodies, entries(fs, "/")) == ({}, [])


def test_name_can_be_removed_though_it_never_was_there(
    fs: Filesystem, store: FailingStore, memory: MemoryStore
) -> None:
    handle = create(fs, "/x")
    store.fail_commits(lost())
    with pytest.raises(Unavailable):
        fs.handles.fsync(handle)
    fs.handles.release(handle)
    store.heal()
    fs.unlink("/x")
    with pytest.raises(NotFound):
        fs.stat("/x")
    later(fs)
    assert memory.bodies == {}


def test_removal_fails_while_nobody_can_tell(
    fs: Filesystem, store: FailingStore, memory: MemoryStore
) -> None:
    close_unanswered(fs, store, "/x")
    store.fail_method("head", Unavailable("still away"))
    with pytest.raises(Unavailable):
        fs.unlink("/x")
    store.heal()
    fs.unlink("/x")
    assert memory.bodies == {}


@pytest.mark.parametrize("target", [None, b"old"])
def test_renamed_file_leaves_no_old_name(
    fs: Filesystem, store: FailingStore, memory: MemoryStore, target: bytes | None
) -> None:
    if target is not None:
        write(fs, "/y", target)
    handle = write_unanswered(fs, store, "/x")
    store.heal()
    fs.rename("/x", "/y")
    close(fs, handle)
    assert memory.bodies == {"y": b"bytes"}
    assert entries(fs, "/") == ["y"]


def test_file_is_replaced_by_a_rename(fs: Filesystem, store: FailingStore, memory: MemoryStore) -> None:
    close_unanswered(fs, store, "/x")
    write(fs, "/y", b"new")
    fs.rename("/y", "/x")
    assert memory.bodies == {"x": b"new"}
