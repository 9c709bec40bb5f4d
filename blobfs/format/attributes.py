"""File attributes and blob metadata, each way. Pure: no I/O, no clock.

Written are the keys of AzCopy's standard style. AzCopy reads them back all or nothing, and takes an
absent mode, owner or time for zero (its common/unixStatAdapter.go), so the first six are always there:

    permissions                  st_mode, type bits included, decimal
    posix_owner, posix_group     decimal
    modtime, posix_atime, posix_ctime    nanoseconds since 1970, decimal
    hdi_isfolder, is_symlink, is_fifo, is_socket, is_char_dev, is_block_dev    "true" for that type
    posix_rdev                   of device nodes, decimal
    xattr_*                      see `blobfs.format.xattrs`

Read are the styles in `blobfs.format.dialects` as well. Metadata is anybody's to write: a value that does not
parse, or that POSIX could not hold, counts as absent; the others still count.
"""

import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from blobfs.blocks import MAX_METADATA_BYTES
from blobfs.errors import NoSpace
from blobfs.format import xattrs
from blobfs.format.dialects import date_ns, is_lustre_id, standard_tags
from blobfs.store import BlobInfo

# In this order, because AzCopy compares type bits with a mask and so also marks a symlink as a
# character device, a socket as a directory, and a block device as both.
_TYPE_KEYS = {
    "is_symlink": stat.S_IFLNK,
    "is_socket": stat.S_IFSOCK,
    "is_block_dev": stat.S_IFBLK,
    "hdi_isfolder": stat.S_IFDIR,
    "is_char_dev": stat.S_IFCHR,
    "is_fifo": stat.S_IFIFO,
}
_KEY_OF_TYPE = {file_type: key for key, file_type in _TYPE_KEYS.items()}
_TYPES_WITH_BYTES = (stat.S_IFREG, stat.S_IFLNK)
_DEVICE_TYPES = (stat.S_IFCHR, stat.S_IFBLK)

_ALWAYS_THERE = ("permissions", "posix_owner", "posix_group", "modtime", "posix_ctime", "posix_atime")
_values_always_there = itemgetter(*_ALWAYS_THERE)
_VALUE_KEYS = {"permissions", "posix_owner", "posix_group", "posix_rdev"}
_TIME_KEYS = {"modtime", "posix_atime", "posix_ctime"}
# Never kept: rclone's time would be stale, and AzCopy's mask make it ignore some of our values.
_CONTRADICTING_KEYS = {"mtime", "linux_statx_mask"}
_OWN_KEYS = _VALUE_KEYS | _TIME_KEYS | _TYPE_KEYS.keys() | _CONTRADICTING_KEYS

NO_XATTRS: Mapping[str, bytes] = {}

_MODES_END = 0o200000
_IDS_END = 2**32 - 1  # the last value means "leave it" to chown
_DEVICES_END = 2**32  # the kernel's encoding of major and minor numbers
_TIMES_END_NS = 2**63 * 10**9  # the seconds of a struct timespec

_NATURAL = re.compile(r"[0-9]{1,10}")
_OCTAL_MODE = re.compile(r"0+1?[0-7]{0,5}")  # below _MODES_END
_NANOSECONDS = re.compile(r"-?[0-9]{1,28}")


@dataclass(frozen=True, slots=True)
class Defaults:
    """The attributes of blobs that carry none, and of directories without a marker."""

    uid: int
    gid: int
    file_mode: int  # type bits included
    directory_mode: int

    @classmethod
    def for_umask(cls, uid: int, gid: int, umask: int) -> "Defaults":
        """Return what creating a file and a directory under this umask would give."""
        return cls(uid, gid, stat.S_IFREG | 0o666 & ~umask, stat.S_IFDIR | 0o777 & ~umask)


