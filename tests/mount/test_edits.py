"""Files edited in place, at random, on a real mount: every byte compared with a model all the way."""

import mmap
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mounts import Mounts, on_both_bindings

OPERATIONS = int(os.environ.get("BLOBFS_TEST_EDITS", "1500"))  # a long run: 100,000
LARGEST_BYTES = 600_000  # nine blocks of 64 KiB and a bit: every boundary is crossed
LONGEST_BYTES = 150_000


class Editor:
    """One file, a model of it, and what programs do to files."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.random = random.Random(seed)
        self.model = bytearray()
        self.descriptors = [os.open(path, os.O_RDWR | os.O_CREAT), os.open(path, os.O_RDWR)]
        self.actions: list[Callable[[], None]] = [
            self.write,
            self.write,
            self.append,
            self.read,
            self.read,
            self.truncate,
            self.map_and_store,
            self.sync,
            self.reopen,
        ]

    def step(self) -> None:
        """Do one thing at random and check the size."""
        self.random.choice(self.actions)()
        assert os.fstat(self.descriptor()).st_size == len(self.model)

    def descriptor(self) -> int:
        """Return one of the two descriptors."""
        return self.random.choice(self.descriptors)

    def write(self) -> None:
        """Write somewhere, perhaps behind the end."""
        offset = self.random.randrange(min(len(self.model) + LONGEST_BYTES, LARGEST_BYTES))
        self._write_at(offset, self.random.randbytes(self.random.randrange(1, LONGEST_BYTES)))

    def append(self) -> None:
        """Write at the end through a descriptor of its own."""
        data = self.random.randbytes(self.random.randrange(1, LONGEST_BYTES // 8))
        if len(self.model) + len(data) <= LARGEST_BYTES:
            with self.path.open("ab", buffering=0) as file:
                assert file.write(data) == len(data)
            self.model += data

    def read(self) -> None:
        """Read somewhere."""
        offset = self.random.randrange(LARGEST_BYTES)
        length = self.random.randrange(1, LONGEST_BYTES)
        assert os.pread(self.descriptor(), length, offset) == self.model[offset : offset + length]

    def truncate(self) -> None:
        """Cut or grow."""
        size_bytes = self.random.choice([0, self.random.randrange(LARGEST_BYTES)])
        if self.random.random() < 0.5:
            os.ftruncate(self.descriptor(), size_bytes)
        else:
            os.truncate(self.path, size_bytes)
        self.model[size_bytes:] = bytes(max(0, size_bytes - len(self.model)))

    def map_and_store(self) -> None:
        """Change a stretch through a shared mapping."""
        if len(self.model) > mmap.PAGESIZE:
            offset = self.random.randrange(len(self.model) - 1)
            data = self.random.randbytes(min(self.random.randrange(1, 5000), len(self.model) - offset))
            with mmap.mmap(self.descriptor(), len(self.model)) as mapped:
                mapped[offset : offset + len(data)] = data
                mapped.flush()
            self.model[offset : offset + len(data)] = data

    def sync(self) -> None:
        """Have everything committed."""
        os.fsync(self.descriptor())

    def reopen(self) -> None:
        """Close everything and read the whole file back."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        assert self.path.read_bytes() == self.model
        self.descriptors = [os.open(self.path, os.O_RDWR) for _ in self.descriptors]

    def _write_at(self, offset: int, data: bytes) -> None:
        data = data[: LARGEST_BYTES - offset]
        assert os.pwrite(self.descriptor(), data, offset) == len(data)
        self.model[len(self.model) : offset] = bytes(max(0, offset - len(self.model)))
        self.model[offset : offset + len(data)] = data


@on_both_bindings
def test_random_edits_read_back_as_written_here_and_on_another_mount(mount: Mounts) -> None:
    here = mount("--block-size", "64KiB", "--memory", "16MiB")
    editor = Editor(here.path / "file", seed=1)
    for _ in range(OPERATIONS):
        editor.step()
    editor.reopen()
    for descriptor in editor.descriptors:
        os.close(descriptor)
    assert (mount("--read-only").path / "file").read_bytes() == editor.model


def test_a_lock_file_is_made_by_one_node_only_with_exclusive_create(mount: Mounts) -> None:
    first, second = mount("--exclusive-create"), mount("--exclusive-create")
    assert not (second.path / "lock").exists()
    exclusively = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    descriptor = os.open(first.path / "lock", exclusively)
    with pytest.raises(FileExistsError):
        os.open(second.path / "lock", exclusively)
    os.close(descriptor)


def test_fallocate_grows_punches_and_keeps_the_size(mount: Mounts) -> None:
    path = mount().path / "file"
    path.write_bytes(b"abcdefgh")
    subprocess.run(["fallocate", "--punch-hole", "--offset=2", "--length=3", path], check=True)
    assert path.read_bytes() == b"ab\0\0\0fgh"
    subprocess.run(["fallocate", "--keep-size", "--length=100", path], check=True)
    assert path.stat().st_size == 8
    subprocess.run(["fallocate", "--length=100", path], check=True)
    assert path.read_bytes() == b"ab\0\0\0fgh" + bytes(92)


@on_both_bindings
def test_posix_fallocate_works_with_or_without_the_librarys_help(mount: Mounts) -> None:
    with (mount().path / "file").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)
        assert os.fstat(file.fileno()).st_size == 100_000
