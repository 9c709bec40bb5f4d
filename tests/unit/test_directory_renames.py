"""Renames of directories, with all that is below them."""

import os
import stat
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from fakes import CALLER, FailingStore, ManualClock, MemoryStore
from syscalls import BODY, HIDDEN, Mount, close, entries, later, read_handle, tree, write

from blobfs.errors import AccessDenied, Changed, DirectoryNotEmpty, Unavailable
from blobfs.filesystem.filesystem import Filesystem
from blobfs.store import BlobVersion


def a_tree(fs: Filesystem, memory: MemoryStore) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    fs.mkdir("/d/empty", 0o700, CALLER)
    for number in range(3):
        write(fs, f"/d/{number}", BODY + b"%d" % number)
    memory.put("d/virtual/x", b"deep")


def test_renamed_directory_takes_all_along(fs: Filesystem, memory: MemoryStore, clock: ManualClock) -> None:
    a_tree(fs, memory)
    handle = fs.handles.open("/d/0", os.O_RDWR).handle
    fs.handles.write(handle, 0, memoryview(b"!"))
    before = {name.replace("d", "e", 1): body for name, body in memory.bodies.items()}
    fs.rename("/d", "/e")
    for _ in range(2):
        assert tree(fs) == ["/e", "/e/0", "/e/1", "/e/2", "/e/empty", "/e/virtual", "/e/virtual/x"]
        clock.advance(1)
    assert memory.bodies == {**before, "e/0": b"!" + BODY[1:] + b"0"}
    assert stat.S_IMODE(fs.stat("/e/empty").attributes.mode) == 0o700
    fs.handles.write(handle, 1, memoryview(b"!"))
    close(fs, handle)
    assert memory.bodies["e/0"][:3] == b"!!2"


