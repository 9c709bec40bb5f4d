import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobfs.errors import InvalidName, NameTooLong
from blobfs.format.names import (
    HIDDEN_NAME,
    NameMap,
    is_hidden_name,
    normalized_prefix,
    refusal,
    split_path,
)

ANY_TEXT = st.text(st.characters(exclude_categories=[]))  # surrogates included
HIDDEN = ".fuse_hidden0000002a00000001"

entries = st.text(min_size=1, max_size=255).filter(lambda entry: not refusal(entry))
paths = st.lists(entries, max_size=4).map(lambda components: "/" + "/".join(components))
name_maps = st.sampled_from([NameMap(), NameMap("data/"), NameMap("söme/deep tree/")])


@given(name_maps, paths, entries)
def test_listing_a_directory_shows_each_stored_entry_under_its_own_name(names, parent, entry):
    name = names.blob_name(os.path.join(parent, entry))
    assert names.entry_of(name, names.directory_prefix(parent)) == entry
    assert names.entry_of(f"{name}/", names.directory_prefix(parent)) == entry


@given(ANY_TEXT, st.sampled_from(["", "data/", "data/sub/"]))
def test_a_listed_entry_is_always_one_posix_component(tail, directory_prefix):
    entry = NameMap.entry_of(directory_prefix + tail, directory_prefix)
    if entry is not None:
        assert entry not in ("", ".", "..")
        assert not set(entry) & {"/", "\0", "\\"}
        assert len(entry.encode()) <= 255
        assert not is_hidden_name(entry)


@given(name_maps, ANY_TEXT)
def test_a_path_is_refused_exactly_when_one_of_its_components_is(names, text):
    refused = any(refusal(component) for component in text.split("/"))
    try:
        names.blob_name(f"/{text}")
    except (InvalidName, NameTooLong):
        assert refused or text == ""
    else:
        assert not refused or text == ""  # "/" is the root


@given(paths, entries)
def test_splitting_undoes_joining(parent, entry):
    assert split_path(os.path.join(parent, entry)) == (parent, entry)


@pytest.mark.parametrize(
    ("path", "parent", "entry"), [("/a", "/", "a"), ("/a/b", "/a", "b"), ("/a/b/c", "/a/b", "c")]
)
def test_a_path_is_its_parent_and_its_last_component(path, parent, entry):
    assert split_path(path) == (parent, entry)


@pytest.mark.parametrize(
    ("prefix", "path", "name", "directory_prefix"),
    [
        ("", "/", "", ""),
        ("", "/a", "a", "a/"),
        ("", "/a/b", "a/b", "a/b/"),
        ("data/", "/", "data", "data/"),
        ("data/", "/a/b", "data/a/b", "data/a/b/"),
    ],
)
def test_the_prefix_stands_in_front_of_every_name(prefix, path, name, directory_prefix):
    names = NameMap(prefix)
    assert names.blob_name(path) == name
    assert names.directory_prefix(path) == directory_prefix


@pytest.mark.parametrize(
    "entry",
    [
        "a b",
        " ",
        "a%20b",
        "what?",
        "#1",
        "it's",
        '"quoted"',
        "a.",
        "...",
        ".hidden",
        "-rf",
        "~",
        "naïve",
        "日本語",
        "\u0301",
        "e\u0301",
        "é",
        "😀",
        ".fuse_hidden",
        ".fuse_hidden0000002a0000000G",
        HIDDEN + "0",
        "x" * 255,
    ],
)
def test_unusual_but_legal_entries_are_kept_as_they_are(entry):
    assert refusal(entry) == ""
    assert NameMap().blob_name(f"/{entry}") == entry


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (".", "reserved"),
        ("..", "reserved"),
        ("line\nbreak", "control character"),
        ("\x01", "control character"),
        ("nul\0", "control character"),
        ("\x7f", "control character"),
        ("back\\slash", "backslash"),
        ("\udcff", "not UTF-8"),
        (chr(0xD83D), "not UTF-8"),
        ("was\ufffdcontrol", "listings cannot carry"),
        ("\uffff", "listings cannot carry"),
        (HIDDEN, "deleted while open"),
    ],
)
def test_an_entry_that_would_not_read_back_is_refused_with_the_reason(entry, reason):
    assert reason in refusal(entry)
    for path in (f"/{entry}", f"/{entry}/below", f"/above/{entry}"):
        with pytest.raises(InvalidName, match=reason):
            NameMap().blob_name(path)
        with pytest.raises(InvalidName, match=reason):
            NameMap().directory_prefix(path)


