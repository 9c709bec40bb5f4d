"""AzCopy and blobfs, each reading what the other wrote."""

import shutil
from pathlib import Path

import pytest
from azcopy import download, kept_by_azcopy, upload, url_of
from azurite import Azurite
from mounts import shell
from trees import make_tree, snapshot

# What is on the service does not depend on the binding.
pytestmark = pytest.mark.parametrize("shared_mounts", ["libfuse3"], indirect=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree outside of any mount, of what AzCopy can copy: it makes an empty file of a fifo."""
    tree = make_tree(tmp_path / "tree")
    (tree / "fifo").unlink()
    return tree


@pytest.fixture
def url(azurite: Azurite, shared_container: str, directory: Path) -> str:
    """Where AzCopy finds what is in the tree in the directory."""
    return url_of(azurite, shared_container, f"{directory.name}/tree")


def test_azcopy_reads_what_blobfs_wrote_and_checks_every_md5(
    directory: Path, url: str, tree: Path, tmp_path: Path
) -> None:
    shell(directory, 'cp -a "$TREE" tree', TREE=tree)
    download(url, tmp_path / "out", tmp_path, links_in="a")
    assert kept_by_azcopy(tmp_path / "out" / "tree") == kept_by_azcopy(tree)


def test_blobfs_reads_what_azcopy_wrote(directory: Path, url: str, tree: Path, tmp_path: Path) -> None:
    upload(tree, url, tmp_path, "--include-directory-stub")
    expected = snapshot(tree)
    del expected["."]
    copied = snapshot(directory / "tree")
    assert {name: copied.get(name) for name in expected} == expected


def test_a_tree_comes_back_the_same_through_both(
    directory: Path, url: str, tree: Path, tmp_path: Path
) -> None:
    expected = kept_by_azcopy(tree)
    upload(tree, url, tmp_path)
    shell(directory, "cp -a tree two; rm -r tree; cp -a two tree")
    shutil.rmtree(tree)
    download(url, tmp_path, tmp_path, links_in="a")
    assert kept_by_azcopy(tree) == expected


def test_what_blobfs_changes_in_a_file_of_azcopys_is_what_azcopy_then_reads(
    directory: Path, url: str, tree: Path, tmp_path: Path
) -> None:
    upload(tree, url, tmp_path)
    copied = directory / "tree"
    with (copied / "large").open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"changed")
    with (copied / "program").open("a") as file:
        file.write("echo again\n")
    (copied / "one").chmod(0o600)
    (copied / "large").rename(copied / "larger")
    # A file that was changed in the middle has no MD5 of the whole.
    download(url, tmp_path / "out", tmp_path, "--check-md5=FailIfDifferent", links_in="a")
    assert kept_by_azcopy(tmp_path / "out" / "tree") == kept_by_azcopy(copied)
    assert (tmp_path / "out" / "tree" / "program").read_text().endswith("hello\necho again\n")
