"""Changes of directories' attributes, sent at once or with write-back: what is shown, sent, and when."""

import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fakes import CALLER, FailingStore, ManualClock, MemoryStore, filesystem_of, machine
from syscalls import Mount, later

from blobfs.errors import DirectoryNotEmpty, NoSpace, NotFound, ReadOnly, Unavailable
from blobfs.filesystem.commits import WriteBack
from blobfs.filesystem.directory_commits import MOST_CHANGES
from blobfs.filesystem.filesystem import Filesystem
from blobfs.store import ALWAYS, BlobStore

AWAY = Unavailable("away")
DAYS_NS = 10**15
SENT = ["set_metadata"]


@pytest.fixture
def mount(store: FailingStore) -> Iterator[Mount]:
    """Call it for one more mount of the same container, where two directories and no file may wait."""
    with ExitStack() as stack:

        def mount(store: BlobStore = store, *, behind: bool = True, **options: object) -> Filesystem:
            parts = stack.enter_context(machine(store, block_bytes=1, inline=True))
            limits = WriteBack(files=2, buffered_bytes=0) if behind else None
            return filesystem_of(parts, ManualClock(), write_back=limits, **options)  # type: ignore[arg-type]

        yield mount


@pytest.fixture
def fs(mount: Mount, store: FailingStore) -> Filesystem:
    """A mount with two directories."""
    fs = mount()
    for path in ("/d", "/e"):
        fs.mkdir(path, 0o755, CALLER)
    store.calls.clear()
    return fs


def mode(fs: Filesystem, path: str) -> int:
    return stat.S_IMODE(fs.stat(path).attributes.mode)


def stored_mode(mount: Mount, path: str) -> int:
    return mode(mount(), path)


def sent(store: FailingStore) -> list[str]:
    return [call for call in store.calls if call not in ("list_page", "head", "last_write", "is_overtaken")]


def test_without_write_back_each_change_is_sent_at_once(mount: Mount, store: FailingStore) -> None:
    fs = mount(behind=False)
    fs.mkdir("/d", 0o755, CALLER)
    store.calls.clear()
    fs.chmod("/d", 0o700)
    fs.chown("/d", 7, 8)
    assert sent(store) == SENT * 2
    assert not list(fs.uncommitted())


def test_changes_are_shown_at_once_and_sent_together_a_while_later(
    fs: Filesystem, mount: Mount, store: FailingStore
) -> None:
    fs.chmod("/d", 0o1700)
    fs.chown("/d", 7, 8)
    fs.set_times("/d", 1, 2)
    fs.set_xattr("/d", "colour", b"red")
    shown = fs.stat("/d").attributes
    assert (stat.S_IMODE(shown.mode), shown.uid, shown.gid) == (0o1700, 7, 8)
    assert (shown.atime_ns, shown.mtime_ns, shown.xattrs) == (1, 2, {"colour": b"red"})
    assert fs.stat("/d").attributes == shown
    assert dict(fs.directories.entries("/"))["d"].attributes == shown
    assert sent(store) == []
    assert [(file.path, file.has_failed) for file in fs.uncommitted()] == [("/d", False)]
    later(fs)
    assert sent(store) == SENT
    assert not list(fs.uncommitted())
    assert fs.stat("/d").attributes == shown == mount().stat("/d").attributes
    later(fs)
    assert sent(store) == SENT


def test_new_entries_change_the_time_of_a_directory_as_they_come(fs: Filesystem, mount: Mount) -> None:
    fs.mkdir("/d/a", 0o755, CALLER)
    by_entry_ns = fs.stat("/d").attributes.mtime_ns
    fs.chmod("/d", 0o700)
    assert fs.stat("/d").attributes.mtime_ns == by_entry_ns
    fs.set_times("/d", None, DAYS_NS)
    assert fs.stat("/d").attributes.mtime_ns == DAYS_NS
    fs.mkdir("/d/b", 0o755, CALLER)
    by_entry_ns = fs.stat("/d").attributes.mtime_ns
    assert by_entry_ns > DAYS_NS
    later(fs)
    assert fs.stat("/d").attributes.mtime_ns == by_entry_ns
    assert mount().stat("/d").attributes.mtime_ns == by_entry_ns
    fs.set_times("/d", None, DAYS_NS)
    later(fs)
    assert mount().stat("/d").attributes.mtime_ns == fs.stat("/d").attributes.mtime_ns == DAYS_NS


