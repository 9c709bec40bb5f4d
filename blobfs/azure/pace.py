"""Replies that come too slowly end as timeouts, however often a byte arrives.

A socket's own timeout is for one byte. Here a reply has so long to begin, and from then on has to
bring a least number of bytes in every window of time.
"""

import io
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blobfs.azure.tls import Records
from blobfs.blocks import KiB
from blobfs.waits import GLANCE_SECONDS

LEAST_BYTES = 64 * KiB  # in each window; 6.5 KB/s with one of 10 seconds


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow a reply may be, and who is asked now and then whether it is still wanted."""

    window_seconds: float
    check_wanted: Callable[[], None]


def paced_file(
    sock: socket.socket, records: Records | None, pace: Pace, begin_seconds: float
) -> io.BufferedReader:
    """Return the receiving side of a socket, for one reply, which may take so long to begin.

    Reading raises TimeoutError when nothing or too little comes. Closing it leaves the socket open.
    """
    if records is None:
        return io.BufferedReader(_PacedReader(sock, pace, begin_seconds))
    return io.BufferedReader(_PacedTlsReader(sock, records, pace, begin_seconds))


class _PacedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, pace: Pace, begin_seconds: float) -> None:
        self._socket = sock
        self._pace = pace
        self._patience_seconds = begin_seconds
        self._window_ends_at = 0.0
        self._window_bytes = 0
        self._glance_seconds = min(GLANCE_SECONDS, begin_seconds)
        sock.settimeout(self._glance_seconds)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        """Receive once."""
        count = self._receive(into)
        now = time.monotonic()
        if not self._window_ends_at:
            self._patience_seconds = min(self._patience_seconds, self._pace.window_seconds)
            self._window_ends_at = now + self._patience_seconds
        self._window_bytes += count
        if now > self._window_ends_at:
            if count and self._window_bytes < LEAST_BYTES:
                raise TimeoutError("the reply came too slowly")
            self._window_ends_at, self._window_bytes = now + self._patience_seconds, 0
        return count

    def _receive(self, into: Any) -> int:
        ends_at = time.monotonic() + self._patience_seconds
        while (count := self._glance(into)) is None:
            self._pace.check_wanted()
            if time.monotonic() >= ends_at:
                raise TimeoutError("nothing came in time")
        return count

    def _glance(self, into: Any) -> int | None:
        """Return how much was received in a moment; None for nothing, and 0 at the end."""
        try:
            return self._socket.recv_into(into)
        except TimeoutError:
            return None


class _PacedTlsReader(_PacedReader):
    """Receives all records that are there."""

    def __init__(self, sock: socket.socket, records: Records, pace: Pace, begin_seconds: float) -> None:
        super().__init__(sock, pace, begin_seconds)
        sock.settimeout(0)
        self._records = records
        self._arrivals = select.poll()
        self._arrivals.register(sock, select.POLLIN)

    def _glance(self, into: Any) -> int | None:
        ends_at = time.monotonic() + self._glance_seconds
        while (count := self._records.receive(into)) is None:
            seconds = ends_at - time.monotonic()
            if seconds <= 0 or not self._arrivals.poll(seconds * 1000):
                return None
        return count
