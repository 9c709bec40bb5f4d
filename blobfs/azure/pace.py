"""Replies that come too slowly end as timeouts, however often a byte arrives.

A socket's own timeout is for one byte. Here a reply has so long to begin, and from then on has to
bring a least number of bytes in every window of time.
"""

import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

from urllib3.connection import HTTPConnection

from blobfs.blocks import KiB
from blobfs.callers import GLANCE_SECONDS

LEAST_BYTES = 64 * KiB  # in each window; 6.5 KB/s with one of 10 seconds


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow a reply may be, and who is asked now and then whether it is still wanted."""

    window_seconds: float
    check_wanted: Callable[[], None]


def paced(connection_class: type[HTTPConnection], pace: Pace) -> type[HTTPConnection]:
    """Return the class of connections whose replies keep the pace."""

    class PacedConnection(connection_class):  # type: ignore[misc,valid-type]
        def response_class(self, sock: socket.socket, *arguments: Any, **options: Any) -> HTTPResponse:
            response = HTTPResponse(sock, *arguments, **options)
            response.fp.close()
            response.fp = io.BufferedReader(_PacedReader(sock, pace))
            return response

        def endheaders(self, *arguments: Any, **options: Any) -> None:
            super().endheaders(*arguments, **options)
            # urllib3 leaves the time to connect, which is too short for a piece of a body on a slow line.
            self.sock.settimeout(pace.window_seconds)

    return PacedConnection


class _PacedReader(io.RawIOBase):
    """The receiving side of a socket, for one reply."""

    def __init__(self, sock: socket.socket, pace: Pace) -> None:
        self._socket = sock
        self._open = sock.makefile("rb", buffering=0)  # for as long as this lives, so does the socket
        self._pace = pace
        self._patience_seconds = sock.gettimeout() or pace.window_seconds
        self._window_ends_at = 0.0
        self._window_bytes = 0
        sock.settimeout(min(GLANCE_SECONDS, self._patience_seconds))

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._open.close()
        super().close()

    def readinto(self, into: Any) -> int:
        """Receive once. Raises TimeoutError when nothing or too little comes."""
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
