"""The errors of path resolution, which are the same for every call that takes a path."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from unix import BOB, as_user, refused

Call = Callable[[Path], object]

ON_EXISTING: dict[str, Call] = {
    "chmod": lambda path: os.chmod(path, 0o600),
    "chown": lambda path: os.chown(path, -1, -1),
    "lstat": os.lstat,
    "open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "readlink": os.readlink,
    "removexattr": lambda path: os.removexattr(path, "user.name"),
    "rename": lambda path: os.rename(path, path.with_name("target")),
    "rmdir": os.rmdir,
    "setxattr": lambda path: os.setxattr(path, "user.name", b"value"),
    "truncate": lambda path: os.truncate(path, 0),
    "unlink": os.unlink,
    "utimensat": lambda path: os.utime(path, ns=(1, 1)),
}
ON_NEW: dict[str, Call] = {
    "create": lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)),
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": os.mknod,
    "symlink": lambda path: os.symlink("target", path),
}
NOT_FOLLOWING = ("lstat", "readlink", "rename", "rmdir", "unlink")

any_call = pytest.mark.parametrize("call", [*ON_EXISTING, *ON_NEW])


def call_on(name: str, path: Path) -> None:
    {**ON_EXISTING, **ON_NEW}[name](path)


@pytest.mark.parametrize("call", ON_EXISTING)
def test_a_name_that_does_not_exist_is_enoent(directory: Path, call: str) -> None:
    with refused(errno.ENOENT):
        call_on(call, directory / "missing")


@any_call
def test_a_missing_directory_on_the_way_is_enoent(directory: Path, call: str) -> None:
    with refused(errno.ENOENT):
        call_on(call, directory / "missing" / "name")
    assert os.listdir(directory) == []


@any_call
def test_a_file_on_the_way_is_enotdir(directory: Path, call: str) -> None:
    (directory / "file").touch()
    with refused(errno.ENOTDIR):
        call_on(call, directory / "file" / "name")


@any_call
def test_a_loop_of_links_on_the_way_is_eloop(directory: Path, call: str) -> None:
    (directory / "one").symlink_to("other")
    (directory / "other").symlink_to("one")
    with refused(errno.ELOOP):
        call_on(call, directory / "one" / "name")


@pytest.mark.parametrize("call", [call for call in ON_EXISTING if call not in NOT_FOLLOWING])
def test_a_link_to_itself_is_eloop(directory: Path, call: str) -> None:
    (directory / "link").symlink_to("link")
    with refused(errno.ELOOP):
        call_on(call, directory / "link")


@any_call
def test_a_component_of_256_bytes_is_enametoolong(directory: Path, call: str) -> None:
    with refused(errno.ENAMETOOLONG):
        call_on(call, directory / ("n" * 256))
    with refused(errno.ENAMETOOLONG):
        call_on(call, directory / ("ü" * 128))
    with refused(errno.ENAMETOOLONG):
        call_on(call, directory / ("n" * 256) / "name")
    assert os.listdir(directory) == []


@pytest.mark.parametrize("call", ON_NEW)
@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127 + "u"], ids=["ascii", "utf-8"])
def test_a_component_of_255_bytes_is_a_name(directory: Path, call: str, name: str) -> None:
    call_on(call, directory / name)
    assert os.listdir(directory) == [name]


@any_call
def test_a_directory_that_may_not_be_searched_is_eacces(directory: Path, call: str) -> None:
    (directory / "name").touch()
    directory.chmod(0o666)
    with as_user(BOB), refused(errno.EACCES):
        call_on(call, directory / "name")


@pytest.mark.parametrize("call", [*ON_NEW, "rename", "unlink"])
def test_a_directory_that_may_not_be_written_is_eacces_and_stays_as_it_was(
    directory: Path, call: str
) -> None:
    name = "old" if call in ("rename", "unlink") else "new"
    (directory / "old").touch()
    before = os.stat(directory)
    with as_user(BOB), refused(errno.EACCES):
        call_on(call, directory / name)
    assert os.listdir(directory) == ["old"]
    after = os.stat(directory)
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


@pytest.mark.parametrize("call", [call for call in ON_NEW if call != "create"])
@pytest.mark.parametrize("taken", ["file", "directory", "dangling link"])
def test_a_name_that_is_taken_is_eexist(directory: Path, call: str, taken: str) -> None:
    path = directory / "taken"
    {"file": Path.touch, "directory": Path.mkdir, "dangling link": lambda path: path.symlink_to("nowhere")}[
        taken
    ](path)
    before = os.lstat(path)
    with refused(errno.EEXIST):
        call_on(call, path)
    assert os.lstat(path) == before
