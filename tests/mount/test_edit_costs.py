"""What edits of large files move over the wire, by the responder's counters, and what they leave behind."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobBlock, BlobClient
from mounts import Mounts
from responder.control import Counters, Responder
from responder.memory import KiB, MiB
from responder.recipes import Recipe

BLOCK_BYTES = 8 * MiB
LOG2_BLOCK_BYTES = 23
BLOB_BYTES = 1024 * MiB
PUT_BLOB_BYTES = 251 * MiB  # by older tools' limit for one request, and no multiple of a block
FOREIGN_ID_BYTES = 48  # AzCopy's

makers = pytest.mark.parametrize("maker", ["blobfs", "larger blocks", "AzCopy", "one Put Blob"])


def make(maker: str, responder: Responder, blob: BlobClient) -> int:
    """Make a blob of zeros as some tool would, and return its size."""
    container, name = blob.container_name, blob.blob_name
    if maker == "one Put Blob":
        responder.make_blobs(container, Recipe(name, size_bytes=PUT_BLOB_BYTES, content="zeros"))
        return PUT_BLOB_BYTES
    if maker == "AzCopy":
        block_id = "z" * FOREIGN_ID_BYTES
        blob.stage_block(block_id, bytes(BLOCK_BYTES))
        blob.commit_block_list([BlobBlock(block_id)] * (BLOB_BYTES // BLOCK_BYTES))
        return BLOB_BYTES
    block_bytes = BLOCK_BYTES if maker == "blobfs" else 64 * MiB
    recipe = Recipe(name, size_bytes=BLOB_BYTES, content="zeros", block_bytes=block_bytes)
    responder.make_blobs(container, recipe)
    return BLOB_BYTES


@pytest.fixture
def container(responder: Responder) -> str:
    """The name of a new, empty container of the responder's."""
    name = uuid.uuid4().hex
    responder.create_container(name)
    return name


@pytest.fixture
def path(responder: Responder, container: str) -> Iterator[Path]:
    """Where the container's blob `file` is mounted."""
    with Mounts(responder, container, "libfuse3") as mounts:
        yield mounts().path / "file"


@pytest.fixture
def blob(responder: Responder, container: str) -> Iterator[BlobClient]:
    """The blob as another program sees it."""
    with responder.client() as client:
        yield client.get_blob_client(container, "file")


def moved_bytes(counters: Counters) -> int:
    return counters.bytes_in + counters.bytes_out


def block_sizes(blob: BlobClient) -> list[int]:
    committed, _ = blob.get_block_list("committed")
    return [block.size for block in committed]


def write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        assert os.pwrite(file.fileno(), data, offset) == len(data)


def read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), length, offset)


@makers
def test_edit_in_the_middle_of_a_large_file_moves_one_block_each_way(
    responder: Responder, path: Path, blob: BlobClient, maker: str
) -> None:
    size_bytes = make(maker, responder, blob)
    middle, edit = size_bytes // 2 + 12345, os.urandom(4 * KiB)
    responder.reset_counters()
    write_at(path, middle, edit)
    counters = responder.counters
    assert moved_bytes(counters) < 2 * BLOCK_BYTES + MiB
    assert counters.requests["PUT block"] == 1
    assert path.stat().st_size == size_bytes
    assert read_at(path, middle - 9, 4 * KiB + 18) == bytes(9) + edit + bytes(9)
    assert blob.get_blob_properties().content_settings.content_md5 is None


@pytest.mark.parametrize("maker", ["blobfs", "one Put Blob"])
def test_lines_appended_one_by_one_to_a_large_file_move_kilobytes_and_leave_few_blocks(
    responder: Responder, path: Path, blob: BlobClient, maker: str
) -> None:
    size_bytes = make(maker, responder, blob)
    lines = [b"%04d: a line of a log, one hundred bytes long %s\n" % (i, b"." * 55) for i in range(1000)]
    responder.reset_counters()
    for line in lines:
        with path.open("ab") as log:
            log.write(line)
    assert moved_bytes(responder.counters) < len(lines) * 64 * KiB
    assert len(block_sizes(blob)) <= -(-size_bytes // BLOCK_BYTES) + LOG2_BLOCK_BYTES
    assert read_at(path, size_bytes, MiB) == b"".join(lines)


@makers
def test_cutting_a_large_file_moves_less_than_a_block_each_way(
    responder: Responder, path: Path, blob: BlobClient, maker: str
) -> None:
    make(maker, responder, blob)
    responder.reset_counters()
    os.truncate(path, 100 * MiB + 5)
    assert moved_bytes(responder.counters) < 2 * BLOCK_BYTES
    assert path.stat().st_size == 100 * MiB + 5
    assert sum(block_sizes(blob)) == 100 * MiB + 5


@makers
def test_many_fsyncs_of_a_large_file_send_only_what_is_new(
    responder: Responder, path: Path, blob: BlobClient, maker: str
) -> None:
    size_bytes = make(maker, responder, blob)
    with path.open("ab", buffering=0) as log:
        log.write(b"first")
        os.fsync(log.fileno())
        responder.reset_counters()
        for number in range(100):
            log.write(b"%100d" % number)
            os.fsync(log.fileno())
        assert responder.counters.requests == {"PUT block": 100, "PUT block list": 100}
    assert len(block_sizes(blob)) <= -(-size_bytes // BLOCK_BYTES) + LOG2_BLOCK_BYTES


@pytest.mark.parametrize("option", ["--file-md5", "--no-file-md5"])
def test_md5_of_a_whole_file_can_be_done_without(
    responder: Responder, container: str, blob: BlobClient, option: str
) -> None:
    body = os.urandom(300 * KiB)
    with Mounts(responder, container, "libfuse3") as mounts:
        (mounts("--block-size", "64KiB", option).path / "file").write_bytes(body)
    expected = hashlib.md5(body).digest() if option == "--file-md5" else None
    assert blob.get_blob_properties().content_settings.content_md5 == expected
    assert blob.download_blob().readall() == body
