"""Two mounts of one container, as two nodes have them: what each sees of what the other does."""

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from mounts import Mount, Mounts, blobfs, on_both_bindings
from unix import refused
from waiting import wait_until

MiB = 1 << 20


@pytest.fixture(scope="module")
def other_mount(shared_mounts: Mounts) -> Mount:
    """The container mounted a second time."""
    return shared_mounts()


@pytest.fixture
def there(other_mount: Mount, directory: Path) -> Path:
    """The same directory in the second mount."""
    return other_mount.path / directory.name


@pytest.fixture
def here(directory: Path) -> Path:
    """The directory in the first mount."""
    return directory


# Close to open


def test_an_open_after_a_close_elsewhere_sees_the_new_bytes(here: Path, there: Path) -> None:
    versions = [b"one", b"another", b"2", b"", b"x" * 70_000, b"y" * 70_000, b"z" * (9 * MiB), b"end"]
    for version in versions:
        (here / "file").write_bytes(version)
        assert (there / "file").read_bytes() == version
        (there / "file").write_bytes(version + b"!")
        assert (here / "file").read_bytes() == version + b"!"


def test_an_open_sees_what_was_appended_truncated_and_overwritten_elsewhere(here: Path, there: Path) -> None:
    content = bytearray(os.urandom(100_000))
    (here / "file").write_bytes(content)
    assert (there / "file").read_bytes() == content
    with (there / "file").open("ab") as file:
        file.write(b"appended")
    content += b"appended"
    assert (here / "file").read_bytes() == content
    with (here / "file").open("r+b") as file:
        file.seek(50_000)
        file.write(b"changed")
    content[50_000:50_007] = b"changed"
    assert (there / "file").read_bytes() == content
    os.truncate(there / "file", 60_000)
    assert (here / "file").read_bytes() == content[:60_000]


def test_fstat_after_open_tells_the_new_size(here: Path, there: Path) -> None:
    (here / "file").write_bytes(b"short")
    assert (there / "file").stat().st_size == 5
    (here / "file").write_bytes(b"much longer")
    with (there / "file").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == 11
        assert file.seek(0, os.SEEK_END) == 11


def test_a_map_after_open_shows_the_new_bytes(here: Path, there: Path) -> None:
    for letter in (b"a", b"b", b"c"):
        (here / "file").write_bytes(letter * 10_000)
        with (there / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == letter * 10_000


def test_a_file_made_elsewhere_is_found_though_it_was_missing_a_moment_ago(
    mount: Mounts,
) -> None:
    here, there = mount().path, mount().path
    for name in ("one", "two", "three"):
        with refused(errno.ENOENT):
            (there / name).read_bytes()
        (here / name).write_text(name)
        assert (there / name).read_text() == name


def test_a_file_removed_elsewhere_while_it_is_read_is_estale(here: Path, there: Path) -> None:
    (here / "file").write_bytes(bytes(8 * MiB))
    with (there / "file").open("rb", buffering=0) as file:
        os.pread(file.fileno(), 4096, 4 * MiB)
        (here / "file").unlink()
        assert os.fstat(file.fileno()).st_size == 8 * MiB
        with refused(errno.ESTALE):
            os.pread(file.fileno(), 4096, 6 * MiB)


def test_a_file_removed_elsewhere_is_gone_at_the_next_open(here: Path, there: Path) -> None:
    (here / "file").write_bytes(b"content")
    assert (there / "file").read_bytes() == b"content"
    (here / "file").unlink()
    with refused(errno.ENOENT):
        (there / "file").read_bytes()


def test_a_file_removed_elsewhere_is_made_anew_by_who_opens_it_to_append(here: Path, there: Path) -> None:
    (here / "file").write_bytes(b"content")
    assert (there / "file").read_bytes() == b"content"
    (here / "file").unlink()
    with (there / "file").open("ab") as file:
        file.write(b"new")
    assert (there / "file").read_bytes() == b"new"


def test_a_file_renamed_over_elsewhere_is_the_new_one_at_the_next_open(here: Path, there: Path) -> None:
    for version in (b"one", b"two", b"three"):
        (here / "new").write_bytes(version)
        (here / "new").rename(here / "file")
        assert (there / "file").read_bytes() == version


# Listings and attributes


def test_a_listing_shows_what_changed_elsewhere_soon(here: Path, there: Path) -> None:
    assert os.listdir(there) == []
    (here / "file").write_bytes(b"content")
    (here / "below").mkdir()
    wait_until(lambda: sorted(os.listdir(there)) == ["below", "file"])
    (here / "file").unlink()
    wait_until(lambda: os.listdir(there) == ["below"])


@on_both_bindings
def test_without_an_attribute_timeout_every_change_elsewhere_shows_at_once(mount: Mounts) -> None:
    here, there = (mount("--attr-timeout", "0").path for _ in range(2))
    for number in range(10):
        (here / f"{number}").write_bytes(bytes(number))
        assert len(os.listdir(there)) == number + 1
        assert (there / f"{number}").stat().st_size == number
        (here / f"{number}").chmod(0o600)
        assert (there / f"{number}").stat().st_mode & 0o777 == 0o600
    for number in range(10):
        (there / f"{number}").unlink()
        assert not (here / f"{number}").exists()
    (here / "below").mkdir()
    (there / "below" / "file").touch()
    with refused(errno.ENOTEMPTY):
        (here / "below").rmdir()


def test_attributes_changed_elsewhere_show_soon(here: Path, there: Path) -> None:
    (here / "file").write_bytes(b"content")
    assert (there / "file").stat().st_mode & 0o777 == 0o644
    (here / "file").chmod(0o600)
    wait_until(lambda: (there / "file").stat().st_mode & 0o777 == 0o600)
    os.utime(there / "file", ns=(1, 2))
    wait_until(lambda: (here / "file").stat().st_mtime_ns == 2)


def test_attributes_changed_on_both_sides_are_both_kept(here: Path, there: Path) -> None:
    (here / "file").write_bytes(b"content")
    assert (there / "file").stat().st_uid == 0
    (here / "file").chmod(0o600)
    os.chown(there / "file", 7, 8)
    wait_until(lambda: (here / "file").stat().st_uid == 7)
    found = (there / "file").stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o600, 7, 8)


