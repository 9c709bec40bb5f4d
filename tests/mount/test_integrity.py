"""What programs see of replies damaged on their way: the right bytes, or EIO."""

import errno
import json
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from mounts import Mount, Mounts, on_both_bindings
from responder.control import Responder
from responder.faults import Fault, Rule
from responder.recipes import Recipe
from unix import refused

MiB = 1 << 20
SIZE_BYTES = 20 * MiB
DAMAGED = "damaged bytes arrived"


@pytest.fixture
def container(service: Responder) -> str:
    name = uuid4().hex
    service.create_container(name)
    return name


@pytest.fixture
def mount(service: Responder, container: str, binding: str) -> Iterator[Mounts]:
    with Mounts(service, container, binding) as mount:
        yield mount
        service.order()


@pytest.fixture
def content(service: Responder, container: str) -> bytes:
    """The bytes of "own", written in blocks by this project, and of the same in another program's way."""
    service.make_blobs(container, Recipe("own", size_bytes=SIZE_BYTES, block_bytes=8 * MiB, has_md5=False))
    service.make_blobs(container, Recipe("foreign", size_bytes=SIZE_BYTES))
    with service.client() as client:
        return client.get_blob_client(container, "own").download_blob().readall()


def flips(at_byte: int = 5, **when: int) -> Rule:
    return Rule(kind="GET blob", fault=Fault.FLIP, at_byte=at_byte, **when)


def damaged_replies(mounted: Mount) -> int:
    status = json.loads(os.getxattr(mounted.path, "user.blobfs.status"))
    return int(status["damaged_replies"])


