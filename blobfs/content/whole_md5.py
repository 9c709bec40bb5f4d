"""The MD5 of a whole file, for files that are written in order."""

import hashlib
import threading
from collections import deque

from blobfs.content.memory import Buffer
from blobfs.transfers import Transfer, Transfers


class WholeMd5:
    """The MD5 of a file whose stretches come by in order; unknown once something else happened.

    Hashing is done in the background. Not thread-safe.
    """

    def __init__(self, transfers: Transfers, *, is_wanted: bool) -> None:
        self._transfers = transfers
        self._is_wanted = is_wanted
        self._chain: _Chain | None = None  # made when it is needed: small files are hashed at once
        self._seen_bytes = 0
        self._is_broken = False

    def see(self, start: int, buffer: Buffer, length: int) -> None:
        """Hash what the buffer holds of the file at `start`, as far as it follows on what was seen.

        The buffer must not change before `forget_from` was told of it.
        """
        seen, end = self._seen_bytes, start + length
        if self._is_wanted and not self._is_broken and start <= seen < end:
            self._needed_chain().add(buffer, seen - start, length)
            self._seen_bytes = end

    def forget_from(self, offset: int) -> None:
        """Take note that bytes from `offset` on change or go."""
        if offset >= self._seen_bytes:
            return
        if offset:
            self._is_broken = True
        else:
            self._chain, self._seen_bytes, self._is_broken = None, 0, False

    def restart(self, content: memoryview | bytes) -> bytes:
        """Take note that this is the whole file now, and return its MD5."""
        self._chain = _Chain(self._transfers, content)
        self._seen_bytes, self._is_broken = len(content), False
        return self._chain.digest()

    def digest(self, size_bytes: int) -> bytes | None:
        """Return the MD5 of the whole file, None if not all its bytes were seen. Waits for the hashing."""
        if self._is_broken or self._seen_bytes != size_bytes:
            return None
        return self._needed_chain().digest()

    def _needed_chain(self) -> "_Chain":
        if self._chain is None:
            self._chain = _Chain(self._transfers)
        return self._chain


class _Chain:
    """Hashes stretches one after the other, in one thread of the write pool while there are any."""

    def __init__(self, transfers: Transfers, content: memoryview | bytes = b"") -> None:
        self._transfers = transfers
        self._hash = hashlib.md5(content, usedforsecurity=False)
        self._lock = threading.Lock()  # guards the two fields below
        self._waiting: deque[tuple[Buffer, int, int]] = deque()
        self._is_running = False
        self._run: Transfer | None = None

    def add(self, buffer: Buffer, start: int, end: int) -> None:
        """Hash this stretch of a buffer, too."""
        with self._lock:
            self._waiting.append((buffer, start, end))
            must_start = not self._is_running
            self._is_running = True
        if must_start:
            self._run = self._transfers.submit_write(self._hash_waiting)

    def digest(self) -> bytes:
        """Wait until everything is hashed, and return the MD5."""
        if self._run is not None:
            self._run.result()
        return self._hash.digest()

    def _hash_waiting(self) -> None:
        while (stretch := self._next()) is not None:
            buffer, start, end = stretch
            self._hash.update(buffer.view[start:end])

    def _next(self) -> tuple[Buffer, int, int] | None:
        with self._lock:
            self._is_running = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None
