"""Modes, owners and times of directories with write-back: what they cost, and who sees them when."""

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounts import Mounts, blobfs, on_both_bindings
from responder.control import Responder
from responder.faults import Rule
from trees import make_tree, snapshot
from unix import refused
from waiting import wait_until

KIND = "PUT metadata"
REFUSED = Rule(kind=KIND, status=403)
ATTRIBUTES = "the mode, owner or times of /d are not stored yet, but kept|of /d are stored after all"
DIRECTORIES = 7  # of the tree, its root included


@pytest.fixture
def mounts(service: Responder, box: str, binding: str) -> Iterator[Mounts]:
    with Mounts(service, box, binding) as mounts:
        yield mounts
        service.order()


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    return ["--writeback", "--spool-dir", str(tmp_path / "spool")]


@on_both_bindings
@pytest.mark.parametrize(
    "copy",
    [
        "cp -a $SOURCE $COPY",
        "rsync -a $SOURCE/ $COPY",
        "mkdir $COPY; tar -C $SOURCE --format=posix -c . | tar -C $COPY -xp",
    ],
)
def test_a_copied_directory_costs_at_most_two_requests_and_comes_back_as_it_was(
    service: Responder, mounts: Mounts, options: list[str], tmp_path: Path, copy: str
) -> None:
    source = make_tree(tmp_path / "source")
    mount = mounts(*options)
    service.reset_counters()
    environment = {**os.environ, "SOURCE": str(source), "COPY": str(mount.path / "copy")}
    subprocess.run(["bash", "-ec", copy], env=environment, check=True)
    assert snapshot(mount.path / "copy") == snapshot(source)
    assert blobfs("sync", mount.path).returncode == 0
    assert snapshot(mounts().path / "copy") == snapshot(source)
    special = sum(not (path.is_file() or path.is_dir()) or path.is_symlink() for path in source.rglob("*"))
    assert service.counters.requests[KIND] <= DIRECTORIES + 4 * special


def test_the_service_has_a_new_mode_without_being_asked_for(
    service: Responder, mounts: Mounts, options: list[str]
) -> None:
    mount = mounts(*options)
    (mount.path / "d").mkdir(0o755)
    (mount.path / "d").chmod(0o700)
    assert stat.S_IMODE((mount.path / "d").stat().st_mode) == 0o700
    wait_until(lambda: service.counters.requests.get(KIND, 0) == 1)
    other = mounts()
    assert stat.S_IMODE((other.path / "d").stat().st_mode) == 0o700


@on_both_bindings
def test_barriers_name_a_directory_whose_mode_is_refused_and_succeed_afterwards(
    service: Responder, mounts: Mounts, options: list[str]
) -> None:
    mounts.expect_log(ATTRIBUTES)
    mounts.tolerate_log("403")
    mount = mounts(*options)
    (mount.path / "d").mkdir(0o755)
    service.order(REFUSED)
    (mount.path / "d").chmod(0o700)
    directory = os.open(mount.path / "d", os.O_RDONLY | os.O_DIRECTORY)
    with refused(errno.EACCES):
        os.fsync(directory)
    for command in ("sync", "umount"):
        ended = blobfs(command, mount.path)
        assert ended.returncode == 1
        assert "\n/d: " in ended.stderr
    service.order()
    os.fsync(directory)
    os.close(directory)
    assert stat.S_IMODE((mounts().path / "d").stat().st_mode) == 0o700


def test_a_crash_forgets_a_mode_that_was_not_sent_and_keeps_the_directory(
    service: Responder, mounts: Mounts, options: list[str]
) -> None:
    mount = mounts(*options)
    (mount.path / "d").mkdir(0o755)
    (mount.path / "d").chmod(0o700)
    (mount.path / "d" / "x").write_bytes(b"bytes")
    mount.kill()
    mounts.unmount(mount)
    assert service.counters.requests.get(KIND, 0) == 0
    mount = mounts(*options)
    assert stat.S_IMODE((mount.path / "d").stat().st_mode) == 0o755
    assert (mount.path / "d" / "x").read_bytes() == b"bytes"
