"""Blobs that other tools wrote, edited in place in the mount, and read back by AzCopy."""

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azcopy import download, kept_by_azcopy, upload, url_of
from azure.storage.blob import BlobBlock, ContainerClient, ContentSettings
from azurite import Azurite
from mounts import Mount, Mounts

MiB = 1 << 20
CONTENT = random.Random(0).randbytes(5 * MiB + 1000)  # six blocks of 1 MiB
OWN_KEY, OWN_VALUE = "project", "ocean"
CACHE_CONTROL = "max-age=7"

# What is on the service does not depend on the binding.
pytestmark = pytest.mark.parametrize("shared_mounts", ["libfuse3"], indirect=True)


@pytest.fixture(scope="module")
def shared_mount(shared_mounts: Mounts) -> Mount:
    """A mount of blocks as large as the other tools' here, which remembers no names."""
    return shared_mounts("--block-size", "1MiB", "--attr-timeout", "0")


@pytest.fixture
def blobs(azurite: Azurite, shared_container: str) -> Iterator[ContainerClient]:
    """The container as another program sees it."""
    with azurite.client() as client:
        yield client.get_container_client(shared_container)


@pytest.fixture
def url(azurite: Azurite, shared_container: str, directory: Path) -> str:
    """Where AzCopy finds the directory."""
    return url_of(azurite, shared_container, directory.name)


def overwrite(path: Path) -> bytes:
    """Change some bytes in the third block."""
    with path.open("r+b") as file:
        file.seek(2 * MiB + 100)
        file.write(b"changed")
    return CONTENT[: 2 * MiB + 100] + b"changed" + CONTENT[2 * MiB + 107 :]


def append(path: Path) -> bytes:
    """Add a line."""
    with path.open("ab") as file:
        file.write(b"one more\n")
    return CONTENT + b"one more\n"


def shorten(path: Path) -> bytes:
    """Cut in the middle of the fourth block."""
    os.truncate(path, 3 * MiB + 5)
    return CONTENT[: 3 * MiB + 5]


def lengthen(path: Path) -> bytes:
    """Let zeros follow."""
    os.truncate(path, len(CONTENT) + 2 * MiB)
    return CONTENT + bytes(2 * MiB)


EDITS: list[tuple[Callable[[Path], bytes], int]] = [(overwrite, 5), (append, 6), (shorten, 3), (lengthen, 6)]
NAMES = [edit.__name__ for edit, _ in EDITS]


@dataclass(frozen=True)
class Place:
    """Where another tool is to write."""

    blobs: ContainerClient
    prefix: str
    url: str  # the same, for AzCopy
    state: Path  # a directory of its own


def by_azcopy(place: Place) -> None:
    """AzCopy: random ids, attributes as standard keys."""
    source = place.state / "source"
    source.mkdir()
    for name in NAMES:
        (source / name).write_bytes(CONTENT)
        (source / name).chmod(0o640)
        os.chown(source / name, 11, 12)
    own = f"--metadata={OWN_KEY}={OWN_VALUE}"
    upload(
        source,
        place.url,
        place.state,
        "--block-size-mb=1",
        "--put-blob-size-mb=1",
        own,
        f"--cache-control={CACHE_CONTROL}",
    )


def by_blobxfer(place: Place) -> None:
    """What blobxfer 1.11 leaves with --file-attributes and --file-md5: numbered ids, JSON in one key."""
    attributes = {"FileAttributes": {"POSIX": {"gid": 12, "mode": "0o100640", "uid": 11}}}
    for name in NAMES:
        blob = place.blobs.get_blob_client(f"{place.prefix}/{name}")
        chunks = [CONTENT[start : start + MiB] for start in range(0, len(CONTENT), MiB)]
        for number, chunk in enumerate(chunks):
            blob.stage_block(f"{number:08}", chunk)
        blob.commit_block_list(
            [BlobBlock(f"{number:08}") for number in range(len(chunks))],
            content_settings=headers(),
            metadata={"blobxfer_metadata": json.dumps(attributes), OWN_KEY: OWN_VALUE},
        )


def by_put_blob(place: Place) -> None:
    """A blob written in one request, which has no blocks."""
    metadata = {"permissions": "33184", "posix_owner": "11", "posix_group": "12", OWN_KEY: OWN_VALUE}
    for name in NAMES:
        place.blobs.upload_blob(
            f"{place.prefix}/{name}", CONTENT, metadata=metadata, content_settings=headers()
        )


def headers() -> ContentSettings:
    """What other tools say about the content, its MD5 included."""
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).digest()
    return ContentSettings("application/x-restart", cache_control=CACHE_CONTROL, content_md5=bytearray(md5))


def block_ids(blobs: ContainerClient, name: str) -> list[str]:
    """Return the ids of a blob's committed blocks."""
    return [block.id for block in blobs.get_blob_client(name).get_block_list("committed")[0]]


def facts(blobs: ContainerClient, name: str) -> dict[str, Any]:
    """Return the headers and the keys that mean nothing to blobfs."""
    found = blobs.get_blob_client(name).get_blob_properties()
    said = found.content_settings
    return {
        "type": said.content_type,
        "cache": said.cache_control,
        "encoding": said.content_encoding,
        OWN_KEY: found.metadata[OWN_KEY],
    }


@pytest.mark.parametrize("write", [by_azcopy, by_blobxfer, by_put_blob])
def test_a_blob_is_edited_in_place_keeps_what_was_said_of_it_and_is_read_back_by_azcopy(
    directory: Path, blobs: ContainerClient, url: str, tmp_path: Path, write: Callable[[Place], None]
) -> None:
    write(Place(blobs, directory.name, url, tmp_path))
    expected = {}
    for edit, untouched in EDITS:
        path, name = directory / edit.__name__, f"{directory.name}/{edit.__name__}"
        said, ids = facts(blobs, name), block_ids(blobs, name)
        expected[edit.__name__] = edit(path)
        assert facts(blobs, name) == said
        assert said["cache"] == CACHE_CONTROL
        # What was touched is staged again, for an append nothing; a blob of one request has no blocks.
        assert len({*ids} & {*block_ids(blobs, name)}) == (untouched if ids else 0)
        found = path.stat()
        assert (oct(found.st_mode), found.st_uid, found.st_gid) == ("0o100640", 11, 12)
    # Changed in the middle, a file has no MD5 of the whole; a wrong one would be refused.
    download(url, tmp_path, tmp_path, "--check-md5=FailIfDifferent")
    copied = tmp_path / directory.name
    assert [name for name in NAMES if (copied / name).read_bytes() != expected[name]] == []
    assert kept_by_azcopy(copied) == kept_by_azcopy(directory)
