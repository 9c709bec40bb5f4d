"""Files brought into the cache ahead of a job."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from mounts import Mounts, blobfs, run
from responder.control import Responder
from responder.faults import Rule
from responder.recipes import Recipe

MiB = 1 << 20
OVERHEAD_BYTES = 200_000  # listings and block lists


@pytest.fixture
def container(service: Responder) -> str:
    name = uuid4().hex
    service.order()
    service.create_container(name)
    service.make_blobs(name, Recipe("data/own", size_bytes=40 * MiB, block_bytes=8 * MiB, has_md5=False))
    service.make_blobs(name, Recipe("data/deep/foreign", size_bytes=20 * MiB + 7))
    service.make_blobs(name, Recipe("data/small/{index}", 5, size_bytes=10_000))
    return name


@pytest.fixture
def mount(service: Responder, container: str) -> Iterator[Mounts]:
    with Mounts(service, container, "libfuse3") as mounts:
        yield mounts


def test_a_warm_directory_is_read_without_the_service(
    mount: Mounts, service: Responder, tmp_path: Path
) -> None:
    mounted = mount("--read-only", "--cache-dir", tmp_path / "cache", "--memory", "64MiB")
    ended = blobfs("warm", mounted.path / "data")
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        "7 files, 60.0 MiB in the cache.\n",
        "",
    )
    mount.unmount(mounted)

    again = mount("--read-only", "--cache-dir", tmp_path / "cache", "--memory", "64MiB")
    service.reset_counters()
    subprocess.run(["cp", "-r", again.path / "data", tmp_path / "copy"], check=True)
    assert service.counters.bytes_out < OVERHEAD_BYTES
    with service.client() as client:
        blob = client.get_blob_client(again.announcement.split("/")[1].split()[0], "data/own")
        assert (tmp_path / "copy/own").read_bytes() == blob.download_blob().readall()


def test_what_is_warm_already_is_not_fetched_again(mount: Mounts, service: Responder, tmp_path: Path) -> None:
    mounted = mount("--cache-dir", tmp_path / "cache")
    assert blobfs("warm", mounted.path).returncode == 0
    service.reset_counters()
    assert blobfs("warm", mounted.path).returncode == 0
    assert service.counters.bytes_out < OVERHEAD_BYTES


def test_without_a_disk_cache_memory_is_warmed(mount: Mounts, service: Responder) -> None:
    mounted = mount()
    assert blobfs("warm", mounted.path / "data/own").returncode == 0
    assert os.getxattr(mounted.path / "data/own", "user.blobfs.cached") == str(40 * MiB).encode()
    service.reset_counters()
    assert len((mounted.path / "data/own").read_bytes()) == 40 * MiB
    assert service.counters.bytes_out < OVERHEAD_BYTES


def test_what_does_not_fit_is_named(mount: Mounts) -> None:
    mounted = mount("--memory", "32MiB")
    ended = blobfs("warm", mounted.path / "data/own", mounted.path / "data/small/1")
    assert ended.returncode == 1
    assert f"{mounted.path}/data/own: only " in ended.stderr
    assert " of 40.0 MiB fitted into the cache" in ended.stderr


def test_a_list_of_paths_may_come_from_a_file_or_a_pipe(mount: Mounts, tmp_path: Path) -> None:
    mounted = mount("--cache-dir", tmp_path / "cache")
    names = tmp_path / "names"
    names.write_text(f"{mounted.path}/data/small/0\n{mounted.path}/data/small/1\n")
    assert blobfs("warm", "--from-file", names).stdout.startswith("2 files, ")
    command = f"find {mounted.path}/data/small -type f -print0 | blobfs warm --from-file - -0"
    assert run("sh", "-c", command).stdout.startswith("5 files, ")
    assert os.getxattr(mounted.path / "data/small/3", "user.blobfs.cached") == b"10000"
    assert os.getxattr(mounted.path / "data/own", "user.blobfs.cached") == b"0"


def test_files_that_fail_are_named_and_the_others_warmed(
    mount: Mounts, service: Responder, tmp_path: Path
) -> None:
    mounted = mount("--cache-dir", tmp_path / "cache", "--timeout", "0.5")
    service.order(Rule(pattern="^GET .*small/2", status=500))
    ended = blobfs("warm", mounted.path / "data/small", mounted.path / "missing")
    assert ended.returncode == 1
    assert ended.stdout.startswith("5 files, ")
    assert "not all is in the cache. Missing or not whole: 2\n" in ended.stderr
    assert f"{mounted.path}/data/small/2: the service cannot be reached or fails" in ended.stderr
    assert f"{mounted.path}/missing: No such file or directory" in ended.stderr
    assert os.getxattr(mounted.path / "data/small/3", "user.blobfs.cached") == b"10000"
    mount.tolerate_log("small/2|the service")


def test_only_what_is_there_is_counted(mount: Mounts) -> None:
    mounted = mount()
    ended = blobfs("warm", mounted.path / "missing")
    assert (ended.returncode, ended.stdout) == (1, "0 files, 0.0 MiB in the cache.\n")
    assert f"{mounted.path}/missing: No such file or directory" in ended.stderr
    ended = blobfs("warm", mounted.path / "data/small/1")
    assert (ended.returncode, ended.stdout) == (0, "1 file, 0.0 MiB in the cache.\n")


def test_paths_elsewhere_are_refused(mount: Mounts, tmp_path: Path) -> None:
    ended = blobfs("warm", tmp_path)
    assert (ended.returncode, ended.stderr) == (1, f"blobfs: {tmp_path} is not in a mount of blobfs.\n")
    (tmp_path / "file").touch()
    assert (
        blobfs("warm", tmp_path / "file").stderr == f"blobfs: {tmp_path}/file is not in a mount of blobfs.\n"
    )
    assert blobfs("warm").returncode == 2
    mounted = mount()
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(mounted.path / "data", "user.blobfs.cached")
