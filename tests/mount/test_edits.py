"""How files are made and given their size, on a real mount; the exerciser does everything in between."""

import os
import subprocess

import pytest
from mounts import Mounts, on_both_bindings


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
