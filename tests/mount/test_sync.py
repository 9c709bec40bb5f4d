import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient
from azurite import Azurite
from click.testing import CliRunner
from mounts import Mounts, bash, blobfs

from blobfs.cli.control import read_receipt
from blobfs.cli.main import blobfs as commands


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


@pytest.mark.parametrize("command", ["sync", "warm"])
def test_mount_whose_process_died_is_named_with_the_cure(mount: Mounts, command: str) -> None:
    dead = mount()
    dead.kill()
    for path in (dead.path, dead.path / "directory"):
        ended = blobfs(command, path)
        assert ended.returncode == 1
        assert f"{dead.path} is a mount whose process has died. Run blobfs umount {dead.path}" in ended.stderr


def test_sync_takes_a_path_in_the_mount_alone(mount: Mounts, blobs: ContainerClient, tmp_path: Path) -> None:
    root = mount().path
    (tmp_path / "link").symlink_to(root)
    for number, place in enumerate([root, tmp_path / "link"]):
        with open(place / f"{number}", "wb", buffering=0) as file:
            file.write(b"open")
            ended = sync(place / f"{number}")
            assert (ended.returncode, ended.stderr) == (0, "")
            assert blobs.download_blob(f"{number}").readall() == b"open"


def test_manifest_on_standard_output_is_nothing_but_json(mount: Mounts) -> None:
    root = mount().path
    for name in ("a", "b"):
        (root / name).write_bytes(b"1")
    ended = sync(root, "--manifest", "-")
    assert [json.loads(line)["name"] for line in ended.stdout.splitlines()] == ["a", "b"]
    assert ended.stderr == f"{root}: everything is committed.\n"


@pytest.mark.parametrize("where", ["/nosuch/x", "/", "directory"])
def test_sync_refuses_a_manifest_that_cannot_be_written_before_it_looks_for_the_mount(
    tmp_path: Path, where: str
) -> None:
    manifest = tmp_path if where == "directory" else where
    ended = sync(tmp_path, "--manifest", manifest)
    assert ended.returncode == 2
    assert str(manifest) in ended.stderr


def test_manifest_is_replaced_by_a_complete_one_or_not_at_all(
    mount: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mount().path
    for name in ("a", "b"):
        (root / name).write_bytes(b"1")
    manifest = tmp_path / "manifest"
    manifest.write_text("an earlier one")

    def changed_meanwhile(path: Path) -> dict[str, Any]:
        if path.name == "a":
            return read_receipt(path)
        with path.open("ab", buffering=0) as file:
            file.write(b"2")
            return read_receipt(path)

    monkeypatch.setattr("blobfs.cli.sync.read_receipt", changed_meanwhile)
    ended = CliRunner().invoke(commands, ["sync", str(root), "--manifest", str(manifest)])
    assert ended.exit_code == 1
    assert f"{root / 'b'}: not everything is committed" in ended.output
    assert manifest.read_text() == "an earlier one"
    assert os.listdir(tmp_path) == ["manifest"]


def test_manifest_leaves_no_directory_out_that_cannot_be_listed(
    mount: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mount().path
    (root / "directory").mkdir()
    (root / "directory" / "file").write_bytes(b"1")
    scandir = os.scandir

    def refused(path: Path) -> Any:
        if Path(path).name == "directory":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refused)
    ended = CliRunner().invoke(commands, ["sync", str(root), "--manifest", str(tmp_path / "manifest")])
    monkeypatch.undo()
    assert ended.exit_code == 1
    assert f"{root}/directory: Permission denied" in ended.output
    assert os.listdir(tmp_path) == []


def test_manifest_leaves_out_what_is_removed_meanwhile(
    mount: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manifest = mount().path, tmp_path / "manifest"
    for name in ("a", "b"):
        (root / name).write_bytes(b"1")

    def removed_meanwhile(path: Path) -> dict[str, Any]:
        if path.name == "a":
            path.unlink()
        return read_receipt(path)

    monkeypatch.setattr("blobfs.cli.sync.read_receipt", removed_meanwhile)
    ended = CliRunner().invoke(commands, ["sync", str(root), "--manifest", str(manifest)])
    assert ended.exit_code == 0, ended.output
    assert [json.loads(line)["name"] for line in manifest.read_text().splitlines()] == ["b"]


def test_manifest_for_which_the_disk_has_no_room_is_named(mount: Mounts, tmp_path: Path) -> None:
    root, manifest = mount().path, tmp_path / "manifest"
    (root / "file").write_bytes(b"1")
    ended = bash(tmp_path, f"ulimit -f 0; blobfs sync {root} --manifest {manifest}")
    assert (ended.returncode, ended.stderr) == (1, f"blobfs: {manifest}: File too large\n")
    assert os.listdir(tmp_path) == []


def test_manifest_replaces_no_device_and_no_link(mount: Mounts, tmp_path: Path) -> None:
    root = mount().path
    (root / "file").write_bytes(b"1")
    os.mkfifo(tmp_path / "fifo")
    ended = sync(root, "--manifest", tmp_path / "fifo")
    assert (ended.returncode, "is not a regular file" in ended.stderr) == (2, True)
    assert (tmp_path / "fifo").is_fifo()
    (tmp_path / "link").symlink_to("manifest")
    assert sync(root, "--manifest", tmp_path / "link").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "manifest").read_text())["name"] == "file"


