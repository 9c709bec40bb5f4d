"""Files that a copying program has not come to yet: asked for ahead, for it alone."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounts import Mounts
from responder.control import Responder
from responder.recipes import Recipe
from waiting import wait_until

FILES, SIZE_BYTES = 60, 60_000
LARGER_FILES, LARGER_BYTES = 12, 1 << 20


@pytest.fixture
def box(responder: Responder) -> str:
    container = uuid.uuid4().hex
    responder.create_container(container)
    responder.make_blobs(container, Recipe("d/f{index:02}", FILES, size_bytes=SIZE_BYTES))
    return container


@pytest.fixture(params=["libfuse3", "libfuse2"])
def tree(responder: Responder, box: str, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A mounted directory of many small files."""
    with Mounts(responder, box, request.param) as mounts:
        yield mounts().path / "d"


@pytest.fixture
def larger(responder: Responder) -> Iterator[Path]:
    """A mounted directory of files that open() does not bring whole."""
    container = uuid.uuid4().hex
    responder.create_container(container)
    responder.make_blobs(container, Recipe("d/f{index:02}", LARGER_FILES, size_bytes=LARGER_BYTES))
    with Mounts(responder, container, "libfuse3") as mounts:
        yield mounts().path / "d"


def fetched(responder: Responder) -> int:
    return responder.counters.requests.get("GET blob", 0)


def originals(responder: Responder, box: str) -> dict[str, bytes]:
    with responder.client() as client, client.get_container_client(box) as container:
        return {f"f{i:02}": container.download_blob(f"d/f{i:02}").readall() for i in range(FILES)}


@pytest.mark.parametrize(
    "command", ["cp -r {} copy", "rsync -a {}/ copy", "mkdir copy; tar -C {} -c . | tar -xC copy"]
)
def test_copy_fetches_each_file_once(
    tree: Path, responder: Responder, box: str, tmp_path: Path, command: str
) -> None:
    before = fetched(responder)
    subprocess.run(command.format(tree), shell=True, check=True, cwd=tmp_path)
    assert fetched(responder) - before == FILES
    copied = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert copied == originals(responder, box)


@pytest.mark.parametrize(
    "command", ["cp -r {} copy", "rsync -a {}/ copy", "mkdir copy; tar -C {} -c . | tar -xC copy"]
)
def test_copy_of_what_is_at_hand_lists_and_fetches_nothing(
    tree: Path, responder: Responder, box: str, tmp_path: Path, command: str
) -> None:
    for path in sorted(tree.iterdir()):
        path.read_bytes()
    with responder.client() as client, client.get_container_client(box) as container:
        container.upload_blob("d/f30", b"new", overwrite=True)
    responder.reset_counters()
    subprocess.run(command.format(tree), shell=True, check=True, cwd=tmp_path)
    requests = responder.counters.requests
    assert requests["LIST"] <= 5
    assert requests["GET blob"] <= 4
    copied = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert copied == originals(responder, box)
    assert copied["f30"] == b"new"


@pytest.mark.parametrize("command", ["cp -r {} copy", "rsync -a {}/ copy"])
def test_copy_sees_what_another_node_closed_before_it_began(
    responder: Responder, box: str, tmp_path: Path, command: str
) -> None:
    with Mounts(responder, box, "libfuse3") as mounts:
        here, there = mounts().path / "d", mounts().path / "d"
        for number in range(2 * FILES):
            changed = f"f{number * 7 % FILES:02}"
            (there / changed).write_text(f"{number}")
            subprocess.run(f"rm -rf copy; {command.format(here)}", shell=True, check=True, cwd=tmp_path)
            assert (tmp_path / "copy" / changed).read_text() == f"{number}"
        assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == originals(
            responder, box
        )


