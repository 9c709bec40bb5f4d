"""What other tools wrote, as the filesystem sees it."""

import json
import stat

import pytest

from blobfs.format.attributes import Defaults, attributes_of, metadata_of
from blobfs.store import BlobInfo

MODIFIED_NS = 1_700_000_000 * 10**9
DEFAULTS = Defaults(uid=1000, gid=100, file_mode=0o100640, directory_mode=0o040750)


def read(metadata, size_bytes=1):
    return attributes_of(BlobInfo("a", "etag", size_bytes, MODIFIED_NS, metadata=metadata), DEFAULTS)


def blobxfer(posix):
    return {"blobxfer_metadata": json.dumps({"FileAttributes": {"POSIX": posix}})}


def test_azcopy_standard_style_is_read():
    found = read(
        {
            "permissions": "33184",
            "posix_owner": "1001",
            "posix_group": "1002",
            "modtime": "1795342853123456789",
            "posix_atime": "1795342854000000000",
            "posix_ctime": "1795342855000000000",
            "posix_nlink": "1",
            "posix_ino": "77",
            "linux_statx_mask": "4095",
        }
    )
    assert (found.mode, found.uid, found.gid) == (0o100640, 1001, 1002)
    assert (found.mtime_ns, found.atime_ns, found.ctime_ns) == (
        1795342853123456789,
        1795342854000000000,
        1795342855000000000,
    )


def test_azcopy_lustre_style_is_read():
    found = read(
        {"permissions": "0640", "owner": "1001", "group": "1002", "modtime": "2026-11-22 10:20:53 +0000"}
    )
    assert (found.mode, found.uid, found.gid) == (0o100640, 1001, 1002)
    assert found.mtime_ns == 1795342853 * 10**9


@pytest.mark.parametrize(
    ("metadata", "permissions"),
    [
        ({"permissions": "0640"}, 0o640),
        ({"permissions": "0100640"}, 0o640),
        ({"permissions": "640", "owner": "0"}, 0o640),
        ({"permissions": "4755", "Group": "0"}, 0o4755),
        ({"permissions": "33184", "owner": "alice"}, 0o640),  # a user's tag does not make it octal
        ({"permissions": "416"}, 0o640),
        ({"permissions": "0"}, 0),
    ],
)
def test_permissions_are_octal_after_a_zero_or_beside_numeric_lustre_ids(metadata, permissions):
    assert read(metadata).mode == stat.S_IFREG | permissions


@pytest.mark.parametrize(
    "text", ["0888", "0200000", "65536", "99999", "rw-r--r--", "0o640", "-1", "\u0660640", "0" * 9000 + "9"]
)
def test_permissions_that_are_no_mode_count_as_absent(text):
    assert read({"permissions": text}).mode == DEFAULTS.file_mode


def test_storing_turns_the_lustre_style_into_the_standard_one():
    lustre = {"permissions": "0640", "owner": "1001", "group": "1002", "modtime": "2026-11-22 10:20:53 +0000"}
    stored = metadata_of(read(lustre), lustre)
    assert not stored.keys() & {"owner", "group"}
    assert read(stored) == read(lustre)


def test_blobxfer_json_is_read():
    found = read(blobxfer({"mode": "0o100600", "uid": 1001, "gid": 1002}))
    assert (found.mode, found.uid, found.gid) == (0o100600, 1001, 1002)


def test_standard_keys_are_newer_than_blobxfer_json():
    found = read({**blobxfer({"mode": "0o100600", "uid": 1001, "gid": 1002}), "posix_owner": "7"})
    assert (found.mode, found.uid, found.gid) == (0o100600, 7, 1002)


def test_each_field_of_blobxfer_json_stands_alone():
    found = read(blobxfer({"mode": "0o100600", "uid": 2**32 - 1}))
    assert (found.mode, found.uid, found.gid) == (0o100600, DEFAULTS.uid, DEFAULTS.gid)


@pytest.mark.parametrize(
    "posix",
    [
        {"mode": 33152, "uid": 1.0, "gid": True},
        {"mode": None, "uid": None, "gid": float("nan")},
        {"mode": ["0o600"], "uid": {"uid": 1}, "gid": -1},
        {"mode": "0o0o600", "uid": "1 ", "gid": ""},
        "mode uid gid",
        ["mode", "uid", "gid"],
        7,
        None,
    ],
)
def test_blobxfer_fields_of_the_wrong_shape_count_as_absent(posix):
    found = read(blobxfer(posix))
    assert (found.uid, found.gid) == (DEFAULTS.uid, DEFAULTS.gid)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"FileAttributes": null}',
        '{"FileAttributes": {"POSIX": {"uid": 1' + "0" * 5000 + "}}}",
        "[" * 100_000,
        '{"FileAttributes":' * 100_000,
        "NaN",
        '"POSIX"',
        "\ud800",
    ],
    ids=lambda text: text[:20].encode("unicode_escape").decode(),
)
def test_blobxfer_metadata_that_cannot_be_understood_counts_as_absent(text):
    assert read({"blobxfer_metadata": text}) == read({})


@pytest.mark.parametrize(
    ("text", "mtime_ns"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
        ("2023-11-14T22:13:20.5Z", 1_700_000_000_500_000_000),
        ("2023-11-15T00:13:20.000000001+02:00", 1_700_000_000_000_000_001),
        ("1969-12-31T23:59:59.25Z", -750_000_000),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140 * 10**9),
    ],
)
def test_rclone_dates_are_read_to_the_nanosecond(text, mtime_ns):
    assert read({"mtime": text}).mtime_ns == mtime_ns


@pytest.mark.parametrize(
    "text",
    [
        "2023-02-29T00:00:00Z",
        "2023-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2023-01-01T00:00:60Z",
        "2023-01-01T24:00:00Z",
        "2023-01-01T00:00:00",
        "2023-01-01",
        "2023-01-01T00:00:00.1234567890Z",
        "2023-01-01T00:00:00+24:00",
        "2023-01-01T00:00:00.Z",
        "\u0662023-01-01T00:00:00Z",
        "2023-01-01T::::::::Z",
        "",
    ],
)
def test_a_date_that_does_not_exist_counts_as_absent(text):
    assert read({"mtime": text}).mtime_ns == MODIFIED_NS


def test_a_sound_modtime_comes_before_mtime_and_a_malformed_one_after():
    assert read({"modtime": "5", "mtime": "2023-11-14T22:13:21Z"}).mtime_ns == 5
    assert read({"modtime": "yesterday", "mtime": "2023-11-14T22:13:21Z"}).mtime_ns == 1_700_000_001 * 10**9


def test_a_blobfuse_symlink_is_a_symlink():
    assert read({"Is_symlink": "true"}).mode == 0o120777