# Lost updates


@pytest.fixture
def pair(mount: Mounts) -> Iterator[tuple[Mount, Mount]]:
    """Two mounts of which the second loses a race: it has bytes that it can only give up."""
    winner, loser = mount(), mount()
    mount.expect_log("was closed without being committed")
    mount.expect_log("is not committed: ")
    mount.expect_log("ended: not committed: ")
    yield winner, loser
    with loser.ending():
        ended = blobfs("umount", "--force", loser.path)
    assert f"{loser.path}: giving up what is not committed:" in ended.stderr


@on_both_bindings
def test_who_closes_second_gets_estale_and_the_first_ones_bytes_stay(pair: tuple[Mount, Mount]) -> None:
    here, there = (mounted.path / "file" for mounted in pair)
    here.write_bytes(b"base")
    first, second = (os.open(path, os.O_RDWR) for path in (here, there))
    os.write(first, b"first")
    os.write(second, b"second")
    os.close(first)
    with refused(errno.ESTALE):
        os.close(second)
    assert here.read_bytes() == b"first"
    assert there.read_bytes() == b"first"


@on_both_bindings
def test_a_loser_stays_failed_and_says_so_every_time(pair: tuple[Mount, Mount]) -> None:
    here, there = (mounted.path / "file" for mounted in pair)
    here.write_bytes(b"base")
    second = os.open(there, os.O_WRONLY)
    os.write(second, b"second")
    here.write_bytes(b"first")
    for _ in range(2):
        with refused(errno.ESTALE):
            os.fsync(second)
        with refused(errno.ESTALE):
            os.write(second, b"more")
    with refused(errno.ESTALE):
        os.close(second)
    assert here.read_bytes() == b"first"


@on_both_bindings
def test_who_makes_a_new_file_second_gets_eexist(pair: tuple[Mount, Mount]) -> None:
    here, there = (mounted.path / "file" for mounted in pair)
    first, second = (os.open(path, os.O_CREAT | os.O_WRONLY) for path in (here, there))
    os.write(first, b"first")
    os.write(second, b"second")
    os.close(first)
    with refused(errno.EEXIST):
        os.close(second)
    assert here.read_bytes() == b"first"


@on_both_bindings
def test_an_append_to_what_was_appended_to_elsewhere_is_estale(pair: tuple[Mount, Mount]) -> None:
    here, there = (mounted.path / "file" for mounted in pair)
    here.write_bytes(b"base")
    second = os.open(there, os.O_APPEND | os.O_WRONLY)
    with here.open("ab") as file:
        file.write(b", first")
    with refused(errno.ESTALE):
        os.write(second, b", second")
    with refused(errno.ESTALE):
        os.close(second)
    assert here.read_bytes() == b"base, first"