@pytest.mark.parametrize(
    "barrier",
    [
        lambda fs: fs.sync("/"),
        lambda fs: fs.sync("/d"),
        lambda fs: fs.sync_directory(fs.directories.open("/d")),
    ],
)
def test_barriers_send_what_waits_and_tell_of_failures(
    fs: Filesystem, mount: Mount, store: FailingStore, barrier: Callable[[Filesystem], None]
) -> None:
    fs.chmod("/d", 0o700)
    store.fail_method("set_metadata", AWAY)
    for _ in range(2):
        with pytest.raises(Unavailable):
            barrier(fs)
    assert [(file.path, file.reason, file.has_failed) for file in fs.uncommitted()] == [("/d", "away", True)]
    assert mode(fs, "/d") == 0o700
    store.heal()
    barrier(fs)
    assert not list(fs.uncommitted())
    assert stored_mode(mount, "/d") == 0o700


def test_a_barrier_of_one_directory_leaves_others_alone(fs: Filesystem, store: FailingStore) -> None:
    fs.chmod("/d", 0o700)
    fs.chmod("/e", 0o700)
    fs.sync("/d")
    assert sent(store) == SENT
    assert [file.path for file in fs.uncommitted()] == ["/e"]


def test_what_fails_is_kept_and_tried_again(
    fs: Filesystem, mount: Mount, store: FailingStore, caplog: pytest.LogCaptureFixture
) -> None:
    fs.chmod("/d", 0o700)
    store.fail_method("set_metadata", AWAY)
    for _ in range(3):
        later(fs)
    assert sent(store) == SENT * 3
    assert caplog.text.count("not stored yet, but kept: away") == 1
    store.heal()
    later(fs)
    assert "of /d are stored after all" in caplog.text
    assert stored_mode(mount, "/d") == 0o700
    later(fs)
    assert sent(store) == SENT


def test_a_change_made_while_older_ones_are_sent_is_sent_after_them(
    fs: Filesystem, mount: Mount, store: FailingStore
) -> None:
    fs.chmod("/d", 0o700)

    def change_once_more(method: str) -> None:
        if method == "set_metadata":
            store.on_call = lambda _method: None
            fs.chmod("/d", 0o711)

    store.on_call = change_once_more
    later(fs)
    assert stored_mode(mount, "/d") == 0o700
    assert mode(fs, "/d") == 0o711
    later(fs)
    assert stored_mode(mount, "/d") == 0o711
    assert not list(fs.uncommitted())


def test_changes_are_made_on_what_somebody_else_has_stored_meanwhile(fs: Filesystem, mount: Mount) -> None:
    fs.chmod("/d", 0o700)
    mount(behind=False).chown("/d", 7, 8)
    later(fs)
    found = mount().stat("/d").attributes
    assert (stat.S_IMODE(found.mode), found.uid, found.gid) == (0o700, 7, 8)


def test_a_directory_that_somebody_else_removed_stays_removed(fs: Filesystem, memory: MemoryStore) -> None:
    fs.chmod("/d", 0o700)
    memory.delete("d", ALWAYS)
    later(fs)
    assert not list(fs.uncommitted())
    assert list(memory.bodies) == ["e"]


def test_a_directory_made_anew_has_nothing_of_one_that_was_removed(
    fs: Filesystem, mount: Mount, memory: MemoryStore
) -> None:
    fs.chmod("/d", 0o700)
    memory.delete("d", ALWAYS)
    fs.mkdir("/d", 0o711, CALLER)
    assert mode(fs, "/d") == 0o711
    later(fs)
    assert stored_mode(mount, "/d") == 0o711


def test_a_directory_made_anew_after_rmdir_has_nothing_of_the_old_one(fs: Filesystem, mount: Mount) -> None:
    fs.chmod("/d", 0o700)
    fs.rmdir("/d")
    assert not list(fs.uncommitted())
    fs.mkdir("/d", 0o711, CALLER)
    later(fs)
    assert mode(fs, "/d") == stored_mode(mount, "/d") == 0o711


