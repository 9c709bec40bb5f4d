"""What many unit tests start from. A module that needs it otherwise has its own."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FailingStore, Machine, ManualClock, MemoryStore, filesystem_of, machine
from syscalls import BLOCK, Mount

from blobfs.filesystem.commits import WriteBack
from blobfs.filesystem.filesystem import Filesystem
from blobfs.spool.directory import Spool
from blobfs.store import BlobStore


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(memory: MemoryStore) -> FailingStore:
    return FailingStore(memory)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def parts(store: FailingStore) -> Iterator[Machine]:
    with machine(store, block_bytes=BLOCK) as parts:
        yield parts


@pytest.fixture
def mount(memory: MemoryStore, clock: ManualClock) -> Iterator[Mount]:
    """Call it for one more mount of the same container."""
    with ExitStack() as stack:

        def mount(store: BlobStore = memory, **options: object) -> Filesystem:
            parts = stack.enter_context(machine(store, block_bytes=BLOCK, inline=True))
            return filesystem_of(parts, clock, **options)  # type: ignore[arg-type]

        yield mount


@pytest.fixture
def behind(memory: MemoryStore, clock: ManualClock, tmp_path: Path) -> Iterator[Filesystem]:
    """A mount that writes back, with room for so little that what is closed is due when `later` is called."""
    spool = Spool(tmp_path / "spool", "account", "container", "")
    with closing(spool), machine(memory, block_bytes=BLOCK, inline=True) as parts:
        limits = WriteBack(files=1, buffered_bytes=1 << 20)
        yield filesystem_of(replace(parts, make_journal=spool.journal), clock, write_back=limits)


@pytest.fixture
def fs(mount: Mount) -> Filesystem:
    return mount()
