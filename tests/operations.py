"""What programs do with files, as rows of the fault matrix: prepared, done, and compared."""

import errno
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from azure.storage.blob import ContainerClient
from mounts import blobfs, run
from responder.control import Responder
from responder.recipes import Recipe
from trees import contents

BLOCK_BYTES = 64 * 1024
OWN = Recipe(size_bytes=5 * BLOCK_BYTES, block_bytes=BLOCK_BYTES)  # as blobfs itself writes it
NEW = os.urandom(200_000)
EDITS = {1_000: b"a" * 500, 2 * BLOCK_BYTES - 100: b"b" * 200, 5 * BLOCK_BYTES: b"c" * 3_000}
TREE = {"large": os.urandom(150_000), "small": b"small", "below/file": b"file", "below/none": b""}
TEMPORARY = ".results.Ab12Cd"  # like rsync's: still uncommitted a moment after its close

Blobs = Mapping[str, bytes]
Action = Callable[[], object]


class Failed(Exception):
    """A program ended with another exit status than 0. Which one depends on what it met first."""

    def __init__(self, ended: subprocess.CompletedProcess[str]) -> None:
        super().__init__("failed")
        self.said = ended.stderr


@dataclass(frozen=True)
class Place:
    """Where one cell of the matrix works: a directory of its own, in the mount and on local disk."""

    root: Path  # of the mount
    name: str
    local: Path
    service: Responder
    container: ContainerClient

    @property
    def path(self) -> Path:
        """The directory in the mount."""
        return self.root / self.name

    def put(self, blobs: Blobs) -> None:
        """Make files behind the mount's back."""
        for name, body in blobs.items():
            self.container.upload_blob(f"{self.name}/{name}", body)

    def put_own(self) -> bytes:
        """Make the file "own" in blocks of blobfs's own, and return its bytes."""
        recipe = Recipe(f"{self.name}/own", size_bytes=OWN.size_bytes, block_bytes=OWN.block_bytes)
        self.service.make_blobs(self.container.container_name, recipe)
        return self.container.download_blob(recipe.name).readall()

    def blobs(self) -> Blobs:
        """Return the files as another client sees them."""
        names = list(self.container.list_blob_names(name_starts_with=f"{self.name}/"))
        return {
            name.removeprefix(f"{self.name}/"): self.container.download_blob(name).readall() for name in names
        }


@dataclass
class Attempt:
    """An operation that is ready to begin, and what the files are before it and after its success."""

    act: Action
    before: Blobs = field(default_factory=dict)
    after: Blobs = field(default_factory=dict)

    def outcome(self) -> str:
        """Begin. Return "survived", an errno's name, or "failed" of a program that told so."""
        try:
            self.act()
        except Failed as failed:
            return str(failed) if failed.said else "failed without a word"
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return SURVIVED

    def complaint(self, found: Blobs, outcome: str) -> str:
        """Say what is wrong with the files after this outcome; empty if nothing is."""
        if outcome == SURVIVED:
            return "" if found == self.after else f"not what was written: {_sizes(found)}"
        mixed = [name for name, body in found.items() if not self._is_whole(name, body)]
        kept = [body for name, body in self.before.items() if body in self.after.values()]
        lost = any(body not in found.values() for body in kept)
        return f"mixed: {mixed}, lost: {lost}, {_sizes(found)}" if mixed or lost else ""

    def _is_whole(self, name: str, body: bytes) -> bool:
        """A new file may end early: where write(2) has failed, before close(2)."""
        is_begun = name not in self.before and self.after.get(name, b"").startswith(body)
        return is_begun or body in (self.before.get(name), self.after.get(name))


SURVIVED = "survived"


def _sizes(found: Blobs) -> dict[str, int]:
    return {name: len(body) for name, body in found.items()}


def closing(descriptor: int, action: Action) -> None:
    """Act, and have close(2) say what it says also when that has failed."""
    try:
        action()
    finally:
        os.close(descriptor)


def checked(*command: str | Path) -> None:
    """Run a program. Raises Failed."""
    ended = run(*command)
    if ended.returncode:
        raise Failed(ended)


def sequential_write(place: Place) -> Attempt:
    place.put({"here": b""})
    descriptor = os.open(place.path / "new", os.O_CREAT | os.O_WRONLY)
    act = lambda: closing(descriptor, lambda: os.write(descriptor, NEW))  # noqa: E731
    return Attempt(act, {"here": b""}, {"here": b"", "new": NEW})


