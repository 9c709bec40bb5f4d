"""open(2), and what a descriptor then may do."""

import errno
import os
import stat
from pathlib import Path

import pytest
from unix import ALICE, BOB, as_user, changes_times, refused, umask

READ, WRITE, BOTH = os.O_RDONLY, os.O_WRONLY, os.O_RDWR


def open_and_close(path: Path, flags: int, mode: int = 0o666) -> None:
    os.close(os.open(path, flags, mode))


@pytest.fixture
def file(directory: Path) -> Path:
    """A file with content."""
    path = directory / "file"
    path.write_bytes(b"content")
    return path


# Creating


@pytest.mark.parametrize("access", [READ, WRITE, BOTH])
def test_a_new_file_is_empty_and_belongs_to_its_maker(directory: Path, access: int) -> None:
    directory.chmod(0o777)
    with as_user(BOB), umask(0o027):
        open_and_close(directory / "new", os.O_CREAT | access)
    found = os.stat(directory / "new")
    assert (found.st_mode, found.st_uid, found.st_gid) == (stat.S_IFREG | 0o640, BOB, BOB)
    assert (found.st_size, found.st_nlink, found.st_blocks) == (0, 1, 0)


def test_creating_changes_the_directorys_mtime_and_ctime(directory: Path) -> None:
    with changes_times(directory, "mtime", "ctime"):
        open_and_close(directory / "new", os.O_CREAT | WRITE)


def test_creating_what_exists_changes_nothing(directory: Path, file: Path) -> None:
    file.chmod(0o640)
    with changes_times(file), changes_times(directory):
        open_and_close(file, os.O_CREAT | WRITE, 0o777)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_bytes() == b"content"


@pytest.mark.parametrize("mode", [0, 0o444])
def test_who_creates_a_file_may_write_it_whatever_its_mode(directory: Path, mode: int) -> None:
    directory.chmod(0o777)
    with as_user(BOB):
        descriptor = os.open(directory / "new", os.O_CREAT | BOTH, mode)
        os.write(descriptor, b"content")
        assert os.pread(descriptor, 100, 0) == b"content"
        os.close(descriptor)
    assert (directory / "new").read_bytes() == b"content"
    assert stat.S_IMODE((directory / "new").stat().st_mode) == mode


@pytest.mark.parametrize("taken", ["file", "directory", "dangling link", "file being written"])
def test_exclusive_creation_of_what_exists_is_eexist(directory: Path, taken: str) -> None:
    path = directory / "taken"
    descriptor = os.open(directory / "another", os.O_CREAT | WRITE)
    if taken == "file":
        path.touch()
    elif taken == "directory":
        path.mkdir()
    elif taken == "dangling link":
        path.symlink_to("nowhere")
    else:
        os.close(descriptor)
        descriptor = os.open(path, os.O_CREAT | WRITE)
    with refused(errno.EEXIST):
        os.open(path, os.O_CREAT | os.O_EXCL | WRITE)
    os.close(descriptor)


def test_exclusive_creation_works_once_for_every_name(directory: Path) -> None:
    for _ in range(3):
        open_and_close(directory / "lock", os.O_CREAT | os.O_EXCL | WRITE)
        with refused(errno.EEXIST):
            os.open(directory / "lock", os.O_CREAT | os.O_EXCL | WRITE)
        os.unlink(directory / "lock")


def test_a_file_without_a_name_is_refused(directory: Path) -> None:
    with refused(errno.EOPNOTSUPP):
        os.open(directory, os.O_TMPFILE | BOTH)


# Truncating and appending


def test_truncating_empties_the_file_and_changes_mtime_and_ctime(file: Path) -> None:
    with changes_times(file, "mtime", "ctime"):
        open_and_close(file, os.O_TRUNC | WRITE)
    assert file.read_bytes() == b""


def test_a_truncated_file_is_written_anew(file: Path) -> None:
    file.chmod(0o640)
    file.write_bytes(b"new")
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_truncating_cuts_the_file_for_everybody_who_has_it_open(file: Path) -> None:
    with file.open("rb", buffering=0) as reader:
        assert reader.read(3) == b"con"
        open_and_close(file, os.O_TRUNC | WRITE)
        assert reader.read() == b""


def test_truncating_needs_permission_to_write(file: Path) -> None:
    with as_user(BOB), changes_times(file), refused(errno.EACCES):
        os.open(file, os.O_TRUNC | READ)
    assert file.read_bytes() == b"content"


def test_appending_writes_at_the_end_wherever_the_descriptor_was(file: Path) -> None:
    descriptor = os.open(file, os.O_APPEND | BOTH)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b", more")
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 13
    os.close(descriptor)
    assert file.read_bytes() == b"content, more"


def test_two_descriptors_that_append_do_not_overwrite_each_other(file: Path) -> None:
    one, other = (os.open(file, os.O_APPEND | WRITE) for _ in range(2))
    for number in range(20):
        os.write((one, other)[number % 2], b"%02d" % number)
    os.close(one)
    os.close(other)
    assert file.read_bytes() == b"content" + b"".join(b"%02d" % number for number in range(20))


# Reading and writing


