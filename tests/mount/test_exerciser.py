"""Files under the exerciser: every operation across every boundary, with another client in between."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from azure.storage.blob import BlobClient
from azurite import Azurite
from exerciser import Exerciser
from mounts import Mounts, on_both_bindings
from responder.control import Responder

TIMES = int(os.environ.get("BLOBFS_TEST_TIMES", "1"))  # more operations, for a long run
ROUNDS = 4  # an even number: there is one remount in the middle
BLOCKS = 6  # the largest file has so many, and a bit

LACKS = {"libfuse3": (), "libfuse2": ("punch", "zero")}  # its binding knows no fallocate(2)

# By the fast responder nearly all of 100,000 operations, by the emulator some.
RUNS = [(Responder, 65_536, 16_000), (Responder, 100_003, 16_000), (Responder, 262_144, 16_000)]
RUNS += [(Azurite, 65_536, 2_000)]


@pytest.fixture
def service(
    service_class: type[Azurite | Responder], azurite: Azurite, responder: Responder
) -> Azurite | Responder:
    """The emulator or the responder."""
    return azurite if service_class is Azurite else responder


@pytest.fixture
def blob(service: Azurite | Responder) -> Iterator[BlobClient]:
    """A blob as another client sees it, alone in a new container."""
    container = uuid4().hex
    service.create_container(container)
    with service.client() as client:
        yield client.get_blob_client(container, "file")


def replace_in_blocks(blob: BlobClient, content: bytes, lengths: random.Random) -> None:
    """Write the blob anew, in blocks of any length."""
    ids: list[str] = []
    while content:
        length = lengths.randint(1, 200_000)
        ids.append(f"{len(ids):06}")
        blob.stage_block(ids[-1], content[:length])
        content = content[length:]
    blob.commit_block_list(ids)


@on_both_bindings
@pytest.mark.parametrize(("service_class", "block_bytes", "operations"), RUNS)
def test_a_file_is_what_the_operations_on_it_say(
    service: Azurite | Responder, blob: BlobClient, binding: str, block_bytes: int, operations: int
) -> None:
    options = ["--block-size", str(block_bytes), "--memory", "16MiB"]
    largest_bytes = BLOCKS * block_bytes + 12_345
    chance = random.Random(block_bytes)
    exerciser = Exerciser(
        seed=block_bytes, block_bytes=block_bytes, largest_bytes=largest_bytes, lacks=LACKS[binding]
    )
    with Mounts(service, blob.container_name, binding) as mounts:
        mount = mounts(*options)
        for number in range(ROUNDS):
            if number == ROUNDS // 2:
                mounts.unmount(mount)
                mount = mounts(*options)
            exerciser.run(mount.path / "file", operations * TIMES // ROUNDS)
            assert blob.download_blob().readall() == exerciser.content
            if number % 2 == 0:
                exerciser.content[:] = chance.randbytes(largest_bytes // 2)
                replace_in_blocks(blob, bytes(exerciser.content), chance)


def test_on_a_local_disk_the_exerciser_finds_nothing(tmp_path: Path) -> None:
    exerciser = Exerciser(seed=0, block_bytes=65_536, largest_bytes=500_000)
    exerciser.run(tmp_path / "file", 2000)
    assert (tmp_path / "file").read_bytes() == exerciser.content
