from blobfs.content.extents import Extent, Extents
from blobfs.content.memory import BufferPool


def row(*lengths: int) -> Extents:
    extents, start = Extents(), 0
    for length in lengths:
        extents.append(Extent(start, length, base_offset=start))
        start += length
    return extents


def spans(extents: Extents) -> list[tuple[int, int]]:
    return [(extent.start, extent.end) for extent in extents]


def test_empty_file_has_no_size_no_end_and_no_extents() -> None:
    extents = Extents()
    assert (extents.size_bytes, extents.last, list(extents), extents.over(0, 9)) == (0, None, [], [])


def test_byte_is_found_in_the_extent_that_holds_it() -> None:
    extents = row(4, 1, 3)
    assert [extents.at(offset).start for offset in range(8)] == [0, 0, 0, 0, 4, 5, 5, 5]


def test_range_is_given_by_the_extents_it_touches() -> None:
    extents = row(4, 1, 3)
    touched = {
        (start, end): [extent.start for extent in extents.over(start, end)]
        for start, end in [(0, 4), (3, 5), (4, 99), (7, 8), (8, 9), (2, 2)]
    }
    assert touched == {(0, 4): [0], (3, 5): [0, 4], (4, 99): [4, 5], (7, 8): [5], (8, 9): [], (2, 2): []}


def test_pieces_take_the_place_of_an_extent() -> None:
    extents = row(4, 4, 4)
    middle = extents.at(4)
    extents.replace(middle, [middle.part(4, 5), middle.part(5, 8)])
    assert spans(extents) == [(0, 4), (4, 5), (5, 8), (8, 12)]


def test_cut_drops_what_starts_behind_and_leaves_what_spans() -> None:
    extents = row(4, 4, 4)
    extents.cut(6)
    assert spans(extents) == [(0, 4), (4, 8)]
    extents.cut(4)
    assert spans(extents) == [(0, 4)]
    extents.cut(0)
    assert spans(extents) == []


def test_part_of_a_committed_extent_knows_where_the_blob_has_it() -> None:
    part = Extent(100, 10, block_id="id", base_offset=40).part(103, 105)
    assert (part.start, part.length, part.base_offset, part.block_id) == (103, 2, 43, "")
    assert part.is_committed


def test_part_of_a_hole_is_a_hole() -> None:
    assert Extent(0, 10).part(2, 3).is_hole


def test_extent_says_where_its_bytes_are() -> None:
    buffer = BufferPool(1 << 20).take(1)
    cases = {
        "hole": Extent(0, 4),
        "dirty": Extent(0, 4, buffer),
        "staged": Extent(0, 4, None, "id"),
        "staged, and a copy": Extent(0, 4, buffer, "id"),
        "committed": Extent(0, 4, None, "", 0),
        "committed, and a copy": Extent(0, 4, buffer, "", 0),
    }
    facts = {
        name: (extent.is_hole, extent.is_dirty, extent.is_committed, extent.is_droppable)
        for name, extent in cases.items()
    }
    assert facts == {
        "hole": (True, False, False, False),
        "dirty": (False, True, False, False),
        "staged": (False, False, False, False),
        "staged, and a copy": (False, False, False, True),
        "committed": (False, False, True, False),
        "committed, and a copy": (False, False, True, True),
    }


def outgrown(lengths: list[int], growth: int, limit: int) -> list[int]:
    return [extent.length for extent in row(*lengths).outgrown(growth, limit)]


def test_extents_at_the_end_are_outgrown_from_half_their_length_on() -> None:
    assert outgrown([8, 4, 2, 0], 1, limit=100) == [0]
    assert outgrown([8, 4, 1, 0], 1, limit=100) == [1, 0]
    assert outgrown([12, 3, 1, 0], 1, limit=100) == [3, 1, 0]
    assert outgrown([8, 3, 1, 0], 3, limit=100) == [8, 3, 1, 0]


def test_extents_are_not_outgrown_beyond_the_limit() -> None:
    assert outgrown([8, 3, 1, 0], 3, limit=14) == [3, 1, 0]
    assert outgrown([3], 3, limit=14) == [3]


def test_extent_that_is_only_staged_is_not_outgrown() -> None:
    extents = row(1, 1, 1)
    middle = extents.at(1)
    middle.block_id, middle.base_offset = "id", -1
    assert [extent.start for extent in extents.outgrown(5, 100)] == [2]


def test_joined_extents_are_one_with_all_the_bytes() -> None:
    extents = row(5, 2, 1)
    extents.join(extents.outgrown(1, 7), BufferPool(1 << 20).take(1))
    assert spans(extents) == [(0, 5), (5, 8)]
    assert extents.last is not None
    assert extents.last.is_dirty
