import base64
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobfs.blocks import digest_of, xxh3_in_id
from blobfs.content.layout import Layout, layout_of_blocks, uniform_layout
from blobfs.errors import Damaged
from blobfs.store import CommittedBlock

UNIT, LARGEST = 16, 40


def own(body: bytes) -> CommittedBlock:
    return CommittedBlock(digest_of(body).block_id(), len(body))


def foreign(size_bytes: int) -> CommittedBlock:
    return CommittedBlock(base64.b64encode(b"block-%04d" % size_bytes).decode(), size_bytes)


def layout_of(*blocks: CommittedBlock) -> Layout:
    size_bytes = sum(block.size_bytes for block in blocks)
    return layout_of_blocks(blocks, size_bytes, unit_bytes=UNIT, largest_bytes=LARGEST)


def units(layout: Layout) -> list[range]:
    found: list[range] = []
    while not found or found[-1].stop < layout.size_bytes:
        found.append(layout.unit(found[-1].stop if found else 0))
    return found


def test_blob_without_known_checksums_has_even_units() -> None:
    layout = uniform_layout(40, UNIT)
    assert units(layout) == [range(16), range(16, 32), range(32, 40)]
    assert not layout.checks(range(40))
    assert not layout.is_complete


def test_small_blocks_share_a_unit_and_each_is_checked() -> None:
    layout = layout_of(*[own(b"x" * 5)] * 4)
    assert units(layout) == [range(15), range(15, 20)]
    assert [check.start for check in layout.checks(range(15))] == [0, 5, 10]
    assert layout.is_complete


def test_block_of_ours_stays_whole_as_long_as_it_fits_in_memory() -> None:
    layout = layout_of(own(b"a" * 8), own(b"b" * 33), own(b"c" * 8))
    assert units(layout) == [range(8), range(8, 41), range(41, 49)]
    assert layout.is_complete


def test_block_too_large_for_memory_is_cut_and_not_checked() -> None:
    layout = layout_of(own(b"a" * 41), own(b"b" * 8))
    assert max(len(unit) for unit in units(layout)) <= UNIT
    assert [check.start for check in layout.checks(range(49))] == [41]
    assert not layout.is_complete


@pytest.mark.parametrize("step", [1, 7, 41, 200])
def test_a_reader_in_order_compares_blocks_of_any_size(step: int) -> None:
    bodies = [b"a" * 41, b"b" * 8, b"c" * 100]
    layout = layout_of(*map(own, bodies))
    assert layout.is_vouched
    for damaged in (None, 40, 41, 148):
        content = bytearray(b"".join(bodies))
        if damaged is not None:
            content[damaged] ^= 1
        checks = layout.all_in_order("blob")
        with pytest.raises(Damaged) if damaged is not None else nullcontext():
            for start in range(0, len(content), step):
                checks.see(start, memoryview(content)[start : start + step])
        assert checks.are_over == (damaged is None)


def test_blocks_of_others_are_vouched_for_by_nobody() -> None:
    layout = layout_of(own(b"a" * 41), foreign(8), own(b"b" * 8))
    assert not layout.is_vouched
    checks = layout.all_in_order("blob")
    checks.see(0, memoryview(b"a" * 41 + b"anything" + b"b" * 8))
    assert checks.are_over


def test_blocks_of_other_programs_are_not_checked() -> None:
    layout = layout_of(foreign(20), own(b"b" * 8), foreign(3))
    assert [(check.start, check.end) for check in layout.checks(range(31))] == [(20, 28)]
    assert not layout.is_complete


def test_block_list_that_does_not_add_up_says_nothing() -> None:
    layout = layout_of_blocks([own(b"a" * 8)], 9, unit_bytes=UNIT, largest_bytes=LARGEST)
    assert not layout.checks(range(9))


def test_only_stretches_wholly_inside_a_span_are_checked() -> None:
    layout = layout_of(*[own(b"x" * 5)] * 4)
    assert [check.start for check in layout.checks(range(1, 14))] == [5]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=30))
def test_units_cover_the_blob_and_never_cut_a_checked_block(made: list[tuple[bool, int]]) -> None:
    blocks = [own(b"x" * size) if is_own else foreign(size) for is_own, size in made]
    layout = layout_of(*blocks)
    found = units(layout)
    assert [unit.start for unit in found] == [0, *(unit.stop for unit in found[:-1])]
    assert found[-1].stop == layout.size_bytes
    assert all(0 < len(unit) <= LARGEST for unit in found)
    by_unit = [check for unit in found for check in layout.checks(unit)]
    assert by_unit == list(layout.checks(range(layout.size_bytes)))
    assert len(by_unit) == sum(is_own and size <= LARGEST for is_own, size in made)


def test_check_names_blob_block_and_both_checksums() -> None:
    (check,) = layout_of(own(b"right")).checks(range(5))
    check.verify("dir/blob", memoryview(b"right"))
    expected, found = digest_of(b"right").xxh3.hex(), digest_of(b"wrong").xxh3.hex()
    with pytest.raises(Damaged, match=rf"dir/blob: block at 0, 5 bytes.*{expected}.*{found}"):
        check.verify("dir/blob", memoryview(b"wrong"))


@pytest.mark.parametrize(
    "block_id", ["", "!", "YWJj", base64.b64encode(b"bfs1" + b"z" * 48).decode(), digest_of(b"").block_id(64)]
)
def test_ids_of_others_carry_no_checksum(block_id: str) -> None:
    assert xxh3_in_id(block_id) is None