def random_write(place: Place) -> Attempt:
    before = place.put_own()
    descriptor = os.open(place.path / "own", os.O_WRONLY)
    after = bytearray(before)
    for offset, data in EDITS.items():
        after[offset : offset + len(data)] = data

    def edit() -> None:
        for offset, data in EDITS.items():
            os.pwrite(descriptor, data, offset)

    return Attempt(lambda: closing(descriptor, edit), {"own": before}, {"own": bytes(after)})


def read(place: Place) -> Attempt:
    before = {"own": place.put_own()}

    def act() -> None:
        assert (place.path / "own").read_bytes() == before["own"], "wrong bytes were read"

    return Attempt(act, before, before)


def rename(place: Place) -> Attempt:
    before = {"old": b"moved", "target": b"replaced"}
    place.put(before)
    return Attempt(lambda: (place.path / "old").rename(place.path / "target"), before, {"target": b"moved"})


def remove(place: Place) -> Attempt:
    before = {"gone": b"gone", "here": b"here"}
    place.put(before)
    return Attempt((place.path / "gone").unlink, before, {"here": b"here"})


def change_mode(place: Place) -> Attempt:
    before = {"file": b"file"}
    place.put(before)

    def act() -> None:
        (place.path / "file").chmod(0o640)
        assert (place.path / "file").stat().st_mode & 0o777 == 0o640, "another mode is shown"

    return Attempt(act, before, before)


def make_directory(place: Place) -> Attempt:
    before = {"here": b"here"}
    place.put(before)
    return Attempt((place.path / "made").mkdir, before, {**before, "made": b""})


def listing(place: Place) -> Attempt:
    before = {f"file{number}": b"" for number in range(5)}
    place.put(before)

    def act() -> None:
        assert set(os.listdir(place.path)) == before.keys(), "wrong names were listed"

    return Attempt(act, before, before)


def _local_tree(place: Place) -> Path:
    for name, body in TREE.items():
        path = place.local / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return place.local / "tree"


_COPIED = {"here": b"", "tree": b"", "tree/below": b"", **{f"tree/{name}": TREE[name] for name in TREE}}


def rsync(place: Place) -> Attempt:
    place.put({"here": b""})
    tree = _local_tree(place)
    return Attempt(lambda: checked("rsync", "-a", tree, place.path), {"here": b""}, _COPIED)


def copy_in(place: Place) -> Attempt:
    place.put({"here": b""})
    tree = _local_tree(place)
    return Attempt(lambda: checked("cp", "-r", tree, place.path), {"here": b""}, _COPIED)


def copy_out(place: Place) -> Attempt:
    before = {f"tree/{name}": body for name, body in TREE.items()}
    place.put(before)

    def act() -> None:
        checked("cp", "-r", place.path / "tree", place.local / "copy")
        assert contents(place.local / "copy") == contents(_local_tree(place)), "the copy is another"

    return Attempt(act, before, before)


def close_temporary(place: Place) -> Attempt:
    """Leave a file that an unmount within the next second has to commit."""
    place.put({"here": b""})
    descriptor = os.open(place.path / TEMPORARY, os.O_CREAT | os.O_WRONLY)
    act = lambda: closing(descriptor, lambda: os.write(descriptor, b"results"))  # noqa: E731
    return Attempt(act, {"here": b""}, {"here": b"", TEMPORARY: b"results"})


def unmount(place: Place) -> Attempt:
    closed = close_temporary(place)

    def act() -> None:
        closed.act()
        ended = blobfs("umount", place.root)
        if ended.returncode:
            assert f"{place.name}/{TEMPORARY}: " in ended.stderr, ended.stderr
            raise Failed(ended)

    return replace(closed, act=act)


Operation = Callable[[Place], Attempt]
OPERATIONS: Mapping[str, Operation] = {
    "sequential write": sequential_write,
    "random write": random_write,
    "read": read,
    "rename": rename,
    "remove": remove,
    "chmod": change_mode,
    "mkdir": make_directory,
    "listing": listing,
    "rsync -a": rsync,
    "cp -r in": copy_in,
    "cp -r out": copy_out,
}
UNMOUNT = "umount"
