"""Journals as bytes: what comes back is what was written, or nothing."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobfs.errors import Damaged
from blobfs.spool.image import Image
from blobfs.spool.records import (
    HEAD_BYTES,
    NO_SEAL,
    Kind,
    Record,
    Target,
    body_of_target,
    head_of,
    records_in,
)
from blobfs.store import ContentHeaders

TARGET = Target("ä/x", "0x1", 40, "", {"modtime": "7"}, ContentHeaders("text/plain"))
BASE = bytes(range(100, 140))

Edit = tuple[Kind, int, bytes]
writes = st.tuples(st.just(Kind.WRITE), st.integers(0, 80), st.binary(max_size=40))
truncations = st.tuples(st.just(Kind.TRUNCATE), st.integers(0, 100), st.just(b""))
edits = st.lists(writes | truncations, max_size=8)


def journal_of(*edits: Edit, target: Target = TARGET) -> bytes:
    journal, seal = b"", NO_SEAL
    for kind, number, body in [(Kind.TARGET, 0, body_of_target(target)), *edits]:
        head, seal = head_of(kind, seal, number, body)
        journal += head + body
    return journal


def read(journal: bytes) -> tuple[list[Record], bool]:
    """Return the records, and whether the journal is damaged behind them."""
    records: list[Record] = []
    try:
        records.extend(records_in(lambda position, length: journal[position : position + length]))
    except Damaged:
        return records, True
    return records, False


@given(edits)
def test_records_come_back_as_they_were_written(edits: list[Edit]) -> None:
    journal = journal_of(*edits)
    (target, *others), is_damaged = read(journal)
    assert target.target == TARGET
    assert not is_damaged
    bodies = [journal[record.body_at : record.end] for record in others]
    assert [(record.kind, record.number, body) for record, body in zip(others, bodies, strict=True)] == edits


def test_a_journal_cut_anywhere_gives_the_records_before_the_cut() -> None:
    journal = journal_of((Kind.WRITE, 3, b"abc"), (Kind.TRUNCATE, 2, b""), (Kind.WRITE, 0, b"x" * 50))
    all_records, _ = read(journal)
    for size in range(len(journal)):
        for tail in (b"", bytes(HEAD_BYTES)):  # a machine that crashes may leave zeros
            records, is_damaged = read(journal[:size] + tail)
            whole = [record for record in all_records if record.end <= size]
            assert records == whole
            assert tail or not is_damaged
    assert read(journal + bytes(1000)) == (all_records, False)


def test_a_flipped_bit_anywhere_is_found_and_no_other_byte_believed() -> None:
    journal = journal_of((Kind.WRITE, 3, b"abc"), (Kind.COMMIT, 0, body_of_target(TARGET)))
    all_records, _ = read(journal)
    for index in range(len(journal) * 8):
        flipped = bytearray(journal)
        flipped[index // 8] ^= 1 << index % 8
        records, is_damaged = read(bytes(flipped))
        assert is_damaged
        assert records == [record for record in all_records if record.end * 8 <= index]


PAGE_BYTES = 64  # smaller than a disk's, so that journals of some records have many


@st.composite
def after_power_loss(draw: st.DrawFn) -> tuple[bytes, bytes, bytes, int]:
    """Draw a journal, an earlier one of the same file, what is on disk of both, and what was synced.

    Of what was not, a page is there, or zeros, or what was there before; and the end may be missing.
    The worst case is drawn: records of the same lengths, and pages that begin with one.
    """
    made = draw(edits)
    new = journal_of(*made)
    before = [(kind, number, bytes(byte ^ 1 for byte in body)) for kind, number, body in made]
    old = journal_of(*before, *draw(edits), target=replace(TARGET, base_etag="0x0"))
    ends = [record.end for record in read(new)[0]]
    synced = draw(st.sampled_from([0, *ends]))
    starts = sorted({synced, *range(0, max(len(new), len(old)), PAGE_BYTES), *ends})
    disk = bytearray(new[:synced])
    for start, end in pairwise([*starts[starts.index(synced) :], len(old)]):
        disk += draw(st.sampled_from([new[start:end], old[start:end], bytes(max(0, end - start))]))
    return new, old, bytes(disk[: draw(st.integers(synced, len(disk)))]), synced


@given(after_power_loss())
def test_power_loss_leaves_what_was_synced_and_no_byte_that_nobody_wrote_there(
    case: tuple[bytes, bytes, bytes, int],
) -> None:
    new, old, disk, synced = case
    found, _ = read(disk)
    written = read(new)[0]
    lives = [written] if synced else [written, read(old)[0]]
    assert any(found == life[: len(found)] for life in lives)
    assert len(found) >= sum(record.end <= synced for record in written)


@given(st.binary(max_size=200))
def test_garbage_behind_a_journal_is_no_record(garbage: bytes) -> None:
    assert read(journal_of() + garbage)[0] == read(journal_of())[0]
    assert read(garbage)[0] == []


@given(st.sampled_from(Kind), st.binary(max_size=100))
def test_a_sound_body_that_makes_no_sense_is_damage(kind: Kind, body: bytes) -> None:
    records, is_damaged = read(head_of(kind, NO_SEAL, 0, body)[0] + body)
    assert is_damaged == (records == [])


@pytest.mark.parametrize("body", [b"{}", b'{"format": 2}', b"[]", b'{"format": 1, "name": "x", "new": 1}'])
def test_a_journal_of_another_format_is_not_read(body: bytes) -> None:
    assert read(head_of(Kind.TARGET, NO_SEAL, 0, body)[0] + body) == ([], True)


@given(edits)
def test_an_image_is_what_the_edits_make_of_the_base(edits: list[Edit]) -> None:
    journal = journal_of(*edits)
    file, kept_bytes = bytearray(BASE), len(BASE)
    for kind, number, body in edits:
        if kind is Kind.TRUNCATE or number > len(file):
            file = file[:number] + bytes(max(0, number - len(file)))
            kept_bytes = min(kept_bytes, len(file))
        file[number : number + len(body)] = body
    image = Image(read(journal)[0])
    assert image.kept_bytes == kept_bytes
    content = b""
    for piece in image:
        assert piece.start == len(content)
        if piece.is_written:
            content += journal[piece.position : piece.position + piece.length]
        else:
            content += BASE[piece.start : piece.end] if piece.in_base else bytes(piece.length)
    assert content == file