def test_file_is_read_on_while_its_directory_is_renamed(
    fs: Filesystem, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(1 << 20)
    memory.put("d/x", body)
    handle = fs.handles.open("/d/x", os.O_RDONLY).handle
    target, delete, read_range = bytearray(9), memory.delete, memory.read_range
    has_asked = threading.Event()

    def read_old_name(*of: object, **how: object) -> object:
        try:
            return read_range(*of, **how)  # type: ignore[arg-type]
        finally:
            has_asked.set()

    with ThreadPoolExecutor(1) as threads:

        def delete_slowly(*of: object) -> None:
            delete(*of)  # type: ignore[arg-type]
            reading = threads.submit(fs.handles.read_into, handle, 1 << 19, memoryview(target))
            readings.append(reading)
            assert has_asked.wait(10)
            assert not reading.done()

        readings: list[Future[int]] = []
        monkeypatch.setattr(memory, "delete", delete_slowly)
        monkeypatch.setattr(memory, "read_range", read_old_name)
        fs.rename("/d", "/e")
        assert [reading.result(10) for reading in readings] == [9]
    assert target == body[1 << 19 :][:9]


def test_directory_is_renamed_over_an_empty_one_only(fs: Filesystem, memory: MemoryStore) -> None:
    a_tree(fs, memory)
    fs.mkdir("/e", 0o755, CALLER)
    write(fs, "/e/x", b"")
    with pytest.raises(DirectoryNotEmpty):
        fs.rename("/d", "/e")
    fs.unlink("/e/x")
    fs.rename("/d", "/e")
    assert "/e/virtual/x" in tree(fs)
    assert entries(fs, "/") == ["e"]


def test_virtual_directory_keeps_its_attributes_over_an_empty_one(
    mount: Mount, memory: MemoryStore, fs: Filesystem
) -> None:
    memory.put("virtual/x", b"theirs")
    fs.mkdir("/e", 0o700, CALLER)
    fs.set_xattr("/e", "of", b"the replaced one")
    mode = fs.stat("/virtual").attributes.mode
    fs.rename("/virtual", "/e")
    for seen in (fs, mount(memory)):
        assert tree(seen) == ["/e", "/e/x"]
        attributes = seen.stat("/e").attributes
        assert (attributes.mode, attributes.xattrs) == (mode, {})


def renaming(mount: Mount, *, onto_empty: bool) -> tuple[Filesystem, FailingStore, MemoryStore]:
    memory = MemoryStore()
    store = FailingStore(memory)
    fs = mount(store)
    a_tree(fs, memory)
    if onto_empty:
        fs.mkdir("/e", 0o755, CALLER)
    store.heal()
    return fs, store, memory


def count_rename_calls(mount: Mount, *, onto_empty: bool) -> int:
    fs, store, _ = renaming(mount, onto_empty=onto_empty)
    fs.rename("/d", "/e")
    return len(store.calls)


@pytest.mark.parametrize("onto_empty", [False, True])
def test_directory_rename_that_fails_at_any_request_loses_nothing(
    mount: Mount, clock: ManualClock, onto_empty: bool
) -> None:
    for number in range(count_rename_calls(mount, onto_empty=onto_empty)):
        fs, store, memory = renaming(mount, onto_empty=onto_empty)
        before, names = memory.bodies, tree(mount(memory))
        store.fail_call(number, Unavailable("no service"))
        with pytest.raises(Unavailable):
            fs.rename("/d", "/e")
        was_complete = store.calls[number] in ("delete", "delete_batch")
        store.heal()
        clock.advance(1)
        if was_complete:
            assert tree(mount(memory), "/e") == [
                "/e/0",
                "/e/1",
                "/e/2",
                "/e/empty",
                "/e/virtual",
                "/e/virtual/x",
            ]
            assert {memory.bodies[name] for name in memory.bodies if name.startswith("e/")} == set(
                before.values()
            )
        else:
            assert (memory.bodies, tree(mount(memory))) == (before, names)
        assert tree(fs) == tree(mount(memory))


def test_open_file_follows_a_directory_rename_that_could_not_delete_all(
    mount: Mount, memory: MemoryStore
) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    write(fs, "/d/a", b"a")
    write(fs, "/d/b", b"b")
    handles = {name: fs.handles.open(f"/d/{name}", os.O_RDWR).handle for name in "ab"}
    store.heal()
    fs.rename("/d", "/e")
    deletes = [number for number, method in enumerate(store.calls) if method == "delete"]
    store.fail_call(deletes[0], Unavailable("no service"))
    with pytest.raises(Unavailable):
        fs.rename("/e", "/f")
    store.heal()
    for handle in handles.values():
        fs.handles.write(handle, 1, memoryview(b"!"))
        close(fs, handle)
    assert sorted(name for name, body in memory.bodies.items() if body.endswith(b"!")) == ["e/b", "f/a"]


def many(memory: MemoryStore) -> list[str]:
    names = [f"{number:02}" for number in range(40)]
    for name in names:
        memory.put(f"d/{name}", name.encode())
    return names


def test_many_files_are_moved_by_few_requests(fs: Filesystem, memory: MemoryStore) -> None:
    names = many(memory)
    handle = fs.handles.open("/d/07", os.O_RDONLY).handle
    memory.requests.clear()
    fs.rename("/d", "/e")
    assert memory.requests["POST batch"] <= len(names) / 2
    assert memory.requests["DELETE blob"] == 1  # what is open waits for its new name
    assert memory.bodies == {f"e/{name}": name.encode() for name in names}
    assert entries(fs, "/e") == names
    assert read_handle(fs, handle) == b"07"


def test_file_that_is_opened_while_the_first_are_moved_waits_for_its_new_name(
    fs: Filesystem, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, delete_batch, handles = many(memory), memory.delete_batch, []

    def open_last(versions: Sequence[BlobVersion]) -> Sequence[BlobVersion]:
        if not handles:
            handles.append(fs.handles.open(f"/d/{names[-1]}", os.O_RDONLY).handle)
        return delete_batch(versions)

    monkeypatch.setattr(memory, "delete_batch", open_last)
    fs.rename("/d", "/e")
    assert memory.requests["DELETE blob"] == 1
    assert read_handle(fs, handles[0]) == names[-1].encode()


def test_file_that_another_client_replaced_stays_while_the_others_move(
    fs: Filesystem, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, delete_batch, is_first = many(memory), memory.delete_batch, True

    def overtaken(versions: Sequence[BlobVersion]) -> Sequence[BlobVersion]:
        nonlocal is_first
        if is_first:
            memory.put(versions[0].name, b"newer")
        is_first = False
        return delete_batch(versions)

    monkeypatch.setattr(memory, "delete_batch", overtaken)
    with pytest.raises(Changed):
        fs.rename("/d", "/e")
    assert sorted(name for name in memory.bodies if name.startswith("e/")) == [f"e/{name}" for name in names]
    assert [body for name, body in memory.bodies.items() if name.startswith("d/")] == [b"newer"]
    assert len(entries(fs, "/d")) == 1


def test_open_files_move_though_no_batch_can_be_sent(mount: Mount, memory: MemoryStore) -> None:
    store = FailingStore(memory)
    fs, names = mount(store), many(memory)
    handle = fs.handles.open(f"/d/{names[0]}", os.O_RDWR).handle
    store.fail_method("delete_batch", Unavailable("no service"))
    with pytest.raises(Unavailable):
        fs.rename("/d", "/e")
    store.heal()
    fs.handles.write(handle, 0, memoryview(b"!"))
    close(fs, handle)
    assert f"d/{names[0]}" not in memory.bodies
    assert memory.bodies[f"e/{names[0]}"].startswith(b"!")


@pytest.mark.parametrize("carried_out", [False, True])
def test_files_of_which_it_is_unknown_whether_they_were_deleted_are_in_the_new_place(
    mount: Mount, memory: MemoryStore, clock: ManualClock, carried_out: bool
) -> None:
    store = FailingStore(memory)
    fs, names = mount(store), many(memory)
    store.fail_method("delete_batch", Unavailable("no service"), carried_out=carried_out)
    with pytest.raises(Unavailable):
        fs.rename("/d", "/e")
    store.heal()
    clock.advance(1)
    assert entries(fs, "/e") == names
    assert entries(fs, "/") == (["e"] if carried_out else ["d", "e"])


def test_directory_replaces_an_empty_one_where_both_have_markers_in_the_old_style(
    fs: Filesystem, memory: MemoryStore
) -> None:
    for name in ("a/", "b/", "a/x"):
        memory.put(name, b"")
    fs.rename("/a", "/b")
    assert sorted(memory.bodies) == ["b/", "b/x"]


def test_hidden_name_follows_its_directory(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("d/x", b"old")
    memory.put("d/y", b"1")
    handle = fs.handles.open("/d/x", os.O_RDONLY).handle
    fs.rename("/d/x", f"/d{HIDDEN}")
    later(fs)
    fs.rename("/d", "/e")
    assert fs.stat(f"/e{HIDDEN}").size_bytes == 3
    fs.unlink(f"/e{HIDDEN}")
    assert read_handle(fs, handle) == b"old"
    fs.handles.release(handle)
    with pytest.raises(Changed):
        fs.stat(f"/e{HIDDEN}")
    assert memory.bodies == {"e/y": b"1"}


@pytest.mark.parametrize("onto_empty", [False, True])
def test_directory_rename_copies_nothing_while_the_credential_shows_that_it_may_not_delete(
    mount: Mount, onto_empty: bool
) -> None:
    fs, _, memory = renaming(mount, onto_empty=onto_empty)
    before, names = memory.bodies, tree(fs)
    memory.may_delete = False
    with pytest.raises(AccessDenied, match=r"^d: "):
        fs.rename("/d", "/e")
    assert (memory.bodies, tree(fs)) == (before, names)
    memory.may_delete = True
    fs.rename("/d", "/e")
    assert entries(fs, "/") == ["e"]


def test_directory_rename_whose_deletions_are_refused_unforeseen_says_what_stands(
    mount: Mount, caplog: pytest.LogCaptureFixture
) -> None:
    fs, _, memory = renaming(mount, onto_empty=False)
    caplog.set_level("INFO")
    memory.may_delete = memory.shows_rights = False
    with pytest.raises(AccessDenied):
        fs.rename("/d", "/e")
    assert "/e is complete, but not all of /d could be deleted: " in caplog.text
    assert entries(fs, "/") == ["d", "e"]
