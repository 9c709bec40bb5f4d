"""A mount that is told to believe what it knows: what it does not ask, and what it risks by that."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from mounts import Mount, Mounts, blobfs, on_both_bindings, shell
from responder.control import Responder
from trees import make_tree, snapshot
from unix import refused
from waiting import wait_until

ALONE = ["--no-close-to-open", "--attr-timeout", "600"]
SMALL = b"small" * 1000
LARGE = os.urandom(3 << 20)


@pytest.fixture
def mounts(service: Responder, box: str, binding: str) -> Iterator[Mounts]:
    with Mounts(service, box, binding) as mounts:
        yield mounts


@pytest.fixture
def mount(mounts: Mounts) -> Mount:
    return mounts(*ALONE)


@pytest.fixture(params=["sent at close", "sent behind"])
def path(mounts: Mounts, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    behind = ["--writeback", "--spool-dir", tmp_path / "spool"] if request.param == "sent behind" else []
    return mounts(*ALONE, *behind).path


def is_quiet(path: Path) -> bool:
    return os.getxattr(path, "user.blobfs.status.requests_in_flight") == b"0"


@on_both_bindings
def test_what_is_known_is_not_asked_for_again(mount: Mount, service: Responder) -> None:
    (mount.path / "d").mkdir()
    for number in range(20):
        (mount.path / f"d/{number}").write_bytes(SMALL)
    service.reset_counters()
    for number in range(20):
        assert (mount.path / f"d/{number}").read_bytes() == SMALL
        assert not (mount.path / f"d/{number}.absent").exists()
    assert len(list((mount.path / "d").iterdir())) == 20
    assert service.counters.requests == {}


@on_both_bindings
def test_what_is_not_known_is_asked_for_once(
    mount: Mount, service: Responder, blobs: ContainerClient
) -> None:
    blobs.upload_blob("d/a", SMALL)
    blobs.upload_blob("d/b", LARGE)
    for _ in range(2):
        assert (mount.path / "d/a").read_bytes() == SMALL
        assert (mount.path / "d/b").read_bytes() == LARGE
        with refused(errno.ENOENT):
            os.stat(mount.path / "d/c")
        service.reset_counters()
    assert service.counters.requests == {}


@on_both_bindings
def test_copies_in_and_out_are_the_same_and_the_second_comes_from_memory(
    path: Path, service: Responder, tmp_path: Path
) -> None:
    make_tree(tmp_path / "tree")
    subprocess.run(["cp", "-a", tmp_path / "tree", path], check=True)
    assert blobfs("sync", path).returncode == 0
    for name in ("first", "second"):
        wait_until(lambda: is_quiet(path))  # what was fetched ahead of a copy may come after it
        service.reset_counters()
        subprocess.run(["cp", "-a", path / "tree", tmp_path / name], check=True)
        assert snapshot(tmp_path / name) == snapshot(tmp_path / "tree")
    again = subprocess.run(
        ["rsync", "-ai", f"{tmp_path}/tree/", path / "tree/"], check=True, capture_output=True
    )
    assert again.stdout == b""
    assert service.counters.requests == {}


@on_both_bindings
def test_git_finds_its_objects_and_asks_for_nothing_twice(path: Path, service: Responder) -> None:
    script = """
        export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example
        git init -q -b main one
        cd one
        for i in 1 2 3; do seq $i $((i * 2000)) > numbers; git add .; git commit -q -m $i; done
        git checkout -q -b side HEAD~1
        git clone -q --no-hardlinks . ../two
        git checkout -q main
        git gc -q --prune=now
        git fsck --full --strict
        git status --porcelain
        git -C ../two fsck --strict
        git -C ../two log --format=%s
    """
    assert shell(path, script).split() == ["2", "1"]
    look = "export GIT_CONFIG_GLOBAL=/dev/null; cd one; git log -p --all; git fsck; ls -lR .; cat numbers"
    seen = shell(path, look)
    service.reset_counters()
    assert shell(path, look) == seen
    assert service.counters.requests.keys().isdisjoint({"LIST", "GET blob", "HEAD blob"})


@on_both_bindings
def test_another_client_s_change_is_met_late_and_never_as_a_mixture(
    mount: Mount, blobs: ContainerClient
) -> None:
    blobs.upload_blob("file", LARGE)
    os.stat(mount.path / "file")
    newer = LARGE[::-1] + b"more"
    blobs.upload_blob("file", newer, overwrite=True)
    assert os.stat(mount.path / "file").st_size == len(LARGE)
    with refused(errno.ESTALE):
        (mount.path / "file").read_bytes()
    assert (mount.path / "file").read_bytes() == newer  # whoever is refused is not refused again


@on_both_bindings
def test_another_client_s_file_is_not_overwritten(
    mount: Mount, mounts: Mounts, blobs: ContainerClient
) -> None:
    mounts.expect_log(
        "was closed without being committed|is not committed: |ended: not committed: /absent, /known"
    )
    blobs.upload_blob("known", SMALL)
    os.stat(mount.path / "known")
    with refused(errno.ENOENT):
        os.stat(mount.path / "absent")
    for name in ("known", "absent"):
        blobs.upload_blob(name, b"theirs", overwrite=True)
    with refused(errno.EEXIST):
        (mount.path / "absent").write_bytes(b"ours")
    with refused(errno.ESTALE):
        (mount.path / "known").write_bytes(b"ours")
    for name in ("known", "absent"):
        assert blobs.download_blob(name).readall() == b"theirs"
        assert (mount.path / name).read_bytes() == b"theirs"
    mounts.give_up(mount)
