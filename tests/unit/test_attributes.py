import re
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blobfs.blocks import MAX_METADATA_BYTES
from blobfs.errors import NoSpace
from blobfs.format.attributes import (
    Attributes,
    Defaults,
    attributes_of,
    check_size,
    is_directory_marker,
    metadata_of,
)
from blobfs.store import BlobInfo

MODIFIED_NS = 1_700_000_000 * 10**9
DEFAULTS = Defaults(uid=1000, gid=100, file_mode=0o100640, directory_mode=0o040750)
PLAIN = Attributes(0o100644, 0, 0, mtime_ns=1, ctime_ns=2, atime_ns=3)

ANY_TEXT = st.text(st.characters(exclude_categories=[]))  # surrogates included
HOSTILE_VALUES = [
    "",
    "-1",
    "0",
    "00",
    "08",
    "+1",
    " 1",
    "1\n",
    "1_0",
    "1.5",
    "1e9",
    "NaN",
    "inf",
    "٣",
    "²",
    "0x1ff",
]
HOSTILE_VALUES += [
    "9" * 9,
    "9" * 20,
    "9" * 28,
    "9" * 29,
    "-" + "9" * 28,
    "9" * 5000,
    "0" * 5000,
    "TRUE",
    "true",
    "[]",
]
HOSTILE_VALUES += [
    "2023-02-31T00:00:00Z",
    "0000-00-00T00:00:00Z",
    "2023-01-01T00:00:60Z",
    "9999-12-31T23:59:59-23:59",
]
HOSTILE_VALUES += ["2023-01-01T00:00:00+99:99", "[" * 8000, '{"a":' * 2000, "%", "%zz", "%ff"]
KNOWN_KEYS = [
    "permissions",
    "posix_owner",
    "posix_group",
    "owner",
    "group",
    "modtime",
    "mtime",
    "posix_atime",
]
KNOWN_KEYS += [
    "posix_ctime",
    "posix_rdev",
    "hdi_isfolder",
    "is_symlink",
    "is_fifo",
    "is_socket",
    "is_char_dev",
]
KNOWN_KEYS += [
    "is_block_dev",
    "blobxfer_metadata",
    "linux_statx_mask",
    "xattr_",
    "xattr_a",
    "xattr__00",
    "xattr__zz",
]

TYPES_WITHOUT_BYTES = [stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]
IS_DEVICE = (stat.S_IFCHR, stat.S_IFBLK)

ids = st.integers(0, 2**32 - 2)
times_ns = st.integers(-(2**63) * 10**9, 2**63 * 10**9 - 1)
xattr_names = st.text(min_size=1, max_size=40).filter(lambda name: "\0" not in name)


@st.composite
def attributes(draw):
    file_type = draw(st.sampled_from([stat.S_IFREG, stat.S_IFLNK, *TYPES_WITHOUT_BYTES]))
    return Attributes(
        mode=file_type | draw(st.integers(0, 0o7777)),
        uid=draw(ids),
        gid=draw(ids),
        mtime_ns=draw(times_ns),
        ctime_ns=draw(times_ns),
        atime_ns=draw(times_ns),
        rdev=draw(st.integers(0, 2**32 - 1)) if file_type in IS_DEVICE else 0,
        xattrs=draw(st.dictionaries(xattr_names, st.binary(), max_size=3)),
    )


hostile_metadata = st.dictionaries(
    st.sampled_from(KNOWN_KEYS) | ANY_TEXT, st.sampled_from(HOSTILE_VALUES) | ANY_TEXT, max_size=12
)
# What a blob can really carry: the service accepts only C identifiers.
foreign_metadata = st.dictionaries(
    st.sampled_from(KNOWN_KEYS) | st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True),
    st.sampled_from(HOSTILE_VALUES) | ANY_TEXT,
    max_size=6,
)


def blob(metadata=(), size_bytes=0, name="a"):
    return BlobInfo(name, "etag", size_bytes, MODIFIED_NS, metadata=dict(metadata))


def read(metadata=(), size_bytes=0, name="a"):
    return attributes_of(blob(metadata, size_bytes, name), DEFAULTS)


def size_of(stored):
    return 10 if stored.is_regular or stored.is_symlink else 0


@given(
    attributes(), foreign_metadata, st.sampled_from([str, str.lower, str.upper, str.title, str.capitalize])
)
def test_attributes_survive_the_store_whatever_it_does_to_the_case_of_keys(stored, foreign, respell):
    metadata = {respell(key): value for key, value in metadata_of(stored, foreign).items()}
    assert read(metadata, size_of(stored)) == stored


@given(attributes(), foreign_metadata)
def test_storing_twice_is_storing_once(stored, foreign):
    once = metadata_of(stored, foreign)
    assert metadata_of(stored, once) == once


@given(attributes())
def test_written_keys_are_identifiers_and_written_values_printable_without_spaces(stored):
    for key, value in metadata_of(stored, {}).items():
        assert re.fullmatch(r"[a-z_][a-z0-9_]*", key)
        assert re.fullmatch(r"[!-~]*", value)


