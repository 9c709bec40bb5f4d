"""Names: which come back as they went in, which are refused, and which blobs cannot be shown."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from azure.storage.blob import ContainerClient
from azurite import Azurite
from mounts import Mount, Mounts, on_both_bindings, run
from responder.control import Responder
from responder.recipes import Recipe
from unix import refused

KEPT = [
    "plain.txt",
    "with space",
    " leading and trailing ",
    "grüße",
    "日本語",
    "😀",
    "e\u0301 and \u00e9",
    "'single' \"double\"",
    "100% %41 %2F %zz",
    "a?b=c&d",
    "#hash",
    "a+b",
    "semi;colon:comma,at@equals=",
    "[brackets]{braces}(parens)",
    "<tag>&amp;",
    "*glob?",
    "$HOME `x` !",
    "|pipe>",
    "~",
    "-rf",
    ".hidden",
    "...",
    "trailing.",
    "CON",
    "\u00a0\u2028",
    "n" * 255,
]
REFUSED = [
    "line\nbreak",
    "tab\there",
    "delete\x7f",
    "back\\slash",
    "\udcff\udcfe",
    "\ufffe",
]


@pytest.fixture(scope="module")
def shared_mount(shared_mounts: Mounts) -> Mount:
    """A mount that remembers no names: other programs put blobs where it has just looked."""
    return shared_mounts("--attr-timeout", "0")


@pytest.fixture
def blobs(azurite: Azurite, shared_container: str) -> Iterator[ContainerClient]:
    """The container as another program sees it."""
    with azurite.client() as client:
        yield client.get_container_client(shared_container)


# Names made here


def test_names_come_back_and_are_the_blobs_names(directory: Path, blobs: ContainerClient) -> None:
    for name in KEPT:
        (directory / name).write_text(name)
    assert sorted(os.listdir(directory)) == sorted(KEPT)
    assert [(directory / name).read_text() for name in KEPT] == KEPT
    for name in KEPT:
        assert blobs.download_blob(f"{directory.name}/{name}").readall().decode() == name


def test_files_and_directories_of_any_name_are_renamed_and_removed(directory: Path) -> None:
    for name in KEPT[::3]:
        (directory / name).mkdir()
        (directory / name / name).write_text(name)
        (directory / name).rename(directory / "other")
        (directory / "other" / name).rename(directory / name)
        assert (directory / name).read_text() == name
        (directory / name).unlink()
        (directory / "other").rmdir()
    assert os.listdir(directory) == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_would_not_come_back_is_einval_and_leaves_nothing(directory: Path, name: str) -> None:
    path = directory / name
    (directory / "old").touch()
    calls = [path.touch, path.mkdir, lambda: path.symlink_to("old"), lambda: os.mkfifo(path)]
    for call in calls:
        with refused(errno.EINVAL):
            call()
    with refused(errno.EINVAL):
        (directory / "old").rename(path)
    assert os.listdir(directory) == ["old"]


def test_names_that_differ_in_case_or_normal_form_are_different(directory: Path) -> None:
    names = ["name", "Name", "NAME", "\u00e9", "e\u0301"]
    for name in names:
        (directory / name).write_text(name)
    assert sorted(os.listdir(directory)) == sorted(names)
    assert [(directory / name).read_text() for name in names] == names


# Names that others made


def hidden(directory: Path) -> dict[str, str]:
    """Return what the mount says of a directory's blobs that are not shown: reasons by name."""
    ended = run("getfattr", "--only-values", "-n", "user.blobfs.hidden", directory)
    found: dict[str, str] = json.loads(ended.stdout)
    return found


def test_blobs_of_any_such_name_are_files(directory: Path, blobs: ContainerClient) -> None:
    for name in KEPT:
        blobs.upload_blob(f"{directory.name}/below/{name}", name.encode())
    assert sorted(os.listdir(directory / "below")) == sorted(KEPT)
    assert [(directory / "below" / name).read_text() for name in KEPT] == KEPT
    assert hidden(directory / "below") == {}


def test_names_that_libfuse_gives_to_removed_files_are_refused(
    shared_mounts: Mounts, directory: Path, blobs: ContainerClient
) -> None:
    shared_mounts.expect_log("is not shown: reserved for files that are deleted while open")
    name = ".fuse_hidden" + "0" * 16
    with refused(errno.EINVAL):
        (directory / name).touch()
    blobs.upload_blob(f"{directory.name}/{name}", b"content")
    assert os.listdir(directory) == []
    assert list(hidden(directory)) == [f"{directory.name}/{name}"]


UNSHOWABLE = {
    "//twice": "empty",
    "a/./b": "reserved",
    "a/../b": "reserved",
    "a/trailing/": "its name ends with a slash",
    "a/" + "n" * 256: "longer than 255 bytes",
    "a/" + "ü" * 128: "longer than 255 bytes",
    "a/control\x01": "control character",
    "a/line\nbreak": "control character",
    "a/back\\slash": "backslash",
    "a/b\\c/below": "backslash",
}