def test_changes_survive_a_removal_that_is_refused(fs: Filesystem, mount: Mount) -> None:
    fs.mkdir("/d/a", 0o755, CALLER)
    fs.chmod("/d", 0o700)
    with pytest.raises(DirectoryNotEmpty):
        fs.rmdir("/d")
    later(fs)
    assert mode(fs, "/d") == stored_mode(mount, "/d") == 0o700


def test_a_renamed_tree_takes_its_changes_along(fs: Filesystem, mount: Mount) -> None:
    fs.mkdir("/d/a", 0o755, CALLER)
    fs.chmod("/d", 0o700)
    fs.chmod("/d/a", 0o711)
    fs.chmod("/e", 0o744)
    fs.rename("/d", "/e")
    assert [mode(fs, path) for path in ("/e", "/e/a")] == [0o700, 0o711]
    later(fs)
    assert [stored_mode(mount, path) for path in ("/e", "/e/a")] == [0o700, 0o711]
    with pytest.raises(NotFound):
        fs.stat("/d")


def test_a_rename_fails_while_changes_cannot_be_stored(fs: Filesystem, store: FailingStore) -> None:
    fs.chmod("/d", 0o700)
    store.fail_method("set_metadata", AWAY)
    with pytest.raises(Unavailable):
        fs.rename("/d", "/new")
    assert mode(fs, "/d") == 0o700


def test_beyond_a_number_of_directories_that_wait_changes_are_sent_at_once(
    fs: Filesystem, mount: Mount, store: FailingStore
) -> None:
    fs.mkdir("/f", 0o755, CALLER)
    store.calls.clear()
    for path in ("/d", "/e", "/f", "/d"):
        fs.chmod(path, 0o700)
    assert sent(store) == SENT
    assert [file.path for file in fs.uncommitted()] == ["/d", "/e"]
    assert stored_mode(mount, "/f") == 0o700


def test_beyond_a_number_of_changes_of_one_directory_they_are_sent(
    fs: Filesystem, mount: Mount, store: FailingStore
) -> None:
    for permissions in range(MOST_CHANGES):
        fs.chmod("/d", permissions)
    assert sent(store) == []
    fs.chmod("/d", 0o700)
    assert sent(store) == SENT * 2
    assert not list(fs.uncommitted())
    assert mode(fs, "/d") == stored_mode(mount, "/d") == 0o700


def test_a_directory_without_a_marker_gets_it_at_once(
    mount: Mount, memory: MemoryStore, store: FailingStore
) -> None:
    memory.put("v/x", b"")
    fs = mount()
    fs.chmod("/v", 0o700)
    assert sent(store) == ["put_blob"]
    assert stored_mode(mount, "/v") == 0o700
    fs.chmod("/v", 0o711)
    assert sent(store) == ["put_blob"]
    memory.delete("v", ALWAYS)
    later(fs)
    assert stored_mode(mount, "/v") == 0o711


def test_bad_changes_are_refused_at_once(fs: Filesystem, mount: Mount, store: FailingStore) -> None:
    with pytest.raises(NoSpace):
        fs.set_xattr("/d", "large", bytes(9000))
    with pytest.raises(NotFound):
        fs.chmod("/none", 0o700)
    with pytest.raises(ReadOnly):
        mount(read_only=True).chmod("/d", 0o700)
    assert not list(fs.uncommitted())
    assert sent(store) == []


def test_below_a_prefix_paths_are_those_of_the_mount(mount: Mount) -> None:
    fs = mount(prefix="p/q/")
    fs.mkdir("/d", 0o755, CALLER)
    fs.chmod("/d", 0o700)
    fs.chmod("/", 0o700)
    assert [file.path for file in fs.uncommitted()] == ["/d"]
    fs.sync("/")
    assert not list(fs.uncommitted())
    assert stored_mode(mount, "/p/q/d") == 0o700


