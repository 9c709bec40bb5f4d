"""fio writes at random, several jobs on several files; another mount has it check every block."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mounts import Mount, Mounts, run


@pytest.fixture(scope="module")
def shared_mount(shared_mounts: Mounts) -> Mount:
    """A mount of blocks so small that every file has many, and writes cross their boundaries."""
    return shared_mounts("--block-size", "64KiB", "--memory", "32MiB")


JOBS = ["--name=job", "--numjobs=3", "--size=3M", "--bs=4k", "--ioengine=psync", "--fallocate=none"]
CHECKS = ["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"]


def fio(directory: Path, *options: str) -> None:
    """Have three jobs work on a file each, and check what they wrote or read."""
    ended = run("fio", f"--directory={directory}", *JOBS, *CHECKS, *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_fio_wrote_at_random_is_right_here_and_on_another_mount(
    directory: Path, remounted: Callable[[], Path]
) -> None:
    fio(directory, "--rw=randwrite", "--fsync=200")
    fio(directory, "--rw=randrw", "--fsync=200")
    again = remounted()
    fio(again, "--rw=read")
    with (again / "job.0.0").open("r+b") as file:
        file.seek(100_000)
        file.write(b"wrong")
    with pytest.raises(AssertionError, match="verify"):
        fio(again, "--rw=read")