def test_an_empty_entry_and_one_with_a_slash_are_refused():
    assert refusal("") == "empty"
    assert refusal("a/b") == "more than one component"


@pytest.mark.parametrize("entry", ["x" * 256, "é" * 128, "😀" * 64])
def test_a_component_over_255_bytes_is_too_long(entry):
    assert NameMap().blob_name(f"/{entry[1:]}") == entry[1:]
    with pytest.raises(NameTooLong):
        NameMap().blob_name(f"/a/{entry}")
    assert NameMap.entry_of(entry, "") is None


def test_the_limit_on_a_whole_name_counts_characters_and_the_prefix():
    names = NameMap("data/", max_name_characters=10)
    assert names.blob_name("/ééééé") == "data/ééééé"
    with pytest.raises(NameTooLong):
        names.blob_name("/éééééé")


def test_without_a_limit_only_the_components_count():
    path = "/x" * 1000
    assert NameMap().blob_name(path) == path[1:]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("dir/a", "a"),
        ("dir/sub/", "sub"),
        ("dir/", None),  # the directory's own marker in another tool's style
        ("dir//", None),
        ("dir/./", None),
        ("dir/../", None),
        ("dir/a//", None),
        ("dir/a/b", None),
        ("dir", None),
        ("directory", None),
        ("other/a", None),
        (f"dir/{HIDDEN}", None),
    ],
)
def test_only_what_lies_directly_in_a_directory_and_can_be_shown_is_its_entry(name, entry):
    assert NameMap.entry_of(name, "dir/") == entry


@pytest.mark.parametrize("path", [HIDDEN, f"/{HIDDEN}", f"/a/b/{HIDDEN}"])
def test_libfuse_names_for_unlinked_open_files_are_recognised_in_any_directory(path):
    assert is_hidden_name(path)


@pytest.mark.parametrize(
    "path", ["/", "/a", f"/{HIDDEN}/a", f"/a{HIDDEN}", f"/{HIDDEN}\n", f"/{HIDDEN.upper()}"]
)
def test_other_names_are_not_taken_for_libfuse_names(path):
    assert not is_hidden_name(path)


def test_the_hidden_pattern_matches_the_whole_entry():
    assert HIDDEN_NAME.match(HIDDEN)
    assert not HIDDEN_NAME.match(f"{HIDDEN}\n")


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("", ""),
        ("/", ""),
        ("//", ""),
        ("a", "a/"),
        ("/a", "a/"),
        ("a/", "a/"),
        ("//a/b//", "a/b/"),
        ("a b/é", "a b/é/"),
    ],
)
def test_slashes_around_a_prefix_do_not_matter(text, prefix):
    assert normalized_prefix(text) == prefix


@pytest.mark.parametrize("text", ["a//b", ".", "a/./b", "a/..", "../a", "a\\b", "a\nb", f"a/{HIDDEN}"])
def test_a_prefix_no_path_could_have_is_refused(text):
    with pytest.raises(InvalidName):
        normalized_prefix(text)


def test_a_prefix_with_an_overlong_component_is_too_long():
    with pytest.raises(NameTooLong):
        normalized_prefix("a/" + "x" * 256)


@given(ANY_TEXT)
def test_normalizing_a_prefix_twice_changes_nothing(text):
    try:
        prefix = normalized_prefix(text)
    except (InvalidName, NameTooLong):
        return
    assert normalized_prefix(prefix) == prefix
    assert prefix == "" or prefix.endswith("/")
