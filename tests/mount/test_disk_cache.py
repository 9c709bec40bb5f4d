"""The cache on local disk, under real mounts."""

import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from mounts import Mounts, blobfs, run
from responder.control import Responder
from responder.recipes import Recipe

MiB = 1 << 20
SIZE_BYTES = 20 * MiB
SMALL = 5
OVERHEAD_BYTES = 100_000  # listings and block lists


@pytest.fixture
def container(responder: Responder) -> str:
    name = uuid4().hex
    responder.create_container(name)
    responder.make_blobs(name, Recipe("own", size_bytes=SIZE_BYTES, block_bytes=8 * MiB, has_md5=False))
    responder.make_blobs(name, Recipe("foreign", size_bytes=SIZE_BYTES, has_md5=False))
    responder.make_blobs(name, Recipe("small/{index}", SMALL, size_bytes=10_000))
    return name


@pytest.fixture
def mount(responder: Responder, container: str) -> Iterator[Mounts]:
    with Mounts(responder, container, "libfuse3") as mount:
        yield mount


@pytest.fixture
def content(responder: Responder, container: str) -> bytes:
    with responder.client() as client:
        return client.get_blob_client(container, "own").download_blob().readall()


def pieces(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def fill(mount: Mounts, cache: Path, *names: str) -> None:
    """Read files, so few that the disk is never behind, through a mount of their own."""
    mounted = mount("--cache-dir", cache)
    for name in names:
        (mounted.path / name).read_bytes()
    mount.unmount(mounted)


def test_next_mount_reads_from_disk(
    mount: Mounts, responder: Responder, content: bytes, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    fill(mount, cache, "own")
    assert {path.stat().st_mode & 0o077 for path in cache.rglob("*")} == {0}
    responder.reset_counters()
    mounted = mount("--cache-dir", cache)
    assert (mounted.path / "own").read_bytes() == content
    assert responder.counters.bytes_out < OVERHEAD_BYTES


def test_copying_small_files_again_moves_no_bytes(
    mount: Mounts, responder: Responder, tmp_path: Path
) -> None:
    fill(mount, tmp_path / "cache", *[f"small/{index}" for index in range(SMALL)])
    mounted = mount("--cache-dir", tmp_path / "cache")
    os.listdir(mounted.path / "small")
    responder.reset_counters()
    subprocess.run(["cp", "-r", mounted.path / "small", tmp_path / "copy"], check=True)
    assert responder.counters.requests["GET blob"] == SMALL
    assert responder.counters.statuses[304] == SMALL


def test_damaged_cache_costs_only_time(mount: Mounts, content: bytes, tmp_path: Path) -> None:
    fill(mount, tmp_path, "own")
    for number, path in enumerate(pieces(tmp_path)):
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"damaged") if number % 2 else file.truncate()
    mount.expect_log("removing a cache file that is of no use")
    assert (mount("--cache-dir", tmp_path).path / "own").read_bytes() == content


def test_cache_that_vanishes_is_not_missed(mount: Mounts, content: bytes, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    mounted = mount("--cache-dir", cache)
    assert (mounted.path / "own").read_bytes() == content
    run("rm", "-r", str(cache))
    assert (mounted.path / "foreign").read_bytes() == content


def test_mounts_share_a_cache_at_once_even_when_one_dies(
    mount: Mounts, content: bytes, tmp_path: Path
) -> None:
    mounts = [mount("--cache-dir", tmp_path, "--cache-size", "64MiB", "--memory", "32MiB") for _ in range(3)]
    victim = mounts[-1]
    failures: list[str] = []

    def read(path: Path, seed: int) -> None:
        places = random.Random(seed)
        with path.open("rb", buffering=0) as file:
            for _ in range(25):
                length = places.choice([4096, 100_000, 3 * MiB])
                offset = places.randrange(SIZE_BYTES - length)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if os.pread(file.fileno(), length, offset) != content[offset : offset + length]:
                    failures.append(f"{path} at {offset}")

    survivors = [
        threading.Thread(target=read, args=(mounted.path / name, seed))
        for seed, mounted in enumerate(mounts[:2])
        for name in ("own", "foreign")
    ]
    for thread in survivors:
        thread.start()
    assert (victim.path / "own").read_bytes() == content
    victim.kill()
    for thread in survivors:
        thread.join()
    assert failures == []
    assert (mount("--cache-dir", tmp_path).path / "own").read_bytes() == content


def test_full_disk_is_no_error_to_readers(mount: Mounts, content: bytes, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "blobfs-test", disk], check=True)
    try:
        mount.expect_log("the cache in .* is made smaller: No space left on device")
        mounted = mount("--cache-dir", disk)
        for name in ("own", "foreign", "own"):
            assert (mounted.path / name).read_bytes() == content
        mount.unmount(mounted)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_place_that_is_not_private_is_refused_before_anything_is_sent(mount: Mounts, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    nowhere = ("--endpoint", "http://127.0.0.1:9/account", "--create-container")
    ended = blobfs(*mount.arguments(mount.new_mountpoint()), *nowhere, "--cache-dir", tmp_path)
    assert ended.returncode == 2
    assert f"chmod 755 {tmp_path}" in ended.stderr