class Attributes(NamedTuple):
    """What POSIX keeps about a file besides its name, size and bytes. A tuple, as BlobInfo is one."""

    mode: int  # st_mode, type bits included
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    rdev: int = 0  # of device nodes
    xattrs: Mapping[str, bytes] = NO_XATTRS  # names without "user."

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether this is a symbolic link, whose target is the blob's bytes."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether this is a plain file."""
        return stat.S_ISREG(self.mode)


def changed_at(metadata: Mapping[str, str], time_ns: int) -> Mapping[str, str]:
    """Return the metadata of a file that was changed at that time; its mtime stays."""
    return {**metadata, "posix_ctime": str(time_ns)}


def written_at(metadata: Mapping[str, str], time_ns: int) -> Mapping[str, str]:
    """Return the metadata of a file whose bytes were changed at that time."""
    return {**changed_at(metadata, time_ns), "modtime": str(time_ns)}


def attributes_of(info: BlobInfo, defaults: Defaults) -> Attributes:
    """Return the attributes of a blob, whoever wrote it. Raises nothing, whatever the metadata says."""
    return _plain_attributes(info, defaults) or _any_attributes(info, defaults)


def _plain_attributes(info: BlobInfo, defaults: Defaults) -> Attributes | None:
    """Return those of a blob with no metadata, or with just what we write for a file or directory.

    None for all others. Most of what is listed is so, and this takes a third of the time.
    """
    metadata = info.metadata
    if info.name.endswith("/"):
        return None
    if not metadata:
        time_ns, file_mode = info.modified_ns, stat.S_IFREG | stat.S_IMODE(defaults.file_mode)
        return Attributes(file_mode, defaults.uid, defaults.gid, time_ns, time_ns, time_ns)
    is_marker = not info.size_bytes and metadata.get("hdi_isfolder") == "true"
    if len(metadata) != len(_ALWAYS_THERE) + is_marker:
        return None
    try:
        permissions, owner, group, mtime, ctime, atime = _values_always_there(metadata)
    except KeyError:
        return None
    mode, uid, gid = _stored_mode(permissions), _user_or_group(owner), _user_or_group(group)
    mtime_ns, ctime_ns, atime_ns = _time_ns(mtime), _time_ns(ctime), _time_ns(atime)
    if mode is None or stat.S_IFMT(mode) != (stat.S_IFDIR if is_marker else stat.S_IFREG):
        return None
    if uid is None or gid is None or mtime_ns is None or ctime_ns is None or atime_ns is None:
        return None
    return Attributes(mode, uid, gid, mtime_ns, ctime_ns, atime_ns)


def _any_attributes(info: BlobInfo, defaults: Defaults) -> Attributes:
    tags = standard_tags(info.metadata)
    mode = _mode(tags, info, defaults)
    is_device = stat.S_IFMT(mode) in _DEVICE_TYPES
    other_mtime_ns = _value(tags, "mtime", _time_ns, info.modified_ns)
    mtime_ns = _value(tags, "modtime", _time_ns, other_mtime_ns)
    return Attributes(
        mode=mode,
        uid=_value(tags, "posix_owner", _user_or_group, defaults.uid),
        gid=_value(tags, "posix_group", _user_or_group, defaults.gid),
        mtime_ns=mtime_ns,
        ctime_ns=_value(tags, "posix_ctime", _time_ns, info.modified_ns),
        atime_ns=_value(tags, "posix_atime", _time_ns, mtime_ns),
        rdev=_value(tags, "posix_rdev", _device, 0) if is_device else 0,
        xattrs=xattrs.decode_all(tags),
    )


def is_directory_marker(info: BlobInfo) -> bool:
    """Tell whether a blob only says that a directory exists, as `attributes_of` would.

    Some tools mark one by a zero-byte blob whose name ends in ``/``, without metadata.
    """
    return info.size_bytes == 0 and _file_type(standard_tags(info.metadata), info) == stat.S_IFDIR


