"""Files that have lost their name and are still open."""

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from azurite import Azurite
from mounts import Mount
from unix import changes_times
from waiting import wait_until

from blobfs.filesystem.deletions import is_at_rest

MiB = 1 << 20


@pytest.fixture(params=["committed", "being written", "long committed"])
def unlinked(directory: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """A descriptor of a file named "file" with the bytes "content", without its name."""
    path = directory / "file"
    if request.param != "being written":
        path.write_bytes(b"content")
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    if request.param == "being written":
        os.write(descriptor, b"content")
    if request.param == "committed":
        os.pread(descriptor, 1, 0)
    os.unlink(path)
    yield descriptor
    os.close(descriptor)


def test_fstat_tells_that_it_has_no_name(unlinked: int) -> None:
    found = os.fstat(unlinked)
    assert (found.st_nlink, found.st_size) == (0, 7)


def test_losing_the_name_changes_ctime_only(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file, changes_times(file.fileno(), "ctime"):
        os.unlink(path)


def test_it_is_read_written_and_truncated_as_before(unlinked: int) -> None:
    assert os.pread(unlinked, 100, 0) == b"content"
    os.pwrite(unlinked, b", more", 7)
    os.ftruncate(unlinked, 11)
    assert os.pread(unlinked, 100, 0) == b"content, mo"
    assert os.fstat(unlinked).st_size == 11
    os.fsync(unlinked)


def test_its_attributes_change_as_before(unlinked: int) -> None:
    os.fchmod(unlinked, 0o600)
    os.fchown(unlinked, 1, 2)
    os.utime(unlinked, ns=(3, 4))
    found = os.fstat(unlinked)
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o600, 1, 2)
    assert (found.st_atime_ns, found.st_mtime_ns) == (3, 4)


def test_no_listing_shows_a_name_of_it(directory: Path, unlinked: int) -> None:
    assert os.pread(unlinked, 1, 0) == b"c"
    assert os.listdir(directory) == []
    ended = subprocess.run(["ls", "-A", directory], capture_output=True, check=True)
    assert ended.stdout == b""


def test_the_container_has_no_blob_of_it_and_gets_none_by_close(
    azurite: Azurite, shared_container: str, directory: Path
) -> None:
    path = directory / "file"
    with path.open("w+b", buffering=0) as file:
        file.write(b"content")
        os.fsync(file.fileno())
        os.unlink(path)
        file.write(b", more")
    os.getxattr(directory.parent, "user.blobfs.sync")
    with azurite.client() as client:
        blobs = client.get_container_client(shared_container).list_blob_names(name_starts_with=directory.name)
        assert list(blobs) == [directory.name]


def test_a_new_file_of_the_same_name_is_another_file(directory: Path, unlinked: int) -> None:
    (directory / "file").write_bytes(b"new")
    os.pwrite(unlinked, b"OLD", 0)
    assert (directory / "file").read_bytes() == b"new"
    assert os.pread(unlinked, 100, 0) == b"OLDtent"
    assert os.fstat(unlinked).st_ino != (directory / "file").stat().st_ino


def test_it_keeps_its_bytes_when_its_name_is_used_over_and_over(directory: Path) -> None:
    descriptors = []
    for number in range(10):
        (directory / "file").write_bytes(b"%d" % number)
        descriptors.append(os.open(directory / "file", os.O_RDONLY))
        os.unlink(directory / "file")
    assert [os.pread(descriptor, 10, 0) for descriptor in descriptors] == [b"%d" % n for n in range(10)]
    assert os.listdir(directory) == []
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("fsync", [True, False])
def test_a_file_larger_than_a_block_keeps_all_its_bytes(directory: Path, fsync: bool) -> None:
    content = os.urandom(MiB) * 20
    with (directory / "file").open("w+b", buffering=0) as file:
        file.write(content)
        if fsync:
            os.fsync(file.fileno())
        os.unlink(directory / "file")
        file.write(b"end")
        file.seek(0)
        assert file.read() == content + b"end"


def test_a_removed_directory_takes_no_open_file_with_it(directory: Path) -> None:
    below = directory / "below"
    below.mkdir()
    with (below / "file").open("w+b", buffering=0) as file:
        file.write(b"content")
        os.unlink(below / "file")
        os.rmdir(below)
        file.write(b", more")
        file.seek(0)
        assert file.read() == b"content, more"
    assert os.listdir(directory) == []


def deleted_files(mount: Mount) -> int:
    """Count what a mount has open of the temporary directory: the bytes of files without a name."""
    count = 0
    for path in Path(f"/proc/{mount.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += os.readlink(path).endswith(" (deleted)")
    return count


def test_files_removed_right_after_they_were_closed_leave_nothing_behind(
    directory: Path, shared_mount: Mount
) -> None:
    """The last release may be on its way yet when the name goes."""
    before = deleted_files(shared_mount)
    for number in range(200):
        path = directory / f"x{number}"
        path.write_bytes(b"bytes")
        assert path.read_bytes() == b"bytes"
        path.unlink()
    wait_until(lambda: deleted_files(shared_mount) <= before)


def test_thread_that_waits_for_the_kernel_is_known_to_be_at_rest(shared_mount: Mount) -> None:
    tasks = Path(f"/proc/{shared_mount.pid}/task")
    wait_until(lambda: any(is_at_rest(task) for task in tasks.iterdir()))
    reader, writer = os.pipe()
    with ThreadPoolExecutor(1) as threads, open(writer, "wb"), open(reader, "rb") as pipe:
        thread_id = threads.submit(threading.get_native_id).result()
        threads.submit(pipe.read, 1)
        task = Path(f"/proc/self/task/{thread_id}")
        wait_until(lambda: (task / "syscall").read_text().split()[1:2] == [hex(reader)])
        assert not is_at_rest(task)
        os.write(writer, b"1")
