"""What programs that walk through a tree ask of the service, and what they see."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounts import Mounts
from responder.control import Responder
from responder.faults import Rule
from responder.recipes import Recipe

BLOBS, DIRECTORIES = 1000, 200
PATIENCE = ["--attr-timeout", "10"]  # on a busy machine a walk takes longer than a second

walkers = pytest.mark.parametrize("walker", [["find"], ["du", "-s"], ["ls", "-lR"]], ids=" ".join)


@pytest.fixture(params=["libfuse3", "libfuse2"])
def tree(responder: Responder, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A mount of 1,000 blobs in 200 directories."""
    container = uuid.uuid4().hex
    responder.create_container(container)
    responder.make_blobs(container, Recipe("d{directory}/f{index}", BLOBS, DIRECTORIES, size_bytes=1))
    with Mounts(responder, container, request.param) as mounts:
        yield mounts(*PATIENCE).path


def walked(*command: str | Path) -> str:
    """Return what a program prints on its way through a tree."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@walkers
def test_walk_takes_a_few_requests_for_all_directories(
    tree: Path, responder: Responder, walker: list[str]
) -> None:
    before = sum(responder.counters.requests.values())
    walked(*walker, tree)
    assert sum(responder.counters.requests.values()) - before <= 10


def test_walk_finds_every_file(tree: Path) -> None:
    found = walked("find", tree, "-type", "f", "-printf", "%P %s\n").splitlines()
    expected = (f"d{index * DIRECTORIES // BLOBS}/f{index} 1" for index in range(BLOBS))
    assert sorted(found) == sorted(expected)


def test_walk_sees_what_was_changed_through_the_mount_a_moment_ago(tree: Path) -> None:
    walked("find", tree)
    (tree / "d150" / "new").write_bytes(b"")
    (tree / "d151" / "f755").unlink()
    found = walked("find", tree, "-printf", "%P\n").splitlines()
    assert "d150/new" in found
    assert "d151/f755" not in found


def test_rsync_of_many_directories_asks_for_few_names_singly(responder: Responder, tmp_path: Path) -> None:
    """It makes all directories and looks for all files, before another process of it makes the first one."""
    directories, files = 40, 200
    for index in range(files):
        path = tmp_path / f"tree/d{index * directories // files}/f{index}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text")
    container = uuid.uuid4().hex
    responder.create_container(container)
    with Mounts(responder, container, "libfuse3") as mounts:
        mount = mounts()
        before = responder.counters.requests["LIST"]
        responder.order(Rule(latency_seconds=0.02))  # so that looking takes longer than --attr-timeout
        subprocess.run(["rsync", "-a", tmp_path / "tree", mount.path], check=True)
        responder.order()
        # About one for each directory and each of the two processes; with one for each name it was 250.
        assert responder.counters.requests["LIST"] - before < 150
        found = walked("find", mount.path / "tree", "-type", "f").splitlines()
        assert len(found) == files
