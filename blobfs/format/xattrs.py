"""Extended attributes ``user.*`` and blob metadata, each way. Pure: no I/O, no clock.

The attribute ``user.NAME`` is kept as one metadata pair, which other tools and the portal show::

    user.colour = "dark blue"     xattr_colour = dark%20blue
    user.Mime_Type = "a/b"        xattr__4dime_5f_54ype = a/b

The key is ``xattr_`` and the bytes of NAME: ``a`` to ``z`` and ``0`` to ``9`` as they are, any other
byte as ``_`` and two hexadecimal digits, because metadata keys are C identifiers and services
and libraries change their case. The value is percent-encoded, so that it is printable ASCII without
spaces whatever the bytes were. A pair that does not follow these rules is another tool's: kept, not shown.
"""

import re
from collections.abc import Mapping
from string import ascii_lowercase, digits
from urllib.parse import quote, unquote_to_bytes

from blobfs.errors import InvalidArgument

MAX_NAME_BYTES = 250  # XATTR_NAME_MAX without "user."

_KEY_PREFIX = "xattr_"
_KEY = re.compile(_KEY_PREFIX + "((?:[a-z0-9]|_[0-9a-f]{2})+)")
_KEPT = (ascii_lowercase + digits).encode()
_KEY_TEXT = [chr(byte) if byte in _KEPT else f"_{byte:02x}" for byte in range(256)]
# Beside letters, digits and "_.-~". No quotes, "<", ">", "&" and "\": they mean something to
# shells, XML or header parsers on the way.
_SAFE_IN_VALUE = "!#$()*+,/:;=?@[]^{|}"


def encode(xattrs: Mapping[str, bytes]) -> dict[str, str]:
    """Return the metadata for attributes named without ``user.``. Raises InvalidArgument."""
    return {_key_of(name): quote(value, safe=_SAFE_IN_VALUE) for name, value in xattrs.items()}


def decode_all(tags: Mapping[str, str]) -> dict[str, bytes]:
    """Return the attributes behind those pairs that are ours, the keys in lower case."""
    ours = [decode(key, value) for key, value in tags.items() if key.startswith(_KEY_PREFIX)]
    return dict(filter(None, ours))


def decode(key: str, value: str) -> tuple[str, bytes] | None:
    """Return the attribute behind a pair whose key is in lower case; None if the pair is not one of ours."""
    match = _KEY.fullmatch(key)
    if match is None or not value.isascii():
        return None
    raw_name = unquote_to_bytes(match[1].replace("_", "%"))
    if not _is_possible(raw_name) or _key_text(raw_name) != match[1]:
        return None
    return raw_name.decode(errors="surrogateescape"), unquote_to_bytes(value)


def _key_of(name: str) -> str:
    raw_name = name.encode(errors="surrogateescape")
    if not _is_possible(raw_name):
        raise InvalidArgument(f"'user.{name}' cannot be the name of an extended attribute")
    return _KEY_PREFIX + _key_text(raw_name)


def _key_text(raw_name: bytes) -> str:
    return "".join([_KEY_TEXT[byte] for byte in raw_name])


def _is_possible(raw_name: bytes) -> bool:
    return 0 < len(raw_name) <= MAX_NAME_BYTES and 0 not in raw_name
