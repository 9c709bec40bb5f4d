"""The MD5 of a whole file, for files that are written in order."""

import hashlib


class WholeMd5:
    """The MD5 of a file as long as it is written from start to end; unknown once it is not."""

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)
        self._position = 0
        self._broken = False

    def update(self, offset: int, data: memoryview) -> None:
        """Hash bytes that follow on the last ones; any others end the chain."""
        if self._broken or offset != self._position:
            self._broken = True
            return
        self._hash.update(data)
        self._position += len(data)

    def cut(self, size_bytes: int) -> None:
        """Take note that the file was truncated."""
        self._broken = self._broken or size_bytes < self._position

    def digest(self, size_bytes: int) -> bytes | None:
        """Return the MD5 of the whole file, None if not all its bytes were seen in order."""
        if self._broken or self._position != size_bytes:
            return None
        return self._hash.digest()
