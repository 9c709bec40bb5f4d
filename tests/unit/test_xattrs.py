import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobfs.errors import InvalidArgument
from blobfs.format import xattrs

ANY_TEXT = st.text(st.characters(exclude_categories=[]))  # surrogates included

names = st.binary(min_size=1, max_size=xattrs.MAX_NAME_BYTES).filter(lambda raw_name: 0 not in raw_name)
names = names.map(lambda raw_name: raw_name.decode(errors="surrogateescape"))


@given(names, st.binary())
def test_any_name_and_any_bytes_come_back(name, value):
    ((key, text),) = xattrs.encode({name: value}).items()
    assert re.fullmatch(r"xattr_[a-z0-9_]+", key)
    assert re.fullmatch(r"[!-~]*", text)
    assert xattrs.decode(key, text) == (name, value)


@given(st.from_regex(r"xattr_([a-z0-9]|_[0-9a-f]{2}){0,6}", fullmatch=True) | ANY_TEXT, ANY_TEXT)
def test_a_pair_is_read_only_if_its_key_is_the_one_that_would_be_written(key, text):
    attribute = xattrs.decode(key, text)
    if attribute is not None:
        assert list(xattrs.encode(dict([attribute]))) == [key]


@pytest.mark.parametrize(
    ("name", "value", "key", "text"),
    [
        ("colour", b"dark blue", "xattr_colour", "dark%20blue"),
        ("Mime_Type", b"a/b", "xattr__4dime_5f_54ype", "a/b"),
        ("mime.type", b"", "xattr_mime_2etype", ""),
        ("é", b"\xff\n%", "xattr__c3_a9", "%FF%0A%25"),
        ("q", b"<\"'&\\>", "xattr_q", "%3C%22%27%26%5C%3E"),
    ],
)
def test_metadata_reads_as_documented(name, value, key, text):
    assert xattrs.encode({name: value}) == {key: text}
    assert xattrs.decode(key, text) == (name, value)


def test_names_that_differ_only_in_case_stay_apart_without_the_case_of_keys():
    assert len({key.lower() for key in xattrs.encode({"a": b"", "A": b""})}) == 2


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("xattr_", "no name"),
        ("xattr__zz", "no digits"),
        ("xattr_a_", "cut off"),
        ("xattr__61", "an a, which needs no escape"),
        ("xattr__00", "NUL"),
        ("xattr_" + "a" * 251, "longer than any name"),
        ("xattr_a\n", "no identifier"),
        ("xattr_é", "no identifier"),
        ("my_xattr_a", "another prefix"),
        ("xattr_a", "not ASCII: é"),
    ],
)
def test_a_pair_that_breaks_the_rules_is_not_ours(key, text):
    assert xattrs.decode(key, text) is None


def test_a_value_written_by_hand_is_read_as_it_stands():
    assert xattrs.decode("xattr_note", "50% of a+b, roughly") == ("note", b"50% of a+b, roughly")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 251, "é" * 126])
def test_a_name_no_attribute_can_have_is_refused(name):
    with pytest.raises(InvalidArgument):
        xattrs.encode({name: b""})
