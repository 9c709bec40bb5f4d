"""Blobs that other tools wrote: what they look like, and what is left of them after a change."""

import errno
import gzip
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobClient, ContainerClient, ContentSettings, StandardBlobTier
from azurite import Azurite
from mounts import Mount, Mounts
from unix import refused

MiB = 1 << 20


@pytest.fixture(scope="module")
def shared_mount(shared_mounts: Mounts) -> Mount:
    """A mount that remembers no names: other programs put blobs where it has just looked."""
    return shared_mounts("--attr-timeout", "0", "--uid", "11", "--gid", "12", "--umask", "027")


@pytest.fixture
def blobs(azurite: Azurite, shared_container: str) -> Iterator[ContainerClient]:
    """The container as another program sees it."""
    with azurite.client() as client:
        yield client.get_container_client(shared_container)


@pytest.fixture
def blob(blobs: ContainerClient, directory: Path) -> BlobClient:
    """The blob of the name "file" in the directory."""
    return blobs.get_blob_client(f"{directory.name}/file")


# Attributes


def test_a_plain_blob_has_the_attributes_that_the_mount_gives(directory: Path, blob: BlobClient) -> None:
    blob.upload_blob(b"content")
    found = (directory / "file").stat()
    assert (found.st_mode, found.st_uid, found.st_gid) == (stat.S_IFREG | 0o640, 11, 12)
    assert found.st_mtime == found.st_ctime == blob.get_blob_properties().last_modified.timestamp()
    assert (directory / "file").read_bytes() == b"content"


def test_a_directory_that_is_only_a_prefix_has_them_too_and_keeps_what_is_set(
    directory: Path, blobs: ContainerClient
) -> None:
    blobs.upload_blob(f"{directory.name}/a/b/file", b"content")
    found = (directory / "a").stat()
    assert (found.st_mode, found.st_uid, found.st_gid) == (stat.S_IFDIR | 0o750, 11, 12)
    (directory / "a").chmod(0o700)
    os.chown(directory / "a", 13, 14)
    found = (directory / "a").stat()
    assert (found.st_mode, found.st_uid, found.st_gid) == (stat.S_IFDIR | 0o700, 13, 14)
    assert os.listdir(directory / "a") == ["b"]


def test_a_directory_that_is_only_a_prefix_stays_when_its_last_file_goes(
    directory: Path, blobs: ContainerClient
) -> None:
    blobs.upload_blob(f"{directory.name}/a/file", b"content")
    assert os.listdir(directory / "a") == ["file"]
    (directory / "a" / "file").unlink()
    assert os.listdir(directory) == ["a"]
    (directory / "a").rmdir()
    assert os.listdir(directory) == []


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("a", {"hdi_isfolder": "true"}),
        ("a", {"Hdi_isfolder": "True"}),
        ("a/", {}),
        ("a/", {"hdi_isfolder": "true"}),
    ],
)
def test_every_tools_directory_marker_is_one_directory(
    directory: Path, blobs: ContainerClient, name: str, metadata: dict[str, str]
) -> None:
    blobs.upload_blob(f"{directory.name}/{name}", b"", metadata=metadata)
    assert os.listdir(directory) == ["a"]
    assert os.listdir(directory / "a") == []
    blobs.upload_blob(f"{directory.name}/a/file", b"content")
    assert os.listdir(directory) == ["a"]
    assert os.listdir(directory / "a") == ["file"]


def test_a_link_of_blobfuse_leads_where_it_should(directory: Path, blobs: ContainerClient) -> None:
    blobs.upload_blob(f"{directory.name}/file", b"content")
    blobs.upload_blob(f"{directory.name}/link", b"file", metadata={"is_symlink": "true"})
    assert os.readlink(directory / "link") == "file"
    assert (directory / "link").read_bytes() == b"content"


def test_attributes_of_blobxfer_are_understood_and_can_be_changed(directory: Path, blob: BlobClient) -> None:
    posix = {"mode": "0o100604", "uid": 21, "gid": 22}
    blob.upload_blob(
        b"content", metadata={"blobxfer_metadata": json.dumps({"FileAttributes": {"POSIX": posix}})}
    )
    found = (directory / "file").stat()
    assert (found.st_mode, found.st_uid, found.st_gid) == (stat.S_IFREG | 0o604, 21, 22)
    (directory / "file").chmod(0o600)
    os.chown(directory / "file", 23, -1)
    found = (directory / "file").stat()
    assert (found.st_mode, found.st_uid, found.st_gid) == (stat.S_IFREG | 0o600, 23, 22)


def test_attributes_of_managed_lustre_and_times_of_rclone_are_understood(
    directory: Path, blobs: ContainerClient
) -> None:
    lustre = {"permissions": "0640", "owner": "31", "group": "32", "modtime": "2020-01-02 03:04:05 +0000"}
    blobs.upload_blob(f"{directory.name}/lustre", b"content", metadata=lustre)
    rclone = {"mtime": "2020-01-02T03:04:05.000000006Z"}
    blobs.upload_blob(f"{directory.name}/rclone", b"content", metadata=rclone)
    found = (directory / "lustre").stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid, found.st_mtime) == (0o640, 31, 32, 1577934245)
    assert (directory / "rclone").stat().st_mtime_ns == 1577934245_000000006


