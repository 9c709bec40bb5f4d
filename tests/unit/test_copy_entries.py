"""One entry that is copied to a container: from here, or from another container."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import DEFAULTS, MemoryStore, machine

from blobfs.blocks import MiB
from blobfs.copying.entries import Work, entry_of_blob, entry_of_file
from blobfs.copying.interruption import Interruption
from blobfs.copying.meter import Meter
from blobfs.copying.relocating import Relocator
from blobfs.copying.uploading import Style, Uploader
from blobfs.errors import AlreadyExists, Changed
from blobfs.store import ContentHeaders

STYLE = Style(preserves=True, uid=1, gid=2, umask=0o022, headers_for=lambda _: ContentHeaders())


def metered(watch: Callable[[int], None] = lambda _: None) -> Meter:
    return Meter(Interruption(), limit_bytes_per_second=0, watch=watch)


@contextmanager
def uploader_to(store: MemoryStore, meter: Meter) -> Iterator[Uploader]:
    """Give what uploads, in blocks of 1 MiB."""
    with machine(store, block_bytes=MiB) as parts:
        yield Uploader(
            store,
            parts.pool,
            meter,
            STYLE,
            make_writer=parts.writer,
            block_bytes=MiB,
            largest_block_bytes=4 * MiB,
        )


def test_no_more_is_sent_of_a_file_that_grows_without_end_than_shows_that_it_does(tmp_path: Path) -> None:
    store, file = MemoryStore(), tmp_path / "log"
    file.write_bytes(bytes(3 * MiB))
    work = Work(entry_of_file("", file.stat()), str(file), "log")
    moved: list[int] = []

    def grow(moved_bytes: int) -> None:
        moved.append(moved_bytes)
        if len(moved) < 32:
            with file.open("ab") as log:
                log.write(bytes(MiB))

    with (
        uploader_to(store, metered(grow)) as uploader,
        pytest.raises(Changed, match="written while it was being copied"),
    ):
        uploader.copy(work)
    assert sum(moved) <= 4 * MiB
    assert store.bodies == {}


@pytest.mark.parametrize(
    ("name", "metadata"), [("t/d/", {}), ("t/d", {"hdi_isfolder": "true"}), ("t/d/", {"note": "kept"})]
)
def test_a_directory_stays_one_in_another_container(name: str, metadata: dict[str, str]) -> None:
    store = MemoryStore()
    source = entry_of_blob("d", store.put(name, b"", metadata), DEFAULTS)
    Relocator(store.copy, metered()).copy(Work(source, name, "copy/d"))
    copy = entry_of_blob("d", store.head("copy/d"), DEFAULTS)
    assert copy.attributes == source.attributes
    assert copy.blob is not None
    assert metadata.items() <= copy.blob.metadata.items()


def test_a_directory_that_two_blobs_mark_is_copied_once() -> None:
    store = MemoryStore()
    relocator = Relocator(store.copy, metered())
    for name, metadata in (("t/d", {"hdi_isfolder": "true", "note": "kept"}), ("t/d/", {})):
        source = entry_of_blob("d", store.put(name, b"", metadata), DEFAULTS)
        relocator.copy(Work(source, name, "copy/d"))
    assert store.head("copy/d").metadata["note"] == "kept"
    file = entry_of_blob("d", store.put("file", b"text"), DEFAULTS)
    with pytest.raises(AlreadyExists):
        relocator.copy(Work(file, "file", "copy/d"))


def test_the_metadata_of_a_file_goes_as_it_is_to_another_container() -> None:
    store = MemoryStore()
    source = entry_of_blob("", store.put("file", b"text", {"mtime": "1.5"}), DEFAULTS)
    Relocator(store.copy, metered()).copy(Work(source, "file", "copy"))
    assert store.head("copy").metadata == {"mtime": "1.5"}


def test_a_directory_is_uploaded_beside_the_marker_with_a_slash_that_stands_there(tmp_path: Path) -> None:
    store, source = MemoryStore(), entry_of_file("d", tmp_path.stat())
    marker = store.put("t/d/", b"")
    with uploader_to(store, metered()) as uploader:
        for found in marker, None:  # and then over its own
            there = entry_of_blob("d", found or store.head("t/d"), DEFAULTS)
            uploader.copy(Work(source, str(tmp_path), "t/d", there))
    assert list(store.bodies) == ["t/d", "t/d/"]
    assert entry_of_blob("d", store.head("t/d"), DEFAULTS).attributes.mode == source.attributes.mode
