"""Bytes damaged on their way, under every pattern of reading."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fakes import Machine, MemoryStore, machine
from hypothesis import given
from hypothesis import strategies as st

from blobfs.blocks import digest_of
from blobfs.content.streams import Stream
from blobfs.errors import Damaged
from blobfs.store import ALWAYS, BlobInfo, Properties

BLOCK = 16
BODY = bytes(index * 7 % 256 for index in range(150))

Make = Callable[[str], Machine]


class Line(MemoryStore):
    """A store behind a line that damages the replies whose numbers, from 0, are due."""

    def __init__(self, due: Callable[[int], bool] = lambda _: False) -> None:
        super().__init__()
        self.due = due
        self.relents = False  # what is asked for again after damage then arrives, whatever else is under way
        self.damaged = 0
        self._damaged_starts: set[int] = set()

    def read_range(
        self,
        name: str,
        start: int,
        into: memoryview,
        *,
        if_match: str = "",
        if_none_match: str = "",
        with_md5: bool = False,
    ) -> tuple[int, BlobInfo | None]:
        """Read, and turn the bits of one byte if that is due. Range MD5 would tell."""
        number = self.requests["GET blob"]
        received, info = super().read_range(
            name, start, into, if_match=if_match, if_none_match=if_none_match, with_md5=with_md5
        )
        is_spared = self.relents and start in self._damaged_starts
        self._damaged_starts.discard(start)
        if received and self.due(number) and not is_spared:
            self.damaged += 1
            self._damaged_starts.add(start)
            into[received // 2] ^= 0xFF
            if with_md5:
                raise Damaged(f"{name}: range at {start}: expected MD5 of the service, found another")
        return received, info


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def make(line: Line) -> Iterator[Make]:
    """Fragments of 4 bytes, blocks of 16, and 32 bytes in order make a sequential reader."""
    with ExitStack() as stack:
        yield lambda verify: stack.enter_context(
            machine(line, block_bytes=BLOCK, fragment_bytes=4, sequential_bytes=32, verify=verify)
        )


def test_block_of_which_a_part_is_damaged_once_is_fetched_again(line: Line) -> None:
    options = {"block_bytes": BLOCK, "fragment_bytes": 4, "portion_bytes": 4, "sequential_bytes": 4}
    info = put_blocks(line, [BLOCK] * 9)
    line.due = lambda number: number == 2
    with machine(line, **options) as parts:
        assert read_all(parts, info, step=8) == BODY
        assert damaged_replies(parts) == line.damaged == 1


def damaged_replies(parts: Machine) -> int:
    return parts.fetcher.counts.totals()["damaged"]


def put_blocks(store: MemoryStore, sizes: list[int], *, md5: bytes | None = None) -> BlobInfo:
    """Commit BODY in blocks of ours of these sizes and one for the rest."""
    ids, start = [], 0
    for size in [*sizes, len(BODY)]:
        block = BODY[start : start + size]
        start += size
        if block:
            digest = digest_of(block)
            store.stage_block("x", digest.block_id(), block, digest.md5)
            ids.append(digest.block_id())
    return store.commit_blocks("x", ids, Properties(content_md5=md5), ALWAYS, len(BODY))


def put_foreign(store: MemoryStore, md5: bytes | None) -> BlobInfo:
    """Commit BODY as another program would."""
    block_id = base64.b64encode(b"block-0000").decode()
    store.stage_block("x", block_id, BODY, hashlib.md5(BODY).digest())
    return store.commit_blocks("x", [block_id], Properties(content_md5=md5), ALWAYS, len(BODY))


def read(parts: Machine, info: BlobInfo, offset: int, length: int, stream: Stream) -> bytes:
    target = memoryview(bytearray(length))
    count = parts.reader.read_into(info, offset, target, stream)
    return bytes(target[:count])


def read_all(parts: Machine, info: BlobInfo, step: int = 8) -> bytes:
    stream = Stream()
    return b"".join(read(parts, info, offset, step, stream) for offset in range(0, info.size_bytes, step))


def test_block_list_is_asked_for_once_and_only_by_a_sequential_reader(make: Make, line: Line) -> None:
    parts, info = make("blocks"), put_blocks(line, [BLOCK] * 9)
    for offset in (140, 20, 61):
        read(parts, info, offset, 4, Stream(next_offset=99))
    assert line.requests["GET block list"] == 0
    assert [read_all(parts, info) for _ in range(3)] == [BODY] * 3
    assert line.requests["GET block list"] == 1


def test_nothing_is_asked_for_without_verification(make: Make, line: Line) -> None:
    parts, info = make("off"), put_blocks(line, [BLOCK] * 9)
    assert read_all(parts, info) == BODY
    assert line.requests["GET block list"] == 0


@pytest.mark.parametrize("sizes", [[BLOCK] * 9, [5, 17, 3, 3, 40, 1], [150], [64, 64]], ids=str)
def test_block_damaged_once_is_fetched_again(
    make: Make, line: Line, caplog: pytest.LogCaptureFixture, sizes: list[int]
) -> None:
    parts, info = make("blocks"), put_blocks(line, sizes)
    line.due, line.relents = lambda number: number % 2 == 0, True
    assert read_all(parts, info, step=40) == BODY
    assert damaged_replies(parts) == line.damaged > 0
    assert caplog.text.count("expected XXH3") == line.damaged


def test_block_that_stays_damaged_is_an_error_and_is_not_kept(line: Line) -> None:
    info = put_blocks(line, [BLOCK] * 9)
    # Without threads: what is under way when the line gets well may be damaged yet.
    with machine(line, block_bytes=BLOCK, fragment_bytes=4, sequential_bytes=32, inline=True) as parts:
        line.due = lambda _: True
        with pytest.raises(Damaged, match=r"x: block at 0, 16 bytes: expected XXH3 \w{16}, found \w{16}"):
            read(parts, info, 0, 40, Stream())
        assert damaged_replies(parts) >= 3
        line.due = lambda _: False
        assert read_all(parts, info) == BODY


def test_bytes_read_at_random_are_verified_before_a_sequential_reader_gets_them(
    make: Make, line: Line
) -> None:
    parts, info = make("blocks"), put_blocks(line, [BLOCK] * 9)
    line.due = lambda number: number == 0
    read(parts, info, 0, 4, Stream(next_offset=99))
    assert line.damaged == 1
    assert read_all(parts, info, step=40) == BODY
    assert damaged_replies(parts) == 1


@pytest.mark.parametrize("comes_with_open", [False, True])
def test_bytes_read_little_by_little_from_the_start_are_verified_before_their_block(
    make: Make, line: Line, comes_with_open: bool
) -> None:
    parts, info = make("blocks"), put_blocks(line, [150])
    line.due = lambda number: number % 2 == 0
    if comes_with_open:
        parts.first_bytes.refresh(info, 8)
    stream = Stream()
    for offset in range(0, 150, 4):
        assert read(parts, info, offset, 4, stream) == BODY[offset : offset + 4]
    assert damaged_replies(parts) == line.damaged >= 4


def test_bytes_at_hand_are_not_fetched_again_to_verify_their_block(make: Make, line: Line) -> None:
    parts, info = make("blocks"), put_blocks(line, [150])
    stream = Stream()
    for offset in range(0, 28, 4):
        read(parts, info, offset, 4, stream)
    read(parts, info, 28, 8, stream)
    assert line.requests["GET blob"] == 8
    assert parts.cache.holds(info.version, 148)
    assert damaged_replies(parts) == 0


def test_file_of_one_block_is_verified_by_its_md5(
    make: Make, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    parts, info = make("blocks"), line.put("x", BODY[:BLOCK])
    line.due = lambda number: number == 0
    assert read(parts, info, 3, 4, Stream(next_offset=99)) == BODY[3:7]
    assert line.requests == {"GET blob": 2}
    assert "expected MD5" in caplog.text


def test_bytes_that_come_with_an_open_are_verified_too(make: Make, line: Line) -> None:
    parts, info = make("blocks"), line.put("x", BODY[:BLOCK])
    line.due = lambda number: number == 0
    assert parts.first_bytes.refresh(info, 64) == info
    assert not parts.cache.holds(info.version)
    assert read(parts, info, 0, BLOCK, Stream()) == BODY[:BLOCK]
    assert line.requests == {"GET blob": 2}


def test_foreign_file_read_from_start_to_end_is_verified_by_its_md5(make: Make, line: Line) -> None:
    parts, info = make("blocks"), put_foreign(line, hashlib.md5(BODY).digest())
    assert read_all(parts, info) == BODY
    other = put_foreign(line, hashlib.md5(b"something else").digest())
    stream = Stream()
    for offset in range(0, 148, 4):
        assert read(parts, other, offset, 4, stream) == BODY[offset : offset + 4]
    for _ in range(2):  # the kernel asks again
        with pytest.raises(Damaged, match=r"x: the whole, 150 bytes: expected MD5 \w+, found \w+"):
            read(parts, other, 148, 4, stream)


def chmod(parts: Machine, store: MemoryStore, info: BlobInfo) -> BlobInfo:
    """Give a blob other metadata, as this mount does while somebody reads it."""
    new = info._replace(etag=store.set_metadata(info.version, {"permissions": "33152"}))
    parts.reader.rename(info, new)
    return new


@pytest.mark.parametrize("checked", [BODY, b"something else"])
def test_foreign_file_that_gets_other_metadata_while_it_is_read_is_verified_as_a_whole(
    make: Make, line: Line, checked: bytes
) -> None:
    parts, info = make("blocks"), put_foreign(line, hashlib.md5(checked).digest())
    stream = Stream()
    for offset in range(0, 148, 4):
        if offset == 80:
            info = chmod(parts, line, info)
        assert read(parts, info, offset, 4, stream) == BODY[offset : offset + 4]
    if checked == BODY:
        assert read(parts, info, 148, 4, stream) == BODY[148:]
    else:
        with pytest.raises(Damaged):
            read(parts, info, 148, 4, stream)


def test_file_that_is_written_while_it_is_read_is_not_verified_as_a_whole(make: Make, line: Line) -> None:
    parts, info = make("blocks"), put_foreign(line, hashlib.md5(BODY).digest())
    stream = Stream()
    for offset in range(0, 80, 4):
        read(parts, info, offset, 4, stream)
    other = line.put("x", BODY[::-1])
    line.requests.clear()
    for offset in range(80, 150, 4):
        assert read(parts, other, offset, 4, stream) == BODY[::-1][offset : offset + 4]
    assert line.requests["GET blob"] <= 70 / 4 + 1  # and nothing of what was before it


def test_reads_in_nearly_the_right_order_are_verified_as_a_whole(make: Make, line: Line) -> None:
    parts, info = make("blocks"), put_foreign(line, hashlib.md5(b"something else").digest())
    stream = Stream()
    offsets = [offset ^ 4 for offset in range(0, 144, 4)]  # neighbours change places
    for offset in offsets:
        assert read(parts, info, offset, 4, stream) == BODY[offset : offset + 4]
    with pytest.raises(Damaged):
        read(parts, info, 144, 8, stream)


def test_with_every_reply_verified_damage_is_found_in_random_reads(make: Make, line: Line) -> None:
    parts, info = make("all"), put_blocks(line, [BLOCK] * 9)
    line.due, line.relents = lambda number: number % 2 == 0, True
    for offset in (100, 20, 61):
        assert read(parts, info, offset, 5, Stream(next_offset=99)) == BODY[offset : offset + 5]
    line.due, line.relents = lambda _: True, False
    with pytest.raises(Damaged, match="range at 4"):
        read(parts, info, 4, 4, Stream(next_offset=99))
    assert parts.first_bytes.refresh(info, 64) == info
    assert not parts.cache.holds(info.version)


@given(
    st.lists(st.integers(1, 40), max_size=12),
    st.lists(st.tuples(st.integers(0, 149), st.integers(1, 70)), max_size=20),
    st.integers(2, 6),
)
def test_no_pattern_of_reads_ever_shows_damaged_bytes(
    sizes: list[int], reads: list[tuple[int, int]], every: int
) -> None:
    line = Line(lambda number: number % every == 0)
    line.relents = True
    info = put_blocks(line, sizes, md5=hashlib.md5(BODY).digest())
    streams = [Stream(), Stream()]
    with machine(line, block_bytes=BLOCK, fragment_bytes=4, sequential_bytes=32, verify="all") as parts:
        for number, (offset, length) in enumerate(reads):
            assert read(parts, info, offset, length, streams[number % 2]) == BODY[offset : offset + length]
        assert damaged_replies(parts) == line.damaged


def test_pieces_of_blocks_that_memory_has_no_room_for_are_checked_by_an_md5_of_the_service(
    line: Line,
) -> None:
    info = put_blocks(line, [BLOCK] * 9)
    line.due, line.relents = lambda number: number % 3 == 0, True
    with machine(
        line, block_bytes=BLOCK, fragment_bytes=4, sequential_bytes=4, capacity_bytes=BLOCK, inline=True
    ) as parts:
        streams = [Stream(), Stream()]
        for offset in range(0, len(BODY), 4):
            for stream in streams:
                assert read(parts, info, offset, 4, stream) == BODY[offset : offset + 4]
        assert damaged_replies(parts) == line.damaged > 5
