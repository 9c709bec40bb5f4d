import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from azurite import Azurite
from mounts import Mounts


@pytest.fixture
def blobs(azurite: Azurite, container: str) -> Iterator[ContainerClient]:
    with azurite.client() as client:
        yield client.get_container_client(container)


def sync(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["blobfs", "sync", *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def test_sync_commits_what_is_open_and_writes_a_manifest(
    mount: Mounts, blobs: ContainerClient, tmp_path: Path
) -> None:
    root = mount().path
    (root / "results").mkdir()
    (root / "results" / "closed").write_bytes(b"1")
    manifest = tmp_path / "manifest"
    with open(root / "results" / "open", "wb") as file:
        file.write(b"half of it")
        file.flush()
        ended = sync(root, root / "results", "--manifest", manifest)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert blobs.download_blob("results/open").readall() == b"half of it"
    receipts = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert {receipt["name"]: receipt["size_bytes"] for receipt in receipts} == {
        "results/closed": 1,
        "results/open": 10,
    }
    properties = blobs.get_blob_client("results/closed").get_blob_properties()
    assert receipts[0]["etag"] == properties.etag.strip(chr(34))
    assert bytes.fromhex(receipts[0]["md5"]) == properties.content_settings.content_md5


@pytest.mark.parametrize("where", ["elsewhere", "missing"])
def test_sync_of_what_is_not_there_says_so(mount: Mounts, tmp_path: Path, where: str) -> None:
    root = mount().path
    path = tmp_path if where == "elsewhere" else root / "missing"
    ended = sync(root, path)
    assert ended.returncode == 1
    assert str(path) in ended.stderr
    assert sync(tmp_path).returncode == 1


def test_receipt_is_of_what_the_service_has(mount: Mounts) -> None:
    root = mount("--block-size", "64KiB").path
    with open(root / "x", "wb") as file:
        file.write(bytes(200 * 1024))
        file.flush()
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(root / "x", "user.blobfs.receipt")
    assert json.loads(os.getxattr(root / "x", "user.blobfs.receipt"))["blocks"] == 4