@given(hostile_metadata, st.sampled_from([0, 1]), st.sampled_from(["a", "a/"]))
def test_any_metadata_gives_attributes_that_posix_could_hold(metadata, size_bytes, name):
    found = read(metadata, size_bytes, name)
    assert stat.S_IFMT(found.mode) in (stat.S_IFREG, stat.S_IFLNK, *TYPES_WITHOUT_BYTES)
    assert found.mode <= 0o177777
    assert 0 <= found.uid < 2**32 - 1
    assert 0 <= found.gid < 2**32 - 1
    assert 0 <= found.rdev < 2**32
    for time_ns in (found.mtime_ns, found.ctime_ns, found.atime_ns):
        assert -(2**63) <= time_ns // 10**9 < 2**63


@st.composite
def nearly_plain_metadata(draw):
    """Just what is written for a file or directory, which is read a short way; or all of it but one value."""
    mode = draw(st.sampled_from([stat.S_IFREG, stat.S_IFDIR])) | draw(st.integers(0, 0o7777))
    metadata = metadata_of(draw(attributes())._replace(mode=mode, xattrs={}, rdev=0), {})
    changed = draw(st.sampled_from(["", "hdi_isfolder", *metadata]))
    return (
        {**metadata, changed: draw(st.sampled_from(["true", "16877", *HOSTILE_VALUES]))}
        if changed
        else metadata
    )


@settings(max_examples=500)
@given(nearly_plain_metadata() | hostile_metadata, st.sampled_from([0, 1]), st.sampled_from(["a", "a/"]))
def test_a_key_that_means_nothing_changes_nothing(metadata, size_bytes, name):
    assert read({**metadata, "means": "nothing"}, size_bytes, name) == read(metadata, size_bytes, name)


@given(hostile_metadata, st.sampled_from([0, 1]), st.sampled_from(["a", "a/"]))
def test_a_marker_is_what_reads_as_a_directory(metadata, size_bytes, name):
    info = blob(metadata, size_bytes, name)
    assert is_directory_marker(info) == attributes_of(info, DEFAULTS).is_directory


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Za-z0-9_]{0,9}Tag", fullmatch=True), ANY_TEXT), attributes())
def test_metadata_that_says_nothing_of_attributes_is_kept_as_it_is_spelled(foreign, stored):
    assert foreign.items() <= metadata_of(stored, foreign).items()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("owner", "alice"),
        ("Group", "physics"),
        ("blobxfer_metadata", '{"VectoredIO": {}}'),
        ("posix_ino", "12"),
        ("linux_btime", "1"),
        ("xattr__zz", "1"),
        ("xattr_", "1"),
        ("xattr_x", "é"),
        ("hdi_permission", "755"),
    ],
)
def test_tags_that_only_look_like_attributes_are_kept(key, value):
    assert metadata_of(PLAIN, {key: value})[key] == value


@pytest.mark.parametrize(
    "foreign",
    [
        {"Permissions": "33188"},
        {"MODTIME": "1"},
        {"hdi_isFolder": "true"},
        {"owner": "1000", "Group": "100"},
        {"Mtime": "2023-11-14T22:13:20Z"},
        {"linux_statx_mask": "0"},
        {"Xattr_Colour": "red"},
    ],
)
def test_what_would_contradict_the_stored_attributes_is_replaced(foreign):
    assert metadata_of(PLAIN, foreign) == metadata_of(PLAIN, {})


def test_a_file_is_stored_with_everything_azcopy_restores():
    stored = Attributes(0o100640, 1000, 100, mtime_ns=1, ctime_ns=2, atime_ns=3, rdev=5)
    assert metadata_of(stored, {}) == {
        "permissions": "33184",
        "posix_owner": "1000",
        "posix_group": "100",
        "modtime": "1",
        "posix_ctime": "2",
        "posix_atime": "3",
    }


@pytest.mark.parametrize(
    ("file_type", "key"),
    [
        (stat.S_IFDIR, "hdi_isfolder"),
        (stat.S_IFLNK, "is_symlink"),
        (stat.S_IFIFO, "is_fifo"),
        (stat.S_IFSOCK, "is_socket"),
        (stat.S_IFCHR, "is_char_dev"),
        (stat.S_IFBLK, "is_block_dev"),
    ],
)
def test_every_other_type_is_marked_by_its_key(file_type, key):
    special = metadata_of(Attributes(file_type | 0o600, 0, 0, 1, 2, 3), {})
    assert special[key] == "true"
    assert special.keys() - metadata_of(PLAIN, {}).keys() <= {key, "posix_rdev"}
    assert ("posix_rdev" in special) == (file_type in IS_DEVICE)