def test_copy_that_pauses_has_some_files_fetched_ahead_and_not_all(tree: Path, responder: Responder) -> None:
    before = fetched(responder)
    with subprocess.Popen(["tar", "-C", tree, "-c", "."], stdout=subprocess.PIPE) as archive:
        assert archive.stdout
        archive.stdout.read(3 * SIZE_BYTES)  # and then it waits for us
        wait_until(lambda: fetched(responder) - before > 16)
        assert fetched(responder) - before < 30
        archive.stdout.read()
    assert fetched(responder) - before == FILES


def test_program_that_may_be_told_of_a_change_sees_it_at_once(
    tree: Path, responder: Responder, box: str
) -> None:
    with responder.client() as client, client.get_container_client(box) as container:
        for number, path in enumerate(sorted(tree.iterdir())):
            container.upload_blob(f"d/{path.name}", f"{number}".encode(), overwrite=True)
            assert path.read_bytes() == f"{number}".encode()


def test_copy_has_all_of_the_next_files_fetched_ahead(
    larger: Path, responder: Responder, tmp_path: Path
) -> None:
    before = responder.counters
    subprocess.run(["cp", "-r", larger, tmp_path], check=True)
    after = responder.counters
    assert after.requests["GET blob"] - before.requests.get("GET blob", 0) <= LARGER_FILES + 3
    moved_bytes = after.bytes_out - before.bytes_out
    assert LARGER_FILES * LARGER_BYTES <= moved_bytes < (LARGER_FILES + 1) * LARGER_BYTES


@pytest.mark.parametrize(("size_bytes", "come_whole"), [(3 << 20, True), (5 << 20, False)])
def test_files_up_to_3_mib_come_whole_ahead_of_a_copy(
    responder: Responder, tmp_path: Path, size_bytes: int, come_whole: bool
) -> None:
    container = uuid.uuid4().hex
    responder.create_container(container)
    responder.make_blobs(container, Recipe("d/f{index:02}", LARGER_FILES, size_bytes=size_bytes))
    with Mounts(responder, container, "libfuse3") as mounts:
        path = mounts("--memory", "512MiB").path / "d"
        before = fetched(responder)
        subprocess.run(["cp", "-r", path, tmp_path], check=True)
        requests = fetched(responder) - before
    assert (requests < 2 * LARGER_FILES) == come_whole


def test_file_of_one_block_takes_two_requests_and_moves_once(larger: Path, responder: Responder) -> None:
    sizes = {path: path.stat().st_size for path in larger.iterdir()}
    before = responder.counters
    for path, size_bytes in sizes.items():
        assert len(path.read_bytes()) == size_bytes
    after = responder.counters
    assert after.requests["GET blob"] - before.requests.get("GET blob", 0) == 2 * LARGER_FILES
    assert after.bytes_out - before.bytes_out == LARGER_FILES * LARGER_BYTES
    assert after.requests.get("GET block list", 0) == before.requests.get("GET block list", 0)


def test_file_that_any_reader_gets_whole_comes_with_its_open(responder: Responder, box: str) -> None:
    responder.make_blobs(box, Recipe("whole", size_bytes=200_000))
    with Mounts(responder, box, "libfuse3") as mounts:
        path = mounts().path / "whole"
        assert path.stat().st_size == 200_000
        before = fetched(responder)
        assert len(path.read_bytes()) == 200_000
        assert fetched(responder) - before == 1


@pytest.mark.parametrize(("look", "asked_beside"), [(Path.open, 2), (Path.stat, 0)])
def test_only_open_has_a_file_asked_for_while_names_are_looked_up(
    tree: Path, responder: Responder, look: Callable[[Path], object], asked_beside: int
) -> None:
    before = fetched(responder)
    with pytest.raises(FileNotFoundError):
        look(tree / "missing")
    # For the directory and the name; nobody waits for what was asked beside.
    wait_until(lambda: fetched(responder) - before == asked_beside)


def test_first_bytes_of_an_unknown_file_are_asked_for_once(tree: Path, responder: Responder) -> None:
    before = fetched(responder)
    assert len((tree / "f07").read_bytes()) == SIZE_BYTES
    assert fetched(responder) - before == 2  # one of them for the directory
