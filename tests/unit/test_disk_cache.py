import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import ManualTransfers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blobfs.blocks import KiB
from blobfs.content.disk_cache import SUBDIRECTORY, DiskCache, place_in
from blobfs.content.memory import BufferPool
from blobfs.content.piece_file import TornPiece, read_piece, write_piece
from blobfs.errors import InvalidArgument
from blobfs.store import BlobVersion

KEY = b"0123456789abcdef"
BODY = os.urandom(200_000)
SLICE = 64 * KiB
VERSION = BlobVersion("dir/x", "0x1")


@pytest.fixture
def transfers() -> Iterator[ManualTransfers]:
    transfers = ManualTransfers(reads=1, writes=1, inline=True)
    transfers.start()
    yield transfers
    transfers.close()


def cache_of(directory: Path, transfers: ManualTransfers, capacity_bytes: int = 1 << 30) -> DiskCache:
    return DiskCache(directory, "a/c", transfers, capacity_bytes=capacity_bytes, waiting_pieces=1)


def keep(cache: DiskCache, version: BlobVersion, body: bytes = BODY, start: int = 0) -> None:
    buffer = BufferPool(1 << 20).take(len(body))
    buffer.view[: len(body)] = body
    cache.keep(version, start, buffer, len(body))


def read(
    cache: DiskCache, version: BlobVersion, start: int, length: int, unit_start: int = 0
) -> bytes | None:
    target = bytearray(length)
    return bytes(target) if cache.read(version, unit_start, start, memoryview(target)) else None


def pieces(directory: Path) -> list[Path]:
    return [path for path in (directory / SUBDIRECTORY).rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("piece") / "piece"
    with path.open("wb") as file:
        write_piece(file, KEY, 1000, memoryview(BODY))
    return path.read_bytes()


def read_whole(path: Path) -> bytes:
    target = bytearray(len(BODY))
    file = os.open(path, os.O_RDONLY)
    try:
        assert read_piece(file, KEY, 1000, 1000, memoryview(target))
    finally:
        os.close(file)
    return bytes(target)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_torn_or_damaged_piece_never_gives_other_bytes(
    piece: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    damaged = bytearray(piece)
    for position in data.draw(st.lists(st.integers(0, len(piece) - 1) | st.integers(0, 100), max_size=3)):
        damaged[position] ^= data.draw(st.integers(1, 255))
    del damaged[data.draw(st.integers(0, len(piece)) | st.just(len(piece))) :]
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    try:
        found = read_whole(path)
    except TornPiece:
        assert damaged != piece
    else:
        assert found == BODY


def test_part_of_a_piece_is_read_alone(tmp_path: Path, transfers: ManualTransfers) -> None:
    cache = cache_of(tmp_path, transfers)
    keep(cache, VERSION)
    assert read(cache, VERSION, 0, len(BODY)) == BODY
    assert read(cache, VERSION, SLICE, SLICE) == BODY[SLICE : 2 * SLICE]
    assert read(cache, VERSION, 3 * SLICE, len(BODY) - 3 * SLICE) == BODY[3 * SLICE :]
    assert read(cache, VERSION, SLICE, 100) is None  # no checksum is of just that
    assert read(cache, VERSION, SLICE, len(BODY)) is None
    assert read(cache, BlobVersion("dir/x", "0x2"), 0, len(BODY)) is None


def test_piece_that_starts_inside_a_unit_is_found(tmp_path: Path, transfers: ManualTransfers) -> None:
    cache = cache_of(tmp_path, transfers)
    keep(cache, VERSION, BODY[:SLICE], start=5 * SLICE)
    assert read(cache, VERSION, 5 * SLICE, SLICE) == BODY[:SLICE]
    assert cache.holds(VERSION, 5 * SLICE)
    assert not cache.holds(VERSION, 0)


def test_containers_do_not_meet(tmp_path: Path, transfers: ManualTransfers) -> None:
    keep(cache_of(tmp_path, transfers), VERSION)
    other = DiskCache(tmp_path, "a/d", transfers, capacity_bytes=1 << 30, waiting_pieces=1)
    assert read(other, VERSION, 0, len(BODY)) is None


def test_torn_piece_is_removed_and_named(
    tmp_path: Path, transfers: ManualTransfers, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of(tmp_path, transfers)
    keep(cache, VERSION)
    (path,) = pieces(tmp_path)
    os.truncate(path, 100_000)
    assert read(cache, VERSION, 0, len(BODY)) is None
    assert str(path) in caplog.text
    assert pieces(tmp_path) == []


def test_pieces_used_least_recently_go_first(tmp_path: Path, transfers: ManualTransfers) -> None:
    cache = cache_of(tmp_path, transfers, capacity_bytes=16 * len(BODY))
    versions = [BlobVersion("x", str(number)) for number in range(40)]
    for age, version in enumerate(versions[:8]):
        keep(cache, version)
        for path in pieces(tmp_path):
            if not path.stat().st_mtime_ns < 10**12:
                os.utime(path, ns=(age, age))
    assert read(cache, versions[0], 0, len(BODY)) == BODY
    for version in versions[8:]:
        keep(cache, version)
        read(cache, versions[0], 0, len(BODY))
        assert sum(path.stat().st_size for path in pieces(tmp_path)) <= 16 * len(BODY)
    assert read(cache, versions[0], 0, len(BODY)) == BODY
    assert read(cache, versions[1], 0, len(BODY)) is None
    assert read(cache, versions[-1], 0, len(BODY)) == BODY


def test_nothing_is_written_while_the_disk_is_behind(tmp_path: Path) -> None:
    transfers = ManualTransfers(reads=1, writes=1, inline=False)
    cache = cache_of(tmp_path, transfers)
    written: list[object] = []
    transfers.submit_disk = lambda *task: written.append(task)  # type: ignore[assignment, method-assign]
    for number in range(3):
        keep(cache, BlobVersion("x", str(number)))
    assert len(written) == 1


@pytest.mark.parametrize(
    ("number", "goes"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EMFILE, False)]
)
def test_only_a_full_disk_makes_the_cache_smaller(
    tmp_path: Path,
    transfers: ManualTransfers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    goes: bool,
) -> None:
    cache = cache_of(tmp_path, transfers)
    keep(cache, VERSION)

    def refused(**_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    for start in range(1, 5):
        keep(cache, VERSION, start=start * len(BODY))
    assert caplog.text.count(os.strerror(number)) == 1
    assert len(pieces(tmp_path)) == (0 if goes else 1)


def test_directory_is_made_private(tmp_path: Path) -> None:
    place_in(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    for mode, allowed in ((0o770, 750), (0o707, 705)):
        tmp_path.chmod(mode)
        with pytest.raises(InvalidArgument, match=f"chmod {allowed}"):
            place_in(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="is no directory"):
        place_in(tmp_path / "file")
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(InvalidArgument, match="belongs to another user, 12345"):
        place_in(tmp_path)