@pytest.mark.parametrize(
    ("metadata", "file_type"),
    [
        ({"is_symlink": "true", "is_char_dev": "true"}, stat.S_IFLNK),
        ({"is_socket": "true", "hdi_isfolder": "true"}, stat.S_IFSOCK),
        ({"is_block_dev": "true", "is_char_dev": "true", "hdi_isfolder": "true"}, stat.S_IFBLK),
        ({"permissions": str(0o120777), "is_char_dev": "true"}, stat.S_IFCHR),
        ({"permissions": str(0o100644), "Hdi_IsFolder": "True"}, stat.S_IFDIR),
        ({"permissions": str(0o010644)}, stat.S_IFIFO),
        ({"permissions": str(0o644)}, stat.S_IFREG),
        ({"permissions": str(0o170644)}, stat.S_IFREG),
        ({"hdi_isfolder": "false"}, stat.S_IFREG),
        ({}, stat.S_IFREG),
    ],
)
def test_a_key_decides_the_type_then_the_mode(metadata, file_type):
    assert stat.S_IFMT(read(metadata).mode) == file_type


@pytest.mark.parametrize("key", ["hdi_isfolder", "is_fifo", "is_socket", "is_char_dev", "is_block_dev"])
def test_a_blob_with_bytes_is_never_hidden_behind_another_type(key):
    assert read({key: "true"}, size_bytes=1).is_regular
    assert not is_directory_marker(blob({key: "true"}, size_bytes=1))


def test_a_symlink_keeps_its_target_as_bytes():
    assert read({"is_symlink": "true"}, size_bytes=1).is_symlink
    assert read({"permissions": str(0o120777), "is_char_dev": "true"}, size_bytes=1).is_symlink


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (blob({"hdi_isfolder": "true"}), True),
        (blob({"Hdi_isfolder": "TRUE"}), True),
        (blob(name="a/"), True),
        (blob({"permissions": "33188"}, name="a/"), True),
        (blob({"hdi_isfolder": "1"}), False),
        (blob({"hdi_isfolder": "true"}, size_bytes=1), False),
        (blob(name="a/", size_bytes=1), False),
        (blob(), False),
    ],
)
def test_a_directory_marker_is_empty_and_says_so_in_its_metadata_or_name(info, expected):
    assert is_directory_marker(info) is expected


def test_a_blob_without_metadata_has_the_default_attributes():
    assert read(size_bytes=1) == Attributes(0o100640, 1000, 100, MODIFIED_NS, MODIFIED_NS, MODIFIED_NS)


@pytest.mark.parametrize(
    ("key", "mode"), [("hdi_isfolder", 0o040750), ("is_symlink", 0o120777), ("is_fifo", 0o010640)]
)
def test_without_a_stored_mode_the_default_fits_the_type(key, mode):
    assert read({key: "true"}).mode == mode


def test_defaults_follow_the_umask():
    assert Defaults.for_umask(1, 2, 0o027) == Defaults(1, 2, 0o100640, 0o040750)


def test_missing_times_follow_from_those_that_are_there():
    found = read({"modtime": "5"})
    assert (found.mtime_ns, found.atime_ns, found.ctime_ns) == (5, 5, MODIFIED_NS)


def test_the_first_nanosecond_of_1970_is_a_time_like_any_other():
    found = read({"modtime": "0", "posix_ctime": "0", "posix_atime": "0"})
    assert (found.mtime_ns, found.atime_ns, found.ctime_ns) == (0, 0, 0)


@pytest.mark.parametrize("value", HOSTILE_VALUES)
@pytest.mark.parametrize("key", ["permissions", "posix_owner", "posix_group", "modtime"])
def test_a_malformed_value_spoils_no_other(key, value):
    sound = metadata_of(Attributes(0o100600, 7, 8, mtime_ns=9, ctime_ns=10, atime_ns=11), {})
    spoiled = read(sound | {key: value}, size_bytes=1)
    expected = {"permissions": spoiled.mode, "posix_owner": spoiled.uid}
    expected |= {"posix_group": spoiled.gid, "modtime": spoiled.mtime_ns}
    del expected[key]
    assert (
        expected.items()
        <= {"permissions": 0o100600, "posix_owner": 7, "posix_group": 8, "modtime": 9}.items()
    )


@pytest.mark.parametrize(
    "value", ["4294967295", "4294967296", "-1", "٣", "1.0", "0x10", "1_0", " 1", "1\n", ""]
)
def test_an_owner_no_file_can_have_counts_as_absent(value):
    assert read({"posix_owner": value}).uid == DEFAULTS.uid


@pytest.mark.parametrize("value", [str(2**63 * 10**9), str(-(2**63) * 10**9 - 1), "1.5", "NaN", "1 000"])
def test_a_time_no_timespec_can_hold_counts_as_absent(value):
    assert read({"modtime": value}).mtime_ns == MODIFIED_NS


def test_only_device_nodes_have_a_device_number():
    assert read({"posix_rdev": "259", "is_char_dev": "true"}).rdev == 259
    assert read({"posix_rdev": "259"}).rdev == 0


def test_a_device_number_the_kernel_would_cut_short_counts_as_absent():
    assert read({"posix_rdev": str(2**32 - 1), "is_block_dev": "true"}).rdev == 2**32 - 1
    assert read({"posix_rdev": str(2**32), "is_block_dev": "true"}).rdev == 0


def test_metadata_up_to_the_limit_of_the_service_fits():
    check_size({"key": "v" * (MAX_METADATA_BYTES - 3)})
    with pytest.raises(NoSpace):
        check_size({"key": "v" * (MAX_METADATA_BYTES - 2)})
