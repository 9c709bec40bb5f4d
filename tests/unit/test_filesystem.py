"""Operations by path: what they cost, what they change, and what other mounts see of it."""

import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import CALLER, DEFAULTS, FailingStore, ManualClock, MemoryStore, filesystem_of, machine
from syscalls import BLOCK, BODY, Mount, close, create, entries, read, write, write_new

from blobfs.errors import NotFound, ReadOnly, Unavailable
from blobfs.filesystem.filesystem import Filesystem
from blobfs.tree.copy_detector import STREAK

COPY_THREAD = 77


def test_copy_of_a_small_file_is_one_put(fs: Filesystem, memory: MemoryStore) -> None:
    fs.stat("/")
    entries(fs, "/")
    memory.requests.clear()
    with pytest.raises(NotFound):
        fs.stat("/x")
    memory.requests.clear()
    handle = create(fs, "/x", os.O_WRONLY)
    fs.handles.write(handle, 0, memoryview(b"bytes"))
    fs.chmod("/x", 0o600)
    fs.set_times("/x", 5, 7)
    close(fs, handle)
    assert fs.stat("/x").size_bytes == 5
    assert memory.requests == {"PUT blob": 1}
    assert memory.bodies == {"x": b"bytes"}


def test_copy_of_many_files_costs_one_request_each_beyond_the_first_few(
    fs: Filesystem, memory: MemoryStore
) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    memory.requests.clear()
    for number in range(100):
        with pytest.raises(NotFound):
            fs.stat(f"/d/{number}", lambda: COPY_THREAD)
        write_new(fs, f"/d/{number}", b"1")
    assert memory.requests == {"PUT blob": 100, "LIST": STREAK}


def test_name_that_another_node_has_just_made_is_found_where_this_one_makes_and_removes_names(
    fs: Filesystem, memory: MemoryStore
) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    for number in range(20):
        write_new(fs, f"/d/{number}", b"1")
        with pytest.raises(NotFound):
            fs.stat("/d/theirs")
    fs.unlink("/d/0")
    memory.put("d/theirs", b"new")
    memory.put("d/0", b"again")
    assert read(fs, "/d/theirs") == b"new"
    assert read(fs, "/d/0") == b"again"


def test_listing_gives_the_attributes_of_all(fs: Filesystem, memory: MemoryStore) -> None:
    for number in range(10):
        memory.put(f"d/{number}", bytes(number), {"permissions": str(stat.S_IFREG | 0o600)})
    listed = dict(fs.directories.entries("/d"))
    for number in range(10):
        found = fs.stat(f"/d/{number}")
        assert found == listed[f"{number}"]
        assert (found.size_bytes, found.attributes.mode) == (number, stat.S_IFREG | 0o600)
    assert memory.requests == {"LIST": 1}


def test_second_look_costs_nothing_while_names_are_believed(
    fs: Filesystem, memory: MemoryStore, clock: ManualClock
) -> None:
    memory.put("x", b"1")
    fs.stat("/x")
    memory.requests.clear()
    clock.advance(0.9)
    fs.stat("/x")
    assert memory.requests == {}
    clock.advance(0.2)
    fs.stat("/x")
    assert memory.requests.total() == 1


def test_file_is_there_for_this_mount_before_its_commit_and_for_others_after(
    fs: Filesystem, mount: Mount, clock: ManualClock
) -> None:
    other = mount()
    handle = create(fs, "/x")
    fs.handles.write(handle, 0, memoryview(BODY))
    assert (entries(fs, "/"), fs.stat("/x").size_bytes) == (["x"], len(BODY))
    assert read(fs, "/x") == BODY
    assert entries(other, "/") == []
    close(fs, handle)
    clock.advance(1)
    assert (entries(other, "/"), read(other, "/x")) == (["x"], BODY)


def test_sync_commits_every_file_and_names_the_failure(mount: Mount, memory: MemoryStore) -> None:
    store = FailingStore(memory)
    fs = mount(store)
    for name in "abc":
        fs.handles.write(create(fs, f"/{name}"), 0, memoryview(b"1"))
    store.fail_call(0, Unavailable("no service"))
    with pytest.raises(Unavailable):
        fs.sync("/")
    assert len(memory.bodies) == 2
    assert len(list(fs.commits.uncommitted())) == 1
    fs.sync("/")
    assert (len(memory.bodies), list(fs.commits.uncommitted())) == (3, [])


def test_read_only_mount_refuses_every_change(mount: Mount, memory: MemoryStore) -> None:
    memory.put("x", b"1")
    fs = mount(read_only=True)
    changes: list[Callable[[], object]] = [
        lambda: create(fs, "/new"),
        lambda: fs.handles.open("/x", os.O_WRONLY),
        lambda: fs.unlink("/x"),
        lambda: fs.rename("/x", "/y"),
        lambda: fs.mkdir("/d", 0o755, CALLER),
        lambda: fs.rmdir("/d"),
        lambda: fs.symlink("x", "/link", CALLER),
        lambda: fs.mknod("/fifo", stat.S_IFIFO, 0, CALLER),
        lambda: fs.chmod("/x", 0o600),
        lambda: fs.handles.truncate_path("/x", 0),
    ]
    for change in changes:
        with pytest.raises(ReadOnly):
            change()
    assert read(fs, "/x") == b"1"
    assert memory.bodies == {"x": b"1"}