def test_manifest_in_the_mount_that_it_tells_of_is_refused(mount: Mounts) -> None:
    root = mount().path
    (root / "d").mkdir()
    ended = sync(root / "d", "--manifest", root / "manifest")
    assert ended.returncode == 1
    assert f"{root / 'manifest'} is in the mount" in ended.stderr
    assert os.listdir(root) == ["d"]


def test_manifest_tells_of_files_and_not_of_what_links_lead_to(mount: Mounts, tmp_path: Path) -> None:
    root = mount().path
    (root / "file").write_bytes(b"1")
    (root / "link").symlink_to("file")
    (root / "out").symlink_to(__file__)
    ended = sync(root, "--manifest", tmp_path / "manifest")
    assert (ended.returncode, ended.stderr) == (0, "")
    receipts = [json.loads(line) for line in (tmp_path / "manifest").read_text().splitlines()]
    assert [receipt["name"] for receipt in receipts] == ["file"]


def test_sync_names_the_true_cause_and_what_is_below_the_path_alone(mount: Mounts) -> None:
    winner, loser = mount(), mount()
    mount.expect_log("was closed without being committed")
    for name in ("a", "b"):
        (winner.path / name).mkdir()
        descriptor = os.open(loser.path / name / "file", os.O_CREAT | os.O_WRONLY)
        (winner.path / name / "file").write_text("first")
        os.write(descriptor, b"second")
        with pytest.raises(FileExistsError):
            os.close(descriptor)
    ended = sync(loser.path / "a")
    assert ended.returncode == 1
    assert "/a/file: a/file: " in ended.stderr
    assert "/b/file" not in ended.stderr
    assert "cannot be reached" not in ended.stderr
    for name in ("a", "b"):
        (loser.path / name / "file").unlink()


def test_what_lost_a_race_is_named_by_its_new_name_until_that_is_gone(mount: Mounts) -> None:
    winner, loser = mount(), mount()
    mount.expect_log("was closed without being committed")
    (loser.path / "d").mkdir()
    descriptor = os.open(loser.path / "d" / "file", os.O_CREAT | os.O_WRONLY)
    (winner.path / "d" / "file").write_text("first")
    os.write(descriptor, b"second")
    with pytest.raises(FileExistsError):
        os.close(descriptor)
    (loser.path / "d" / "file").rename(loser.path / "d" / "renamed")
    (loser.path / "d").rename(loser.path / "e")
    ended = sync(loser.path)
    assert "/e/renamed: " in ended.stderr
    assert "/d/file: " not in ended.stderr.replace("renamed: d/file", "")
    (loser.path / "e" / "renamed").unlink()
    assert sync(loser.path).returncode == 0


def test_receipt_is_of_what_the_service_has(mount: Mounts) -> None:
    root = mount("--block-size", "64KiB").path
    with open(root / "x", "wb") as file:
        file.write(bytes(200 * 1024))
        file.flush()
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(root / "x", "user.blobfs.receipt")
        told = CliRunner().invoke(commands, ["status", str(root / "x")])  # a child would close the file, too
        assert (told.exit_code, told.stdout) == (1, "")
        assert "not everything is committed" in told.stderr
    receipt = json.loads(os.getxattr(root / "x", "user.blobfs.receipt"))
    assert receipt["blocks"] == 4
    assert json.loads(blobfs("status", "--json", root / "x").stdout) == receipt
