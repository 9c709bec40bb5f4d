import base64
import hashlib
from itertools import accumulate

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from responder.checks import MAX_BLOCK_ID_BYTES

from blobfs.blocks import (
    ID_BYTES,
    MAX_BLOCK_BYTES,
    MAX_BLOCKS_PER_BLOB,
    KiB,
    MiB,
    block_size_at,
    copied_block_id,
    digest_of,
    id_length,
)

TiB = 1024 * 1024 * MiB

id_lengths = st.integers(1, MAX_BLOCK_ID_BYTES)
indexes = st.integers(0, MAX_BLOCKS_PER_BLOB - 1)


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_ids_are_equal_exactly_when_the_bytes_are(one, other):
    assert (digest_of(one).block_id() == digest_of(other).block_id()) == (one == other)


@given(st.binary(max_size=64))
def test_a_digest_does_not_depend_on_where_the_bytes_lie(content):
    surrounded = memoryview(bytearray(b"-" + content + b"-"))[1:-1]
    assert digest_of(surrounded) == digest_of(content)


@given(st.binary(), id_lengths)
def test_every_id_of_a_blob_has_the_length_asked_for(content, id_bytes):
    assert id_length(digest_of(content).block_id()) == ID_BYTES <= MAX_BLOCK_ID_BYTES
    assert id_length(digest_of(content).block_id(id_bytes)) == id_bytes


@given(st.binary(), id_lengths)
def test_the_same_bytes_get_the_same_id_of_any_length(content, id_bytes):
    assert digest_of(content).block_id(id_bytes) == digest_of(bytes(content)).block_id(id_bytes)


@given(st.lists(st.binary(), unique=True, min_size=2, max_size=2))
def test_ids_of_another_length_still_tell_contents_apart(contents):
    one, other = (digest_of(content).block_id(24) for content in contents)
    assert one != other


def test_both_checksums_can_be_read_from_an_id():
    content = b"one block"
    expected = f"bfs1{hashlib.md5(content).hexdigest()}{xxhash.xxh3_64_hexdigest(content)}"
    assert base64.b64decode(digest_of(content).block_id()).decode() == expected


@given(id_lengths)
def test_a_copied_block_has_an_id_of_the_same_length_that_shows_no_checksum(id_bytes):
    assert id_length(copied_block_id("größe", "0x1", 0, 8, id_bytes)) == id_bytes
    raw = base64.b64decode(copied_block_id("größe", "0x1", 0, 8))
    assert len(raw) == ID_BYTES
    assert raw.startswith(b"bfs0")


def test_copied_blocks_share_an_id_only_if_they_are_one_range_of_one_version():
    ranges = [
        ("x", "0x1", 0, 8),
        ("y", "0x1", 0, 8),
        ("x", "0x2", 0, 8),
        ("x", "0x1", 8, 8),
        ("x", "0x1", 0, 9),
    ]
    assert len({copied_block_id(*each) for each in ranges}) == len(ranges)
    assert copied_block_id(*ranges[0]) == copied_block_id(*ranges[0])


def test_the_id_of_an_empty_block_never_changes():
    expected = b"bfs1d41d8cd98f00b204e9800998ecf8427e2d06800538d394c2"
    assert base64.b64decode(digest_of(b"").block_id()) == expected


@given(indexes, indexes, st.integers(1, 64 * MiB), st.integers(0, 8))
def test_blocks_never_shrink_along_a_file(index, other_index, first_bytes, doublings):
    sizes = [block_size_at(i, first_bytes, first_bytes << doublings) for i in sorted((index, other_index))]
    assert sizes == sorted(sizes)


@given(indexes, st.integers(1, 8 * MAX_BLOCK_BYTES), st.integers(0, 8))
def test_a_block_is_never_larger_than_the_service_or_the_caller_allows(index, first_bytes, doublings):
    largest_bytes = first_bytes << doublings
    assert 0 < block_size_at(index, first_bytes, largest_bytes) <= min(largest_bytes, MAX_BLOCK_BYTES)


@pytest.mark.parametrize("first_bytes", [4 * KiB, 8 * MiB, 128 * MiB])
def test_a_file_starts_with_blocks_of_the_first_size(first_bytes):
    assert {block_size_at(i, first_bytes, 128 * MiB) for i in (0, 1, 4999)} == {first_bytes}


def test_the_permitted_number_of_blocks_is_enough_for_4_tib():
    sizes = (block_size_at(index, 8 * MiB, 128 * MiB) for index in range(MAX_BLOCKS_PER_BLOB))
    *_, capacity_bytes = accumulate(sizes)
    assert capacity_bytes > 4 * TiB