def test_sync_of_a_directory_commits_what_is_open_below_it(fs: Filesystem, memory: MemoryStore) -> None:
    fs.mkdir("/d", 0o755, CALLER)
    for path in ("/d/x", "/dx", "/d/y"):
        fs.handles.write(create(fs, path), 0, memoryview(b"1"))
    fs.sync("/d/y")
    assert set(memory.bodies) == {"d", "d/y"}
    fs.sync("/d")
    assert set(memory.bodies) == {"d", "d/x", "d/y"}
    fs.sync("/")
    assert "dx" in memory.bodies


@pytest.mark.parametrize("kind", ["fs", "behind"])
def test_sync_of_an_open_directory_sends_a_closed_temporary_file_and_none_that_is_open(
    kind: str, request: pytest.FixtureRequest, memory: MemoryStore
) -> None:
    fs: Filesystem = request.getfixturevalue(kind)
    for path in ("/d", "/d/e"):
        fs.mkdir(path, 0o755, CALLER)
    for path in ("/d/.x.Ab12Cd", "/d/e/.x.Ab12Cd"):
        write(fs, path, b"bytes")
    handle = create(fs, "/d/open")
    directory = fs.directories.open("/d")
    fs.sync_directory(directory)
    assert memory.bodies == {"d": b"", "d/e": b"", "d/.x.Ab12Cd": b"bytes"}
    close(fs, handle)


def test_link_that_was_made_here_is_read_without_a_request(fs: Filesystem, memory: MemoryStore) -> None:
    fs.symlink("target", "/link", CALLER)
    fs.chown("/link", 7, 8)
    fs.set_times("/link", 1, 2)
    memory.requests.clear()
    assert fs.readlink("/link") == "target"
    assert not memory.requests


def test_attributes_survive_a_remount(fs: Filesystem, mount: Mount) -> None:
    write(fs, "/x", b"1")
    fs.mkdir("/d", 0o750, CALLER)
    fs.symlink("target/of it", "/link", CALLER)
    fs.mknod("/fifo", stat.S_IFIFO | 0o600, 0, CALLER)
    fs.mknod("/device", stat.S_IFCHR | 0o600, os.makedev(1, 3), CALLER)
    fs.chmod("/x", 0o4751)
    fs.chown("/x", 7, -1)
    fs.set_times("/x", 123_456_789, 987_654_321)
    fs.set_xattr("/x", "colour", b"dark\0blue")
    expected = {name: (found.attributes, found.size_bytes) for name, found in fs.directories.entries("/")}
    again = {name: (found.attributes, found.size_bytes) for name, found in mount().directories.entries("/")}
    del expected["d"], again["d"]
    assert again == expected
    assert again["x"][0].uid == 7
    assert mount().readlink("/link") == "target/of it"
    assert stat.S_IMODE(mount().stat("/d").attributes.mode) == 0o750


def test_change_of_attributes_survives_a_replaced_blob(fs: Filesystem, memory: MemoryStore) -> None:
    memory.put("x", b"old")
    fs.stat("/x")
    memory.put("x", b"new", {"theirs": "kept"})
    fs.chmod("/x", 0o600)
    assert stat.S_IMODE(fs.stat("/x").attributes.mode) == 0o600
    assert memory.head("x").metadata["theirs"] == "kept"
    assert fs.stat("/x").size_bytes == 3


def test_virtual_directory_gets_a_marker_when_its_attributes_are_set(
    fs: Filesystem, memory: MemoryStore
) -> None:
    memory.put("d/x", b"")
    assert fs.stat("/d").attributes.mode == DEFAULTS.directory_mode
    fs.chmod("/d", 0o700)
    assert stat.S_IMODE(fs.stat("/d").attributes.mode) == 0o700
    assert memory.head("d").metadata["hdi_isfolder"] == "true"
    assert entries(fs, "/d") == ["x"]


def test_set_gid_directory_hands_its_group_down(fs: Filesystem) -> None:
    fs.mkdir("/d", 0o2755, CALLER)
    fs.chown("/d", -1, 42)
    write(fs, "/d/x", b"")
    fs.mkdir("/d/e", 0o755, CALLER)
    assert fs.stat("/d/x").attributes.gid == fs.stat("/d/e").attributes.gid == 42
    assert fs.stat("/d/e").attributes.mode & stat.S_ISGID


def test_names_that_cannot_be_shown_are_reported(fs: Filesystem, memory: MemoryStore) -> None:
    for name in ("d/good", "d//x", "d/new\nline", "d/both", "d/both/x"):
        memory.put(name, b"1")
    assert entries(fs, "/d") == ["both", "good"]
    assert set(fs.hidden("/d")) == {"d//", "d/new\nline", "d/both"}
    assert entries(fs, "/d/both") == ["x"]


def test_many_threads_work_in_one_directory_at_once(memory: MemoryStore, clock: ManualClock) -> None:
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(30)
        for step in range(15):
            path = f"/d/{number}-{step}"
            write_new(fs, path, BODY * 3)
            assert read(fs, path) == BODY * 3
            fs.rename(path, path + "-renamed")
            if step % 3 == 0:
                fs.unlink(path + "-renamed")
            entries(fs, "/d")

    with machine(memory, block_bytes=BLOCK) as parts:
        fs = filesystem_of(parts, clock)
        fs.mkdir("/d", 0o755, CALLER)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        assert len(entries(fs, "/d")) == 8 * 10
        assert parts.pool.in_use_bytes <= parts.pool.budget_bytes
    assert len(memory.bodies) == 1 + 8 * 10


def test_link_that_was_replaced_elsewhere_leads_to_its_new_target(mount: Mount) -> None:
    here, there = mount(), mount()
    there.symlink("one", "/link", CALLER)
    here.stat("/link")
    there.unlink("/link")
    there.symlink("two", "/link", CALLER)
    assert here.readlink("/link") == "two"