def read_at_random(path: Path, count: int, length: int) -> Iterator[tuple[int, bytes]]:
    """Yield offsets and what was read there, never from pages that an earlier read left."""
    places = random.Random(7)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(count):
            offset = places.randrange(SIZE_BYTES // length) * length
            yield offset, os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


@on_both_bindings
def test_block_damaged_on_its_way_is_fetched_again(mount: Mounts, service: Responder, content: bytes) -> None:
    mount.expect_log(r"own: block at \d+, \d+ bytes: expected XXH3 \w{16}, found \w{16}")
    mounted = mount()
    service.order(flips(every=3))
    assert (mounted.path / "own").read_bytes() == content
    assert damaged_replies(mounted) > 0


@on_both_bindings
def test_block_that_stays_damaged_is_an_error_and_never_wrong_bytes(
    mount: Mounts, service: Responder, content: bytes
) -> None:
    mount.expect_log(DAMAGED)
    path = mount().path / "own"
    service.order(flips(at_byte=MiB // 2))  # which every part of a block has
    descriptor = os.open(path, os.O_RDONLY)
    with refused(errno.EIO):
        while os.read(descriptor, MiB):
            pass
    service.order()
    assert os.pread(descriptor, SIZE_BYTES, 0) == content
    os.close(descriptor)


def test_bytes_read_again_from_memory_are_those_that_were_verified(
    mount: Mounts, service: Responder, content: bytes
) -> None:
    mount.expect_log(DAMAGED)
    path = mount().path / "own"
    service.order(flips(every=2))
    assert path.read_bytes() == content
    service.order()
    service.reset_counters()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == content
    assert service.counters.requests.get("GET blob", 0) <= 1


def test_small_file_damaged_on_its_way_is_fetched_again(
    mount: Mounts, service: Responder, container: str
) -> None:
    service.make_blobs(container, Recipe("small", size_bytes=50_000))
    mount.expect_log(r"(small|other): (block|range) at 0, 50000 bytes: expected MD5 \S+, found \S+")
    path = mount().path / "small"
    service.order(flips(count=2))
    first = path.read_bytes()
    with service.client() as client:
        assert first == client.get_blob_client(container, "small").download_blob().readall()
    service.make_blobs(container, Recipe("other", size_bytes=50_000))
    service.order(flips())
    with refused(errno.EIO):
        path.with_name("other").read_bytes()


@pytest.mark.parametrize("name", ["own", "foreign", "blocks with the MD5 of the whole"])
def test_edit_never_gives_a_new_checksum_to_bytes_damaged_on_their_way(
    mount: Mounts, service: Responder, container: str, content: bytes, name: str
) -> None:
    mount.expect_log("damaged bytes arrived")
    service.make_blobs(
        container, Recipe("blocks with the MD5 of the whole", size_bytes=MiB, block_bytes=MiB // 4)
    )
    path = mount("--block-size", "1MiB").path / name
    size_bytes = path.stat().st_size
    descriptor = os.open(path, os.O_WRONLY)
    service.order(flips(at_byte=100_000, count=1))
    os.pwrite(descriptor, b"edit", 5)
    os.close(descriptor)
    service.order()
    expected = bytearray(content[:size_bytes])
    expected[5:9] = b"edit"
    with service.client() as client:
        assert client.get_blob_client(container, name).download_blob().readall() == expected


@on_both_bindings
def test_every_reply_is_verified_if_asked_for(
    mount: Mounts, service: Responder, container: str, content: bytes
) -> None:
    mount.expect_log(r"(own|foreign|fresh): range at \d+, \d+ bytes: expected MD5 \S+, found \S+")
    mounted = mount("--verify", "all")
    service.order(flips(every=2))
    for name in ("own", "foreign"):
        for offset, data in read_at_random(mounted.path / name, 40, 4096):
            assert data == content[offset : offset + 4096]
    service.make_blobs(container, Recipe("fresh", size_bytes=SIZE_BYTES))
    service.order(flips())
    descriptor = os.open(mounted.path / "fresh", os.O_RDONLY)
    with refused(errno.EIO):
        os.pread(descriptor, 4096, 3 * MiB)
    os.close(descriptor)


def test_foreign_file_that_does_not_match_its_md5_is_an_error_at_its_end(
    mount: Mounts, service: Responder, content: bytes
) -> None:
    mount.expect_log(r"foreign: the whole, \d+ bytes: expected MD5 \w+, found \w+")
    path = mount().path / "foreign"
    service.order(flips(at_byte=MiB // 2, skip=1, count=1))
    with refused(errno.EIO):
        path.read_bytes()
    service.order()
    assert path.read_bytes() == content


READ_BY_MAP = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
    sys.stdout.buffer.write(pages[:])
"""


def test_memory_map_shows_the_right_bytes_or_kills_its_reader(
    mount: Mounts, service: Responder, content: bytes
) -> None:
    mount.expect_log(DAMAGED)
    path = mount("--verify", "all").path / "own"
    service.order(flips(every=3))
    command = [sys.executable, "-c", READ_BY_MAP, path]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout == content) == (0, True)

    other = mount("--verify", "all").path / "own"
    with other.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        assert pages[:4096] == content[:4096]
    service.order(flips())
    ended = subprocess.run([*command[:-1], other], capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (-7, b"")  # SIGBUS


def test_verification_can_be_turned_off(mount: Mounts, service: Responder, content: bytes) -> None:
    mounted = mount("--verify", "off")
    service.reset_counters()
    service.order(flips(at_byte=MiB // 2, skip=1, count=1))
    assert (mounted.path / "own").read_bytes() != content
    assert service.counters.requests.get("GET block list", 0) == 0


def test_copying_small_files_out_costs_one_request_each(
    mount: Mounts, service: Responder, container: str, tmp_path: Path
) -> None:
    service.make_blobs(container, Recipe("many/{index}", 50, size_bytes=16_384))
    mounted = mount()
    service.reset_counters()
    subprocess.run(["cp", "-r", mounted.path / "many", tmp_path], check=True)
    requests = service.counters.requests
    assert requests["GET blob"] == 50
    assert "GET block list" not in requests
