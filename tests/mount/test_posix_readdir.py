"""opendir(3), readdir(3) and what stands in directories."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from mounts import Mount, run
from unix import BOB, as_user, refused


def test_every_entry_is_listed_once_with_its_type_and_number(directory: Path) -> None:
    (directory / "file").touch()
    (directory / "below").mkdir()
    (directory / "link").symlink_to("file")
    os.mkfifo(directory / "fifo")
    os.mknod(directory / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (directory / "written").open("wb").close()
    with os.scandir(directory) as entries:
        found = {entry.name: (entry.is_dir(follow_symlinks=False), entry.inode()) for entry in entries}
    assert found == {path.name: (path.is_dir(), path.lstat().st_ino) for path in directory.iterdir()}
    assert sorted(found) == ["below", "device", "fifo", "file", "link", "written"]
    kinds = run("find", directory, "-mindepth", "1", "-printf", "%f %y\n").stdout.split("\n")
    assert sorted(kinds) == ["", "below d", "device c", "fifo p", "file f", "link l", "written f"]


def test_dot_and_dot_dot_are_listed_with_their_numbers(directory: Path) -> None:
    (directory / "below").mkdir()
    listed = run("ls", "-ai", directory / "below").stdout.split()
    assert listed[1::2] == [".", ".."]
    assert listed[0] == str(os.stat(directory / "below").st_ino)
    assert listed[2] == str(os.stat(directory).st_ino)


def test_a_file_that_is_not_committed_yet_is_listed_with_what_was_written(directory: Path) -> None:
    with (directory / "file").open("wb", buffering=0) as file:
        file.write(b"content")
        with os.scandir(directory) as entries:
            assert [(entry.name, entry.stat().st_size) for entry in entries] == [("file", 7)]


def test_entries_that_need_many_calls_are_listed_once_each(directory: Path) -> None:
    names = [f"{number:04}" for number in range(250)]
    for name in names:
        os.symlink("nowhere", directory / name)
    assert sorted(os.listdir(directory)) == names


def test_entries_may_be_removed_while_they_are_read(directory: Path) -> None:
    for number in range(70):
        os.symlink("nowhere", directory / f"{number:03}")
    with os.scandir(directory) as entries:
        for entry in entries:
            os.unlink(entry)
    assert os.listdir(directory) == []


def test_a_tree_is_removed_at_once(directory: Path) -> None:
    for number in range(12):
        (directory / f"{number}" / "below").mkdir(parents=True)
        (directory / f"{number}" / "below" / "file").touch()
    ended = run("rm", "-r", *directory.iterdir())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert os.listdir(directory) == []


def test_reading_from_the_start_again_shows_new_entries(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    assert os.listdir(descriptor) == []
    (directory / "new").touch()
    assert os.listdir(descriptor) == ["new"]
    os.close(descriptor)


def test_what_is_no_directory_is_enotdir(directory: Path) -> None:
    (directory / "file").touch()
    with refused(errno.ENOTDIR):
        os.listdir(directory / "file")


def test_a_directory_that_may_not_be_read_is_eacces(directory: Path) -> None:
    directory.chmod(0o711)
    with as_user(BOB), refused(errno.EACCES):
        os.listdir(directory)


def test_when_a_directory_is_synchronised_the_files_closed_in_it_are_on_the_service(
    directory: Path, remounted: Callable[[], Path]
) -> None:
    (directory / "file").write_bytes(b"content")
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    assert (remounted() / "file").read_bytes() == b"content"


@pytest.mark.parametrize("program", ["find", "du"])
def test_programs_that_count_links_find_every_directory(directory: Path, program: str) -> None:
    for name in ("one", "two", "two/three", "two/three/four"):
        (directory / name).mkdir()
    options = ["-type", "d"] if program == "find" else []
    lines = run(program, directory, *options).stdout.splitlines()
    assert len(lines) == 5


def test_the_filesystem_has_room(shared_mount: Mount) -> None:
    found = os.statvfs(shared_mount.path)
    assert found.f_bavail * found.f_frsize > 1 << 40
    assert found.f_namemax == 255