def test_changes_of_files_are_sent_at_once(fs: Filesystem, mount: Mount, memory: MemoryStore) -> None:
    memory.put("x", b"")
    fs.chmod("/x", 0o600)
    assert stored_mode(mount, "/x") == 0o600


def test_a_rename_over_a_changed_directory_makes_each_copy_once(
    fs: Filesystem, mount: Mount, store: FailingStore
) -> None:
    fs.mkdir("/d/a", 0o755, CALLER)
    fs.chmod("/e", 0o700)
    store.calls.clear()
    fs.rename("/d", "/e")
    assert [sent(store).count(call) for call in ("set_metadata", "copy", "delete")] == [0, 2, 2]
    later(fs)
    assert mode(fs, "/e") == stored_mode(mount, "/e") == 0o755


def test_a_rename_that_fails_leaves_the_changes_of_its_target(
    fs: Filesystem, mount: Mount, store: FailingStore
) -> None:
    fs.mkdir("/d/a", 0o755, CALLER)
    fs.chmod("/e", 0o700)
    store.fail_method("copy", AWAY)
    with pytest.raises(Unavailable):
        fs.rename("/d", "/e")
    store.heal()
    assert mode(fs, "/e") == 0o700
    later(fs)
    assert stored_mode(mount, "/e") == 0o700


def test_a_renamed_directory_whose_marker_was_removed_leaves_nothing_behind(
    fs: Filesystem, mount: Mount, memory: MemoryStore
) -> None:
    memory.put("d/x", b"")
    fs.chmod("/d", 0o700)
    memory.delete("d", ALWAYS)
    fs.volume.namespace.forget("/d")
    fs.rename("/d", "/new")
    later(fs)
    assert sorted(memory.bodies) == ["e", "new", "new/x"]
    assert mode(fs, "/new") == stored_mode(mount, "/new") == 0o700


@pytest.mark.parametrize("below", ["", "/a"])
def test_a_directory_renamed_to_the_name_of_a_removed_one_has_nothing_of_it(
    fs: Filesystem, mount: Mount, memory: MemoryStore, below: str
) -> None:
    for path in ("/d/a", "/e/a"):
        fs.mkdir(path, 0o755, CALLER)
    fs.chmod(f"/d{below}", 0o700)
    for name in ("d/a", "d"):
        memory.delete(name, ALWAYS)
    for path in ("/d", "/d/a"):
        fs.volume.namespace.forget(path)
    fs.rename("/e", "/d")
    later(fs)
    assert mode(fs, f"/d{below}") == stored_mode(mount, f"/d{below}") == 0o755


def test_attributes_that_somebody_else_has_set_stay(fs: Filesystem, mount: Mount) -> None:
    fs.set_xattr("/d", "ours", b"1")
    mount(behind=False).set_xattr("/d", "theirs", b"2")
    fs.set_xattr("/d", "ours", None)
    fs.set_xattr("/d", "also ours", b"3")
    later(fs)
    assert mount().stat("/d").attributes.xattrs == {"theirs": b"2", "also ours": b"3"}


def test_an_open_directory_is_sent_by_its_new_name(fs: Filesystem, mount: Mount) -> None:
    fs.mkdir("/d/a", 0o755, CALLER)
    handles = [fs.directories.open(path) for path in ("/d", "/d/a")]
    fs.rename("/d", "/new")
    for handle, path in zip(handles, ("/new", "/new/a"), strict=True):
        fs.chmod(path, 0o700)
        fs.sync_directory(handle)
        assert stored_mode(mount, path) == 0o700
        assert [entry for entry, _ in fs.directories.read(handle, restart=True)][:2] == [".", ".."]
    assert not list(fs.uncommitted())


def test_a_directory_whose_changes_are_refused_can_be_removed_and_made_anew(
    fs: Filesystem, store: FailingStore
) -> None:
    fs.chmod("/d", 0o700)
    store.fail_method("set_metadata", AWAY)
    with pytest.raises(Unavailable):
        fs.sync("/")
    fs.rmdir("/d")
    fs.mkdir("/d", 0o755, CALLER)
    fs.chmod("/d", 0o700)
    assert [file.has_failed for file in fs.uncommitted()] == [False]
