"""Tells the kernel to forget a file's attributes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

MOST_SECONDS = 1.0  # much longer than it takes when nothing is waited for


class Notifier:
    """Calls the kernel in a thread of its own, and waits at most `most_seconds` for that.

    The kernel drops the file's pages, too, and waits for those that are being read. libfuse's own threads
    must not wait for that without end, because they are the ones that serve those reads.
    """

    def __init__(self, *, most_seconds: float = MOST_SECONDS) -> None:
        self._most_seconds = most_seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="blobfs-notify")  # starts with the first call

    def forget(self, notify: Callable[[], object]) -> bool:
        """Call `notify`, and tell whether that was done in time; if not, it will be. Blocks."""
        try:
            told = self._pool.submit(notify)
        except RuntimeError:  # the machine gives no thread now; one that the next call starts does this, too
            return False
        return bool(wait([told], timeout=self._most_seconds).done)

    def close(self) -> None:
        """Wait for the call that is under way, and end the thread."""
        self._pool.shutdown(cancel_futures=True)