@on_both_bindings
def test_blobs_that_cannot_be_shown_are_reported_and_the_others_listed(
    responder: Responder, binding: str
) -> None:
    container = uuid4().hex
    responder.create_container(container)
    for name in ["a/shown", "top", *UNSHOWABLE]:
        responder.make_blobs(container, Recipe(name, size_bytes=1))
    with Mounts(responder, container, binding) as mount:
        root = mount().path
        for reason in UNSHOWABLE.values():
            mount.expect_log(f"is not shown: .*{reason}")
        assert sorted(os.listdir(root)) == ["a", "top"]
        assert sorted(os.listdir(root / "a")) == ["shown", "trailing"]
        assert os.listdir(root / "a" / "trailing") == []
        assert run("find", root).returncode == 0
        assert (root / "a" / "shown").stat().st_size == 1
        assert set(hidden(root)) == {"/"}
        assert set(hidden(root / "a" / "trailing")) == {"a/trailing/"}
        shown_as = {"a/./b": "a/./", "a/../b": "a/../", "a/b\\c/below": "a/b\\c/"}
        expected = {shown_as.get(name, name) for name in UNSHOWABLE if name.startswith("a/")} - {
            "a/trailing/"
        }
        assert set(hidden(root / "a")) == expected


def test_a_blob_and_a_directory_of_one_name_are_a_directory_and_the_blob_is_reported(
    shared_mounts: Mounts, directory: Path, blobs: ContainerClient
) -> None:
    shared_mounts.expect_log("/a' is not shown: a directory has the same name")
    blobs.upload_blob(f"{directory.name}/below/a", b"blob")
    blobs.upload_blob(f"{directory.name}/below/a/b", b"content")
    below = directory / "below"
    assert os.listdir(below) == ["a"]
    assert (below / "a" / "b").read_bytes() == b"content"
    assert list(hidden(below).values()) == ["a directory has the same name"]
    with refused(errno.EISDIR):
        (below / "a").read_bytes()
    (below / "a" / "b").unlink()
    assert blobs.download_blob(f"{directory.name}/below/a").readall() == b"blob"


def test_a_blob_that_shares_a_directorys_name_survives_what_happens_to_the_directory(
    shared_mounts: Mounts, directory: Path, blobs: ContainerClient
) -> None:
    shared_mounts.expect_log("/a' is not shown: a directory has the same name")
    blobs.upload_blob(f"{directory.name}/below/a", b"blob")
    blobs.upload_blob(f"{directory.name}/below/a/b", b"content")
    below = directory / "below"
    (below / "a").rename(below / "moved")
    assert (below / "moved" / "b").read_bytes() == b"content"
    assert blobs.download_blob(f"{directory.name}/below/a").readall() == b"blob"


# Prefixes


@pytest.fixture
def subtree(blobs: ContainerClient, directory: Path) -> str:
    """A prefix whose name others begin with."""
    for name in ("data/file", "data/below/deep", "data2/other", "data.txt", "data"):
        blobs.upload_blob(f"{directory.name}/{name}", name.encode())
    return f"{directory.name}/data"


@pytest.mark.parametrize("slashes", ["{}", "{}/", "/{}", "/{}/"])
def test_a_prefix_is_matched_at_a_slash(shared_mounts: Mounts, subtree: str, slashes: str) -> None:
    mounted = shared_mounts("--prefix", slashes.format(subtree))
    assert sorted(os.listdir(mounted.path)) == ["below", "file"]
    assert (mounted.path / "below" / "deep").read_bytes() == b"data/below/deep"
    shared_mounts.unmount(mounted)


def test_files_made_under_a_prefix_have_it_in_their_names(
    shared_mounts: Mounts, subtree: str, blobs: ContainerClient
) -> None:
    mounted = shared_mounts("--prefix", subtree)
    (mounted.path / "new").write_bytes(b"content")
    (mounted.path / "file").rename(mounted.path / "below" / "moved")
    shared_mounts.unmount(mounted)
    names = sorted(name.removeprefix(subtree) for name in blobs.list_blob_names(name_starts_with=subtree))
    assert names == ["", ".txt", "/below/deep", "/below/moved", "/new", "2/other"]


def test_a_prefix_with_nothing_below_it_is_an_empty_directory_to_fill(
    shared_mounts: Mounts, directory: Path
) -> None:
    mounted = shared_mounts("--prefix", f"{directory.name}/new place")
    assert os.listdir(mounted.path) == []
    (mounted.path / "file").write_bytes(b"content")
    shared_mounts.unmount(mounted)
    assert (directory / "new place" / "file").read_bytes() == b"content"


# Large directories


@pytest.mark.parametrize(
    ("binding", "count"), [("libfuse3", 100_000), ("libfuse2", 20_000)], indirect=["binding"]
)
def test_a_very_large_directory_is_listed_and_used(responder: Responder, binding: str, count: int) -> None:
    container = uuid4().hex
    responder.create_container(container)
    responder.make_blobs(container, Recipe("large/{index:06}", count, size_bytes=7, has_md5=False))
    with Mounts(responder, container, binding) as mount:
        large = mount().path / "large"
        assert set(os.listdir(large)) == {f"{number:06}" for number in range(count)}
        assert (large / "012345").stat().st_size == 7
        (large / "new").write_bytes(b"content")
        (large / "000000").unlink()
        names = run("ls", "-U", large).stdout.splitlines()
        assert len(names) == count
        assert set(names) >= {"new", "000001", f"{count - 1:06}"}