# What a change keeps


def test_a_change_keeps_headers_and_metadata_that_mean_nothing_to_blobfs(
    directory: Path, blob: BlobClient
) -> None:
    headers = ContentSettings(
        content_type="application/x-thing",
        content_language="de",
        content_disposition="inline",
        cache_control="no-cache",
    )
    blob.upload_blob(b"content", metadata={"Project": "blue"}, content_settings=headers)
    path = directory / "file"
    with path.open("ab") as file:
        file.write(b", more")
    path.chmod(0o600)
    path.rename(directory / "other")
    (directory / "other").rename(path)

    found = blob.get_blob_properties()
    assert blob.download_blob().readall() == b"content, more"
    assert {key.lower(): value for key, value in found.metadata.items()}["project"] == "blue"
    for name in ("content_type", "content_language", "content_disposition", "cache_control"):
        assert getattr(found.content_settings, name) == getattr(headers, name)


def test_a_compressed_blob_is_its_stored_bytes(directory: Path, blob: BlobClient) -> None:
    stored = gzip.compress(b"content" * 1000)
    blob.upload_blob(stored, content_settings=ContentSettings(content_encoding="gzip"))
    assert (directory / "file").read_bytes() == stored
    assert (directory / "file").stat().st_size == len(stored)


@pytest.mark.parametrize("block", [64 << 10, 1 * MiB, 3 * MiB + 1])
def test_a_blob_of_another_tools_blocks_is_changed_anywhere(
    azurite: Azurite, shared_container: str, directory: Path, block: int
) -> None:
    content = bytearray(os.urandom(MiB) * 12)
    name = f"{directory.name}/file"
    with BlobClient(
        azurite.endpoint,
        shared_container,
        name,
        credential=azurite.key,
        max_block_size=block,
        max_single_put_size=block,
    ) as client:
        client.upload_blob(bytes(content))
        path = directory / "file"
        with path.open("r+b", buffering=0) as file:
            for offset in (0, block - 3, 5 * MiB, len(content) - 1, len(content)):
                file.seek(offset)
                file.write(b"changed")
                content[offset : offset + 7] = b"changed"
        assert client.download_blob().readall() == content
    assert path.read_bytes() == content


def test_a_blob_with_snapshots_is_removed(directory: Path, blob: BlobClient) -> None:
    blob.upload_blob(b"content")
    blob.create_snapshot()
    (directory / "file").unlink()
    assert os.listdir(directory) == []


def test_a_leased_blob_is_busy_for_writers_and_removers(directory: Path, blob: BlobClient) -> None:
    blob.upload_blob(b"content")
    path = directory / "file"
    lease = blob.acquire_lease()
    with refused(errno.EBUSY):
        path.unlink()
    with refused(errno.EBUSY):
        path.chmod(0o600)
    assert path.read_bytes() == b"content"
    lease.release()
    path.unlink()


# Page blobs, append blobs, the archive


@pytest.fixture(params=["page", "append"])
def of_another_kind(request: pytest.FixtureRequest, directory: Path, blob: BlobClient) -> tuple[Path, bytes]:
    """A file whose blob is no block blob, and its bytes."""
    content = b"content." * 200_000
    content = content[: len(content) // 512 * 512]
    if request.param == "page":
        blob.create_page_blob(len(content))
        blob.upload_page(content, 0, len(content))
    else:
        blob.create_append_blob()
        blob.append_block(content)
    return directory / "file", content


def test_page_and_append_blobs_are_read(of_another_kind: tuple[Path, bytes]) -> None:
    path, content = of_another_kind
    assert path.stat().st_size == len(content)
    assert path.read_bytes() == content
    with path.open("rb", buffering=0) as file:
        file.seek(100_001)
        assert file.read(10) == content[100_001:100_011]


def test_page_and_append_blobs_are_refused_for_writing(of_another_kind: tuple[Path, bytes]) -> None:
    path, content = of_another_kind
    for mode in ("r+b", "ab", "wb"):
        with refused(errno.EOPNOTSUPP), path.open(mode, buffering=0) as file:
            file.write(b"x")
    with refused(errno.EOPNOTSUPP):
        os.truncate(path, 0)
    assert path.read_bytes() == content


def test_page_and_append_blobs_change_attributes_and_go(of_another_kind: tuple[Path, bytes]) -> None:
    path, content = of_another_kind
    path.chmod(0o600)
    os.utime(path, ns=(1, 2))
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime_ns) == (0o600, 2)
    assert path.read_bytes() == content
    path.unlink()
    assert os.listdir(path.parent) == []


def test_an_archived_blob_is_listed_and_says_why_it_cannot_be_read(
    shared_mounts: Mounts, directory: Path, blob: BlobClient
) -> None:
    shared_mounts.expect_log("archive.*rehydrate|rehydrate.*archive")
    blob.upload_blob(b"content")
    blob.set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    path = directory / "file"
    assert os.listdir(directory) == ["file"]
    assert path.stat().st_size == 7
    assert os.getxattr(path, "user.blobfs.tier") == b"Archive"
    with refused(errno.ENODATA):
        path.read_bytes()
    blob.set_standard_blob_tier(StandardBlobTier.HOT)
    assert path.read_bytes() == b"content"