@on_both_bindings
def test_a_file_removed_elsewhere_while_it_is_written_is_not_made_again(pair: tuple[Mount, Mount]) -> None:
    here, there = (mounted.path / "file" for mounted in pair)
    here.write_bytes(b"base")
    second = os.open(there, os.O_WRONLY)
    os.write(second, b"second")
    here.unlink()
    with refused(errno.ESTALE):
        os.close(second)
    assert os.listdir(here.parent) == []


@on_both_bindings
def test_after_a_lost_update_the_file_is_opened_and_written_again(mount: Mounts) -> None:
    first, second = mount(), mount()
    mount.expect_log("was closed without being committed")
    (first.path / "file").write_bytes(b"base")
    descriptor = os.open(second.path / "file", os.O_WRONLY)
    os.write(descriptor, b"lost")
    (first.path / "file").write_bytes(b"first")
    with refused(errno.ESTALE):
        os.close(descriptor)
    with (second.path / "file").open("ab") as file:
        file.write(b", second")
    assert (first.path / "file").read_bytes() == b"first, second"
    mount.unmount(second)


# Readers of what changes elsewhere


@pytest.fixture
def large(here: Path, there: Path) -> Iterator[int]:
    """A descriptor for reading of a file in the second mount, of which only the start was read."""
    content = b"old." * (4 * MiB)
    (here / "file").write_bytes(content)
    descriptor = os.open(there / "file", os.O_RDONLY)
    assert os.pread(descriptor, 4096, 0) == content[:4096]
    yield descriptor
    os.close(descriptor)