@pytest.mark.parametrize("committed", [True, False])
def test_what_was_written_is_read_back_before_close(directory: Path, committed: bool) -> None:
    path = directory / "file"
    if committed:
        path.write_bytes(b"old content")
    descriptor = os.open(path, os.O_CREAT | BOTH)
    os.pwrite(descriptor, b"NEW", 4)
    expected = b"old NEWtent" if committed else b"\0\0\0\0NEW"
    assert os.pread(descriptor, 100, 0) == expected
    assert path.read_bytes() == expected
    assert path.stat().st_size == len(expected)
    os.close(descriptor)
    assert path.read_bytes() == expected


def test_a_write_beyond_the_end_leaves_zeros_between(file: Path) -> None:
    with file.open("r+b") as writer:
        writer.seek(100_000)
        writer.write(b"end")
    assert file.read_bytes() == b"content" + bytes(99_993) + b"end"


def test_a_read_at_or_beyond_the_end_gives_nothing(file: Path) -> None:
    descriptor = os.open(file, READ)
    assert os.pread(descriptor, 10, 7) == b""
    assert os.pread(descriptor, 10, 1 << 40) == b""
    assert os.pread(descriptor, 10, 5) == b"nt"
    os.close(descriptor)


def test_reading_changes_neither_mtime_nor_ctime(file: Path) -> None:
    before = file.stat()
    file.read_bytes()
    after = file.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_writing_changes_mtime_and_ctime(directory: Path, file: Path) -> None:
    with changes_times(file, "mtime", "ctime"), changes_times(directory), file.open("r+b") as writer:
        writer.write(b"C")


def test_opening_for_writing_without_writing_changes_nothing(file: Path) -> None:
    with changes_times(file):
        open_and_close(file, BOTH)


def test_a_descriptor_does_only_what_it_was_opened_for(file: Path) -> None:
    reading, writing = os.open(file, READ), os.open(file, WRITE)
    with refused(errno.EBADF):
        os.write(reading, b"x")
    with refused(errno.EBADF):
        os.read(writing, 1)
    os.close(reading)
    os.close(writing)


def test_every_close_of_a_duplicate_commits_and_the_file_stays_writable(file: Path) -> None:
    descriptor = os.open(file, WRITE)
    duplicate = os.dup(descriptor)
    os.write(descriptor, b"C")
    os.close(descriptor)
    os.write(duplicate, b"O")
    os.close(duplicate)
    assert file.read_bytes() == b"COntent"


def test_a_file_of_several_blocks_is_changed_in_the_middle(directory: Path) -> None:
    path = directory / "file"
    content = bytearray(os.urandom(1 << 20) * 20)
    path.write_bytes(content)
    with path.open("r+b", buffering=0) as writer:
        for offset in (0, 5, 8 << 20, (8 << 20) - 3, 17 << 20, len(content) - 1, len(content)):
            writer.seek(offset)
            writer.write(b"changed")
            content[offset : offset + 7] = b"changed"
    assert path.read_bytes() == content


# Permissions


@pytest.mark.parametrize(("who", "shift"), [("owner", 6), ("group", 3), ("others", 0)])
@pytest.mark.parametrize("bits", range(8))
def test_the_one_class_of_permission_bits_that_applies_decides(
    file: Path, who: str, shift: int, bits: int
) -> None:
    os.chown(file, BOB if who == "owner" else ALICE, BOB if who == "group" else ALICE)
    others = 0o777 & ~(7 << shift)  # the bits of the classes that do not count
    file.chmod(others | bits << shift)
    with as_user(BOB):
        for access, needed in ((READ, 4), (WRITE, 2), (BOTH, 6)):
            if bits & needed == needed:
                open_and_close(file, access)
            else:
                with refused(errno.EACCES):
                    os.open(file, access)
        assert os.access(file, os.X_OK, effective_ids=True) == bool(bits & 1)


def test_a_supplementary_group_counts(file: Path) -> None:
    os.chown(file, ALICE, 7)
    file.chmod(0o040)
    with as_user(BOB, groups=[7]):
        assert file.read_bytes() == b"content"


def test_root_reads_and_writes_everything(file: Path) -> None:
    os.chown(file, BOB, BOB)
    file.chmod(0)
    with file.open("r+b") as both:
        assert both.read() == b"content"
        both.write(b"!")


def test_a_program_runs_only_if_it_is_executable(directory: Path) -> None:
    path = directory / "program"
    path.write_text("#!/bin/sh\nexit 7\n")
    with refused(errno.EACCES):
        os.posix_spawn(path, [path], {})
    path.chmod(0o755)
    _, status = os.waitpid(os.posix_spawn(path, [path], {}), 0)
    assert os.waitstatus_to_exitcode(status) == 7


# Other kinds of files


@pytest.mark.parametrize("flags", [WRITE, BOTH, os.O_CREAT | READ, os.O_TRUNC | WRITE])
def test_a_directory_cannot_be_opened_for_writing(directory: Path, flags: int) -> None:
    with refused(errno.EISDIR):
        os.open(directory, flags)


def test_a_file_is_not_opened_as_a_directory(file: Path) -> None:
    with refused(errno.ENOTDIR):
        os.open(file, os.O_DIRECTORY)
    with refused(errno.ENOTDIR):
        os.open(f"{file}/", READ)


def test_a_link_is_not_followed_if_it_must_not_be(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to("file")
    with refused(errno.ELOOP):
        os.open(link, os.O_NOFOLLOW)


def test_a_fifo_without_a_reader_is_enxio_for_a_writer_that_does_not_wait(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    with refused(errno.ENXIO):
        os.open(directory / "fifo", os.O_NONBLOCK | WRITE)
