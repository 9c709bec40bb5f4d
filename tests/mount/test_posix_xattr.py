"""setxattr(2), getxattr(2), listxattr(2) and removexattr(2)."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from azurite import Azurite
from mounts import Mounts
from unix import BOB, as_user, changes_times, refused


@pytest.fixture(params=["file", "directory", "file being written"])
def path(directory: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Something that can have attributes."""
    path = directory / "path"
    if request.param == "directory":
        path.mkdir()
        yield path
        return
    with path.open("wb", buffering=0) as file:
        file.write(b"content")
        if request.param == "file being written":
            yield path
            return
    yield path


@pytest.mark.parametrize(
    "name", ["user.a", "user.MixedCase", "user.dots.and-dashes_0", "user.grüße", "user." + "n" * 250]
)
def test_an_attribute_is_set_read_listed_and_removed(path: Path, name: str) -> None:
    os.setxattr(path, name, b"value")
    assert os.getxattr(path, name) == b"value"
    assert os.listxattr(path) == [name]
    os.removexattr(path, name)
    assert os.listxattr(path) == []
    with refused(errno.ENODATA):
        os.getxattr(path, name)


@pytest.mark.parametrize(
    "value", [b"", b" ", b"\0\xff\n%41", bytes(range(256)), "grüße".encode(), b"v" * 2000]
)
def test_any_bytes_are_a_value(path: Path, value: bytes) -> None:
    os.setxattr(path, "user.name", value)
    assert os.getxattr(path, "user.name") == value


def test_creating_needs_the_name_free_and_replacing_needs_it_taken(path: Path) -> None:
    with refused(errno.ENODATA):
        os.setxattr(path, "user.name", b"new", os.XATTR_REPLACE)
    os.setxattr(path, "user.name", b"value", os.XATTR_CREATE)
    with refused(errno.EEXIST):
        os.setxattr(path, "user.name", b"new", os.XATTR_CREATE)
    assert os.getxattr(path, "user.name") == b"value"
    os.setxattr(path, "user.name", b"new", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.name") == b"new"


def test_names_that_differ_in_case_are_different(path: Path) -> None:
    os.setxattr(path, "user.name", b"one")
    os.setxattr(path, "user.Name", b"two")
    assert (os.getxattr(path, "user.name"), os.getxattr(path, "user.Name")) == (b"one", b"two")


def test_an_attribute_that_is_not_set_is_enodata(path: Path) -> None:
    with changes_times(path), refused(errno.ENODATA):
        os.removexattr(path, "user.name")


def test_more_than_a_blob_keeps_is_enospc_and_changes_nothing(path: Path) -> None:
    os.setxattr(path, "user.small", b"value")
    with changes_times(path), refused(errno.ENOSPC):
        os.setxattr(path, "user.large", b"v" * 8200)
    assert os.listxattr(path) == ["user.small"]


@pytest.mark.parametrize("name", ["trusted.name", "system.name"])
def test_only_user_attributes_are_kept(path: Path, name: str) -> None:
    with refused(errno.EOPNOTSUPP):
        os.setxattr(path, name, b"value")


def test_only_ctime_changes(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    with changes_times(path, "ctime"):
        os.setxattr(path, "user.name", b"value")
    with changes_times(path, "ctime"):
        os.removexattr(path, "user.name")


def test_attributes_stay_when_the_file_is_changed_or_renamed(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    os.setxattr(path, "user.name", b"value")
    path.chmod(0o600)
    os.utime(path, ns=(1, 1))
    path.write_bytes(b"changed")
    path.rename(path.with_name("new"))
    assert os.getxattr(path.with_name("new"), "user.name") == b"value"


def test_attributes_are_there_after_a_remount(shared_mounts: Mounts, path: Path) -> None:
    os.setxattr(path, "user.name", b"\0value")
    again = shared_mounts()
    assert os.getxattr(again.path / path.parent.name / "path", "user.name") == b"\0value"
    shared_mounts.unmount(again)


def test_they_need_the_permissions_of_the_file(directory: Path) -> None:
    path = directory / "file"
    path.touch(mode=0o600)
    os.setxattr(path, "user.name", b"value")
    with as_user(BOB):
        with refused(errno.EACCES):
            os.getxattr(path, "user.name")
        with refused(errno.EACCES):
            os.setxattr(path, "user.name", b"new")
    assert os.getxattr(path, "user.name") == b"value"


def test_links_and_fifos_have_none(directory: Path) -> None:
    (directory / "link").symlink_to("nowhere")
    os.mkfifo(directory / "fifo")
    for name in ("link", "fifo"):
        with refused(errno.EPERM):
            os.setxattr(directory / name, "user.name", b"value", follow_symlinks=False)


def test_facts_of_the_blob_can_be_read_but_are_not_listed_and_not_changed(
    azurite: Azurite, shared_container: str, directory: Path
) -> None:
    path = directory / "page.html"
    path.write_bytes(b"content")
    with azurite.client() as client:
        blob = client.get_blob_client(shared_container, f"{directory.name}/page.html").get_blob_properties()
    assert os.getxattr(path, "user.blobfs.etag").decode() == blob.etag.strip('"')
    assert os.getxattr(path, "user.blobfs.md5").decode() == blob.content_settings.content_md5.hex()
    assert os.getxattr(path, "user.blobfs.content_type") == b"text/html"
    assert os.getxattr(path, "user.blobfs.tier").decode() == blob.blob_tier
    assert os.listxattr(path) == []
    with refused(errno.EPERM):
        os.setxattr(path, "user.blobfs.etag", b"value")
    with refused(errno.EPERM):
        os.removexattr(path, "user.blobfs.etag")
