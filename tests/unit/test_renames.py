"""Renames of files."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from fakes import CALLER, FailingStore, ManualClock, MemoryStore, filesystem_of, machine
from syscalls import (
    BLOCK,
    BODY,
    HIDDEN,
    Mount,
    close,
    create,
    entries,
    later,
    no_room,
    read,
    read_handle,
    replace_after_unlink,
    tree,
    write,
    write_new,
)

from blobfs.errors import (
    AccessDenied,
    AlreadyExists,
    Changed,
    DirectoryNotEmpty,
    Failure,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotFound,
    Unavailable,
)
from blobfs.filesystem.filesystem import Filesystem
from blobfs.store import ALWAYS


@pytest.mark.parametrize("committed", [{"x": b"old"}, {}], ids=["committed", "never-committed"])
def test_writer_of_a_file_is_told_when_a_rename_over_it_fails(
    mount: Mount, memory: MemoryStore, committed: dict[str, bytes]
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    for name, body in committed.items():
        write(fs, f"/{name}", body)
    write(fs, "/y", b"other")
    handle = fs.handles.open("/x", os.O_RDWR).handle if committed else create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"new"))
    fs.rename("/x", HIDDEN)  # as libfuse does before the rename
    store.fail_method("copy", AccessDenied("no"))
    with pytest.raises(AccessDenied):
        fs.rename("/y", "/x")
    store.heal()
    for use in (fs.handles.fsync, fs.handles.flush):
        with pytest.raises(Changed):
            use(handle)
    fs.handles.release(handle)
    later(fs)
    assert memory.bodies == {**committed, "y": b"other"}
    assert [file.path for file in fs.commits.uncommitted()] == ["/x"]


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_rename_replaces_what_another_client_put_under_the_name_of_a_file_unlinked_while_open(
    fs: Filesystem, memory: MemoryStore, is_asked_for: bool
) -> None:
    write(fs, "/x", b"old")
    write(fs, "/new", b"new")
    replace_after_unlink(fs, memory, is_asked_for=is_asked_for)
    fs.rename("/new", "/x")
    later(fs)
    assert memory.bodies == {"x": b"new"}


def test_rename_over_an_open_file_never_leaves_the_name_empty(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"old")
    write(fs, "/new", b"new")
    handle = fs.handles.open("/x", os.O_RDONLY).handle
    fs.rename("/x", HIDDEN)
    assert memory.bodies["x"] == b"old"
    fs.rename("/new", "/x")
    later(fs)
    assert memory.bodies == {"x": b"new"}
    assert (read_handle(fs, handle), read(fs, "/x")) == (b"old", b"new")


def test_directory_stays_when_its_last_file_moves_out(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("a/x", b"1")
    fs.rename("/a/x", "/x")
    assert tree(fs) == ["/a", "/x"]
    assert memory.head("a").metadata["hdi_isfolder"] == "true"


def test_renamed_file_keeps_bytes_attributes_and_number(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", BODY)
    fs.chmod("/x", 0o600)
    fs.set_times("/x", 5, 7)
    before = fs.stat("/x")
    memory.requests.clear()
    fs.rename("/x", "/y")
    assert memory.requests == {"PUT copy": 1, "DELETE blob": 1}
    after = fs.stat("/y")
    assert (after.inode, after.size_bytes, after.attributes.mode) == (
        before.inode,
        len(BODY),
        before.attributes.mode,
    )
    assert (after.attributes.mtime_ns, after.attributes.atime_ns) == (7, 5)
    assert memory.bodies == {"y": BODY}


def test_rename_replaces_a_file(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"new")
    write(fs, "/y", b"old")
    with pytest.raises(AlreadyExists):
        fs.rename("/x", "/y", replace_target=False)
    fs.rename("/x", "/y")
    assert (entries(fs, "/"), memory.bodies) == (["y"], {"y": b"new"})


def test_rename_of_the_wrong_kind_is_refused(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"")
    fs.mkdir("/d", 0o755, CALLER)
    fs.mkdir("/d/e", 0o755, CALLER)
    with pytest.raises(IsADirectory):
        fs.rename("/x", "/d")
    with pytest.raises(NotADirectory):
        fs.rename("/d", "/x")
    with pytest.raises(DirectoryNotEmpty):
        fs.rename("/d/e", "/d")
    with pytest.raises(InvalidArgument):
        fs.rename("/d", "/d/e/f")
    with pytest.raises(NotFound):
        fs.rename("/none", "/y")
    assert list(memory.bodies) == ["d", "d/e", "x"]


def test_open_handle_follows_a_rename(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"old")
    handle = fs.handles.open("/x", os.O_RDWR).handle
    fs.handles.write(handle, 3, memoryview(b" and new"))
    fs.rename("/x", "/y")
    fs.handles.write(handle, 0, memoryview(b"O"))
    close(fs, handle)
    assert memory.bodies == {"y": b"Old and new"}


def test_rename_of_what_was_never_committed_costs_nothing(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("y", b"old")
    fs.stat("/y")
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"new"))
    memory.requests.clear()
    fs.rename("/x", "/y")
    assert memory.requests == {}
    close(fs, handle)
    assert (memory.requests, memory.bodies) == ({"PUT blob": 1}, {"y": b"new"})


def unsent_over_committed(fs: Filesystem) -> int:
    """Have a file under /y that is to replace what the service has there."""
    write(fs, "/y", b"old")
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(b"newer"))
    fs.rename("/x", "/y")
    return handle


def test_blob_that_an_unsent_file_replaces_is_replaced_by_the_next_one_too(
    fs: Filesystem, memory: MemoryStore
) -> None:
    first = unsent_over_committed(fs)
    second = create(fs, "/x")
    fs.handles.write(second, 0, memoryview(b"newest"))
    fs.rename("/y", HIDDEN)  # as libfuse does with open files
    fs.rename("/x", "/y")
    for handle in (first, second):
        close(fs, handle)
    later(fs)
    assert memory.bodies == {"y": b"newest"}


def test_file_replaced_by_the_next_one_before_it_was_sent_leaves_no_conflict(
    memory: MemoryStore, mount: Mount
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    write(fs, "/y", b"old")
    store.fail_method("put_blob", Unavailable("no service"))
    for body in (b"newer", b"newest"):
        handle = create(fs, "/x")
        fs.handles.write(handle, 0, memoryview(body))
        fs.rename("/x", "/y")
        with pytest.raises(Unavailable):
            fs.handles.flush(handle)
        fs.handles.release(handle)
    store.heal()
    later(fs)
    assert (memory.bodies, list(fs.commits.uncommitted())) == ({"y": b"newest"}, [])


@pytest.mark.parametrize("is_open", [True, False])
def test_name_of_an_unsent_file_takes_the_blob_that_it_replaces_along_when_it_goes(
    fs: Filesystem, memory: MemoryStore, is_open: bool
) -> None:
    handle = unsent_over_committed(fs)
    if is_open:
        fs.rename("/y", HIDDEN)
    else:
        fs.unlink("/y")
    close(fs, handle)
    later(fs)
    assert memory.bodies == {}


def test_unsent_file_that_moves_on_leaves_no_blob_that_it_was_to_replace(
    fs: Filesystem, memory: MemoryStore
) -> None:
    handle = unsent_over_committed(fs)
    fs.rename("/y", "/z")
    close(fs, handle)
    assert memory.bodies == {"z": b"newer"}


def test_file_rename_that_fails_at_any_request_loses_nothing(mount: Mount) -> None:
    for number in range(2):
        memory = MemoryStore()
        store = FailingStore(memory)
        fs = mount(store)
        write(fs, "/x", b"new")
        write(fs, "/y", b"old")
        store.fail_call(number, Unavailable("no service"))
        with pytest.raises(Unavailable):
            fs.rename("/x", "/y")
        assert memory.bodies["x"] == b"new"
        assert memory.bodies["y"] in (b"old", b"new")


@pytest.mark.parametrize(
    ("target", "meanwhile", "outcome", "left"),
    [
        (None, lambda memory: memory.delete("x", ALWAYS), NotFound, {}),
        (b"old", lambda memory: memory.delete("x", ALWAYS), None, {"y": b"first"}),
        (None, lambda memory: memory.put("x", b"second"), None, {"y": b"second"}),
        (b"old", lambda memory: memory.put("x", b"second"), None, {"y": b"second"}),
    ],
)
def test_rename_of_a_file_that_another_client_takes_or_writes_meanwhile(
    mount: Mount,
    memory: MemoryStore,
    target: bytes | None,
    meanwhile: Callable[[MemoryStore], object],
    outcome: type[Failure] | None,
    left: dict[str, bytes],
) -> None:
    memory.put("x", b"first")
    if target is not None:
        memory.put("y", target)
    store = FailingStore(memory)
    fs = mount(store)
    others = [meanwhile]

    def on_call(method: str) -> None:
        if method == "delete" and others:
            others.pop()(memory)

    store.on_call = on_call
    with pytest.raises(outcome) if outcome else nullcontext():
        fs.rename("/x", "/y")
    assert memory.bodies == left


def test_one_of_many_renames_onto_a_name_wins_and_nothing_is_mixed(
    memory: MemoryStore, clock: ManualClock
) -> None:
    def rename(number: int) -> str:
        try:
            fs.rename(f"/{number}", "/target")
        except Failure as failure:
            return type(failure).__name__
        return ""

    with machine(memory, block_bytes=BLOCK) as parts:
        fs = filesystem_of(parts, clock)
        for number in range(8):
            write_new(fs, f"/{number}", b"%d" % number * 20)
        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(rename, range(8)))
    left = dict(memory.bodies)
    target = left.pop("target")
    assert target in {b"%d" % number * 20 for number in range(8)}
    assert set(left) == {str(number) for number in range(8) if outcomes[number]}


def test_rename_over_a_file_that_waits_for_its_commit_needs_no_disk(
    behind: Filesystem, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(behind, "/x", b"one")
    write(behind, "/y", b"two")
    monkeypatch.setattr("blobfs.content.draft.disk_buffer", no_room)
    behind.rename("/y", "/x")
    behind.sync("/")
    assert memory.bodies == {"x": b"two"}


@pytest.mark.parametrize("target", ["/y", "/new"])
def test_rename_copies_nothing_while_the_credential_shows_that_it_may_not_delete(
    fs: Filesystem, memory: MemoryStore, target: str
) -> None:
    write(fs, "/x", b"new")
    write(fs, "/y", b"old")
    memory.may_delete = False
    with pytest.raises(AccessDenied, match=r"^x: "):
        fs.rename("/x", target)
    assert (tree(fs), memory.bodies) == (["/x", "/y"], {"x": b"new", "y": b"old"})
    memory.may_delete = True
    fs.rename("/x", target)
    assert memory.bodies == {"y": b"old", target[1:]: b"new"}


def test_rename_of_what_was_never_committed_needs_no_right_to_delete(
    fs: Filesystem, memory: MemoryStore
) -> None:
    memory.may_delete = False
    close(fs, unsent_over_committed(fs))
    assert memory.bodies == {"y": b"newer"}


def test_file_over_which_nothing_may_be_renamed_is_read_on(fs: Filesystem, memory: MemoryStore) -> None:
    write(fs, "/x", b"new")
    write(fs, "/y", b"old")
    handle = fs.handles.open("/y", os.O_RDONLY).handle
    memory.may_delete = False
    fs.rename("/y", HIDDEN)  # as libfuse does before the rename
    with pytest.raises(AccessDenied):
        fs.rename("/x", "/y")
    later(fs)
    assert (read_handle(fs, handle), read(fs, "/y")) == (b"old", b"old")
    assert memory.bodies == {"x": b"new", "y": b"old"}


def test_rename_whose_deletion_is_refused_unforeseen_says_that_both_names_are_there(
    fs: Filesystem, memory: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    write(fs, "/x", b"new")
    caplog.set_level("INFO")
    memory.may_delete = memory.shows_rights = False
    with pytest.raises(AccessDenied):
        fs.rename("/x", "/y")
    assert "y has the bytes, but x could not be deleted: x: the service refuses this" in caplog.text
    assert (tree(fs), memory.bodies) == (["/x", "/y"], {"x": b"new", "y": b"new"})
