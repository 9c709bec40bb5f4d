"""What the service says of a blob, asked before anybody needs it and kept for who does."""

from blobfs.filesystem.volume import Answer, Volume
from blobfs.store import BlobInfo
from blobfs.transfers import Transfer
from blobfs.waits import Waits


class AskedAhead:
    """Asks in the background, and only while there is memory to spare. For any thread."""

    def __init__(self, volume: Volume, waits: Waits) -> None:
        self._volume = volume
        self._waits = waits
        self._now = volume.namespace.cache.now

    def ask(self, name: str, known: BlobInfo | None, first_bytes: int) -> Transfer:
        """Ask what a blob is now, and for its first bytes; `known` is what it was, if anything is known."""
        return self._volume.transfers.submit_read(self._ask, name, known, first_bytes)

    def list(self, prefix: str) -> Transfer:
        """List a directory again; the result tells whether one request was enough for that."""
        return self._volume.transfers.submit_read(self._volume.namespace.list_again, prefix)

    def answer(self, asked: Transfer, *, within_seconds: float) -> Answer | None:
        """Return the answer, None if there is none or it was asked for longer ago.

        Waits for a request that is under way; one that was not begun is given up: the caller asks
        sooner than it. Raises Abandoned.
        """
        if not self.has_come(asked):
            return None
        answer: Answer | None = asked.result()
        in_time = answer is not None and self._now() - answer.asked_at < within_seconds
        return answer if in_time else None

    def has_come(self, asked: Transfer) -> bool:
        """Wait for a request that is under way; tell whether it succeeded.

        One that was not begun is given up. Raises Abandoned.
        """
        if asked.cancel():
            return False
        self._waits.wait_to_hear(asked.add_done_callback)
        return asked.exception() is None  # otherwise the caller asks again, and is told

    def _ask(self, name: str, known: BlobInfo | None, first_bytes: int) -> Answer | None:
        asked_at, last_write = self._now(), self._volume.store.last_write(name)
        info: BlobInfo | None
        if known is None:
            info = self._volume.first_bytes.discover_if_memory(name, first_bytes)
        elif known.size_bytes:
            info = self._volume.first_bytes.refresh_if_memory(known, first_bytes)
        else:
            info = self._volume.store.head(name)
        return Answer(info, last_write, asked_at) if info is not None else None
