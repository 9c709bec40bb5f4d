"""The MD5 of a whole file, for files that are written in order."""

import threading
from collections import deque
from collections.abc import Callable

from blobfs.blocks import Md5, md5_hash
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

    def see_first(self, length: int) -> Callable[[Md5], None] | None:
        """Leave hashing the file's first bytes to the caller, who needs their MD5 anyway.

        Returns a function that must be given the hash, from any thread, before `digest` is called;
        None if those bytes were seen before, or the file's MD5 is not wanted.
        """
        if not self._is_wanted or self._seen_bytes:
            return None
        self._chain, self._seen_bytes = _Chain(self._transfers, None), length
        return self._chain.begin

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
        self._chain = _Chain(self._transfers, md5_hash(content))
        self._seen_bytes, self._is_broken = len(content), False
        return self._chain.digest()

    def digest(self, size_bytes: int) -> bytes | None:
        """Return the MD5 of the whole file, None if not all its bytes were seen. Waits for the hashing."""
        if self._is_broken or self._seen_bytes != size_bytes:
            return None
        return self._needed_chain().digest()

    def _needed_chain(self) -> "_Chain":
        if self._chain is None:
            self._chain = _Chain(self._transfers, md5_hash(b""))
        return self._chain


class _Chain:
    """Hashes stretches one after the other, in one thread of the write pool while there are any."""

    def __init__(self, transfers: Transfers, begun: Md5 | None) -> None:
        """Go on from a hash; without one, wait for `begin`."""
        self._transfers = transfers
        self._hash = begun
        self._lock = threading.Lock()  # guards the two fields below
        self._waiting: deque[tuple[Buffer, int, int]] = deque()
        self._is_running = begun is None
        self._first_run: Transfer | None = None  # begun in the thread that stages the first block
        self._run: Transfer | None = None

    def begin(self, begun: Md5) -> None:
        """Go on from this hash, which nobody else may change any more."""
        self._hash = begun
        with self._lock:
            self._is_running = bool(self._waiting)
            must_start = self._is_running
        if must_start:
            self._first_run = self._transfers.submit_write(self._hash_waiting, begun)

    def add(self, buffer: Buffer, start: int, end: int) -> None:
        """Hash this stretch of a buffer, too."""
        with self._lock:
            self._waiting.append((buffer, start, end))
            begun = self._hash if not self._is_running else None
            self._is_running = True
        if begun is not None:
            self._run = self._transfers.submit_write(self._hash_waiting, begun)

    def digest(self) -> bytes:
        """Wait until everything is hashed, and return the MD5."""
        for run in (self._first_run, self._run):
            if run is not None:
                run.result()
        assert self._hash is not None
        return self._hash.digest()

    def _hash_waiting(self, begun: Md5) -> None:
        while (stretch := self._next()) is not None:
            buffer, start, end = stretch
            begun.update(buffer.view[start:end])

    def _next(self) -> tuple[Buffer, int, int] | None:
        with self._lock:
            self._is_running = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None