def read_on(descriptor: int) -> None:
    """Read to the end in pieces. Raises OSError; fails if a piece is not the old version's."""
    offset = 0
    while piece := os.pread(descriptor, MiB, offset):
        # Up to where bytes are missing it may be shorter, but whole words, because pages are.
        assert piece == b"old." * (len(piece) // 4)
        offset += len(piece)


def replaced(here: Path) -> None:
    (here / "file").write_bytes(b"new!" * (4 * MiB))


def renamed_over(here: Path) -> None:
    (here / "other").write_bytes(b"new!" * (4 * MiB))
    (here / "other").rename(here / "file")


def removed(here: Path) -> None:
    (here / "file").unlink()


def renamed(here: Path) -> None:
    (here / "file").rename(here / "elsewhere")


@pytest.mark.parametrize("change", [replaced, renamed_over, removed, renamed])
def test_a_reader_gets_estale_and_never_bytes_of_another_version(
    here: Path, large: int, change: Callable[[Path], None]
) -> None:
    change(here)
    with refused(errno.ESTALE):
        read_on(large)


def test_a_reader_that_opens_again_reads_the_new_version(here: Path, there: Path, large: int) -> None:
    replaced(here)
    with refused(errno.ESTALE):
        read_on(large)
    assert (there / "file").read_bytes() == b"new!" * (4 * MiB)


def test_a_reader_and_a_later_one_each_read_their_own_version(here: Path, there: Path) -> None:
    (here / "file").write_bytes(b"old")
    with (there / "file").open("rb", buffering=0) as early:
        assert early.read(1) == b"o"
        (here / "file").write_bytes(b"new")
        with (there / "file").open("rb", buffering=0) as late:
            assert late.read() == b"new"
        try:
            assert early.read() == b"ld"
        except OSError as error:
            # Its bytes were dropped from memory meanwhile, which is allowed.
            if error.errno != errno.ESTALE:
                raise


@pytest.mark.parametrize("size_bytes", [1000, 50_000], ids=["shorter", "longer"])
def test_a_reader_is_told_if_it_may_have_met_the_end_of_another_version(
    here: Path, there: Path, size_bytes: int
) -> None:
    (here / "file").write_bytes(b"old." * 5000)  # so few come with the open: none will be missing
    with refused(errno.ESTALE), ExitStack() as opened:
        descriptor = os.open(there / "file", os.O_RDONLY)
        opened.callback(os.close, descriptor)
        assert os.read(descriptor, 4) == b"old."
        (here / "file").write_bytes(b"n" * size_bytes)
        wait_until(lambda: (there / "file").stat().st_size == size_bytes)
        while os.read(descriptor, 4096):
            pass


# Directories


def test_a_rename_shows_nobody_the_bytes_that_a_writer_was_refused(pair: tuple[Mount, Mount]) -> None:
    there, here = (mounted.path for mounted in pair)
    (here / "old").write_bytes(b"a" * MiB)
    with refused(errno.ESTALE), (here / "old").open("r+b", buffering=0) as writer:
        os.pwrite(writer.fileno(), b"x" * MiB, 0)
        (there / "old").write_bytes(b"b" * MiB)
        with refused(errno.ESTALE):
            os.fsync(writer.fileno())
        (here / "old").rename(here / "new")
        with (here / "new").open("rb", buffering=0) as reader:
            refused_bytes = os.pread(writer.fileno(), MiB, 0)
            found = os.pread(reader.fileno(), MiB, 0)
    assert (refused_bytes, found) == (b"x" * MiB, b"b" * MiB)


def test_a_reader_is_told_of_another_end_after_a_rename_too(here: Path, there: Path) -> None:
    (here / "old").write_bytes(b"a" * MiB)
    with refused(errno.ESTALE), (here / "old").open("rb", buffering=0) as reader:
        os.pread(reader.fileno(), 4096, 0)
        (there / "old").write_bytes(b"b" * 10)
        (here / "old").rename(here / "new")
        (here / "new").stat()
        while reader.read(65_536):
            pass


def test_a_directory_renamed_elsewhere_is_found_under_its_new_name(here: Path, there: Path) -> None:
    (here / "old").mkdir()
    (here / "old" / "file").write_bytes(b"content")
    assert (there / "old" / "file").read_bytes() == b"content"
    (here / "old").rename(here / "new")
    assert (there / "new" / "file").read_bytes() == b"content"
    with refused(errno.ENOENT):
        (there / "old" / "file").read_bytes()


def test_a_directory_that_exists_elsewhere_is_eexist(here: Path, there: Path) -> None:
    assert os.listdir(there) == []
    (here / "below").mkdir()
    with refused(errno.EEXIST):
        (there / "below").mkdir()


def bodies_below(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in root.rglob("*") if path.is_file()]


def test_what_is_closed_in_a_directory_while_it_is_renamed_elsewhere_is_never_lost(mount: Mounts) -> None:
    here, there = (mount("--attr-timeout", "0").path for _ in range(2))
    mount.tolerate_log("was closed without being committed|is not committed: |ended: not committed")
    acknowledged: dict[bytes, str] = {}
    (here / "name0").mkdir()
    for number in range(4):
        (here / "name0" / f"seed{number}").write_bytes(b"seed%d" % number)

    def write() -> None:
        for number in range(25):
            body = b"written%d" % number
            with suppress(FileNotFoundError, OSError):
                directory = next(there.iterdir())
                (directory / f"file{number}").write_bytes(body)
                acknowledged[body] = directory.name

    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(write)
        number = 0
        while not writing.done():
            with suppress(OSError):
                (here / f"name{number}").rename(here / f"name{number + 1}")
            number = max(int(path.name[4:]) for path in here.iterdir())
        writing.result()
    found = bodies_below(here)
    assert acknowledged
    assert acknowledged.keys() <= set(found)
    assert {b"seed%d" % each for each in range(4)} <= set(found)


def test_of_two_mounts_that_rename_one_directory_none_loses_a_file(mount: Mounts) -> None:
    here, there = (mount("--attr-timeout", "0").path for _ in range(2))
    bodies = {b"body%d" % number for number in range(8)}
    for attempt in range(2):
        source = here / f"source{attempt}"
        source.mkdir()
        for body in bodies:
            (source / body.decode()).write_bytes(body)
        assert len(os.listdir(there / source.name)) == len(bodies)
        with ThreadPoolExecutor(2) as threads:
            moves = [
                threads.submit(os.rename, root / source.name, root / f"{target}{attempt}")
                for root, target in ((here, "mine"), (there, "yours"))
            ]
        failures = [move.exception() for move in moves]
        assert all(failure is None or isinstance(failure, OSError) for failure in failures)
        places = [path for path in here.iterdir() if path.name.endswith(str(attempt))]
        found = [body for place in places for body in bodies_below(place)]
        assert set(found) == bodies, failures
        # Whoever was told of success has the files; only who failed may have left some twice.
        assert len(found) == len(bodies) or any(failures), failures
