"""The HTTP headers of a new blob, guessed from its name. Pure: no I/O, no clock."""

import mimetypes
from functools import lru_cache

from blobfs.store import ContentHeaders

DEFAULT_CONTENT_TYPE = "application/octet-stream"


@lru_cache
def guessed_headers(name: str) -> ContentHeaders:
    """Return the headers for a new blob of this name."""
    content_type, encoding = mimetypes.guess_type(name, strict=False)
    if encoding is not None or content_type is None:
        # A .tar.gz is stored as it is: with a Content-Encoding, browsers would unpack it.
        content_type = DEFAULT_CONTENT_TYPE
    return ContentHeaders(content_type=content_type)
