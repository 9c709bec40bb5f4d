"""fio writes at random, several jobs on several files; another mount has it check every block."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mounts import Mount, Mounts, run


@pytest.fixture(scope="module")
def shared_mount(shared_mounts: Mounts) -> Mount:
    """A mount of blocks so small that every file has many, and writes cross their boundaries."""
    return shared_mounts("--block-size", "64KiB", "--memory", "32MiB")


CHECKS = ["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"]
JOBS = ["--numjobs=3", "--size=1M", "--bs=4k"]  # on a file each


def fio(directory: Path, *options: str) -> None:
    """Have fio write or read, and check what it wrote or read."""
    job = ["--name=job", f"--directory={directory}", "--ioengine=psync", "--fallocate=none"]
    ended = run("fio", *job, *CHECKS, *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_fio_wrote_at_random_is_right_here_and_on_another_mount(
    directory: Path, remounted: Callable[[], Path]
) -> None:
    fio(directory, *JOBS, "--rw=randwrite", "--fsync=60")
    fio(directory, *JOBS, "--rw=randrw", "--fsync=60")
    again = remounted()
    fio(again, *JOBS, "--rw=read")
    with (again / "job.0.0").open("r+b") as file:
        file.seek(100_000)
        file.write(b"wrong")
    with pytest.raises(AssertionError, match="verify"):
        fio(again, *JOBS, "--rw=read")


@pytest.mark.parametrize("pattern", ["randwrite", "write", "randrw"])
def test_writes_that_cross_the_ends_of_pages_and_blocks_are_right(directory: Path, pattern: str) -> None:
    fio(directory, f"--rw={pattern}", "--size=1M", "--bs=6k", "--fsync=60")


def test_what_several_jobs_write_to_one_file_is_right(directory: Path) -> None:
    fio(directory, *JOBS, "--rw=randwrite", "--filename=file", "--offset_increment=1M")
    assert (directory / "file").stat().st_size == 3 << 20