def metadata_of(attributes: Attributes, foreign: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata to store: the attributes, and all of `foreign` that does not describe them.

    `foreign` is what the blob carried before; its keys stay spelled as they are.
    Raises InvalidArgument for the name of an extended attribute that cannot be one.
    """
    kept = {key: value for key, value in foreign.items() if not _is_own(key.lower(), value)}
    return kept | _own_metadata(attributes)


def check_size(metadata: Mapping[str, str]) -> None:
    """Raise NoSpace for more metadata than the service keeps with a blob."""
    size_bytes = sum(len(key) + len(value) for key, value in metadata.items())
    if size_bytes > MAX_METADATA_BYTES:
        raise NoSpace(f"{size_bytes} bytes of metadata, and a blob keeps at most {MAX_METADATA_BYTES}")


def _own_metadata(attributes: Attributes) -> dict[str, str]:
    metadata = {
        "permissions": str(attributes.mode),
        "posix_owner": str(attributes.uid),
        "posix_group": str(attributes.gid),
        "modtime": str(attributes.mtime_ns),
        "posix_atime": str(attributes.atime_ns),
        "posix_ctime": str(attributes.ctime_ns),
    }
    file_type = stat.S_IFMT(attributes.mode)
    if file_type in _KEY_OF_TYPE:
        metadata[_KEY_OF_TYPE[file_type]] = "true"
    if file_type in _DEVICE_TYPES:
        metadata["posix_rdev"] = str(attributes.rdev)
    return metadata | xattrs.encode(attributes.xattrs)


def _is_own(key: str, value: str) -> bool:
    # Beside the Lustre style's ids our decimal mode would be read as octal.
    return key in _OWN_KEYS or is_lustre_id(key, value) or xattrs.decode(key, value) is not None


def _mode(tags: Mapping[str, str], info: BlobInfo, defaults: Defaults) -> int:
    file_type = _file_type(tags, info)
    mode = _value(tags, "permissions", _stored_mode, _default_mode(file_type, defaults))
    return file_type | stat.S_IMODE(mode)


def _default_mode(file_type: int, defaults: Defaults) -> int:
    if file_type == stat.S_IFDIR:
        return defaults.directory_mode
    return 0o777 if file_type == stat.S_IFLNK else defaults.file_mode


def _file_type(tags: Mapping[str, str], info: BlobInfo) -> int:
    """Return the type bits. A key's word counts before the mode's.

    A blob with bytes is a file or a symlink whatever its metadata says, so that no data is hidden.
    """
    claims = [stat.S_IFDIR] if info.name.endswith("/") else []
    claims += [bits for key, bits in _TYPE_KEYS.items() if key in tags and tags[key].lower() == "true"]
    claims.append(stat.S_IFMT(_value(tags, "permissions", _stored_mode, 0)))
    possible = _TYPES_WITH_BYTES if info.size_bytes else _KEY_OF_TYPE
    for bits in claims:
        if bits in possible:
            return bits
    return stat.S_IFREG


def _value(tags: Mapping[str, str], key: str, parse: Callable[[str], int | None], default: int) -> int:
    """Return what the key's text means; the default if there is none or it means nothing."""
    value = parse(tags[key]) if key in tags else None
    return default if value is None else value


# Files of one tree have few modes, owners and groups.
@lru_cache(1024)
def _stored_mode(text: str) -> int | None:
    if text.startswith("0"):
        return int(text, 8) if _OCTAL_MODE.fullmatch(text) else None
    return _natural(text, _MODES_END)


@lru_cache(1024)
def _user_or_group(text: str) -> int | None:
    return _natural(text, _IDS_END)


def _device(text: str) -> int | None:
    return _natural(text, _DEVICES_END)


def _natural(text: str, end: int) -> int | None:
    value = int(text) if _NATURAL.fullmatch(text) else end
    return value if value < end else None


def _time_ns(text: str) -> int | None:
    """Parse nanoseconds since 1970, or a date."""
    if not _NANOSECONDS.fullmatch(text):
        return date_ns(text)
    time_ns = int(text)
    return time_ns if -_TIMES_END_NS <= time_ns < _TIMES_END_NS else None
