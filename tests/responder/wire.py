"""Bytes to and from one socket, as fast as they go or at a set speed."""

import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator
from typing import NoReturn

from responder.memory import KiB, MiB, Part, fresh_memory

HEAD_BYTES = 16 * KiB  # received at once; a head of any length is taken
_JOINED_BYTES = 64 * KiB  # a reply up to that size leaves in one piece
_SINK = memoryview(fresh_memory(64 * MiB))  # hardly touched, so no memory: the kernel drops what goes there
_TLS_SINK = memoryview(bytearray(MiB))
_PIECE_SECONDS = 0.005  # a paced body moves in pieces of that duration
_PIECE_BYTES = (1, MiB)  # within these sizes
_HANGS_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Wire:
    """One connection. Raises OSError when the other side is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._is_tls = isinstance(connection, ssl.SSLSocket)
        self._ahead = b""  # received, and not looked at yet

    def receive_head(self) -> bytes:
        """Return the next request's head, without the empty line; empty if there is none."""
        data = self._ahead
        while (end := data.find(b"\r\n\r\n")) < 0:
            more = self._socket.recv(HEAD_BYTES)
            if not more:
                return b""
            data = data + more if data else more
        self._ahead = data[end + 4 :]
        return data[:end]

    def receive(self, into: memoryview, bytes_per_second: float) -> None:
        """Fill the memory with what comes next."""
        flags = 0 if self._is_tls else socket.MSG_WAITALL
        for piece in self._paced((into,), bytes_per_second):
            self._receive(piece, flags)

    def discard(self, size_bytes: int, bytes_per_second: float) -> None:
        """Receive so many bytes and forget them."""
        sink, flags = (_TLS_SINK, 0) if self._is_tls else (_SINK, socket.MSG_TRUNC)
        pieces = (sink[: min(len(sink), size_bytes - at)] for at in range(0, size_bytes, len(sink)))
        for piece in self._paced(pieces, bytes_per_second):
            self._receive(piece, flags)

    def send(self, head: bytes, body: Part | None = None) -> None:
        """Send a reply as fast as it goes."""
        if body is None or body.size_bytes <= _JOINED_BYTES:
            self._socket.sendall(b"".join((head, *(body or ()))))
            return
        self._socket.send(head, 0 if self._is_tls else socket.MSG_MORE)
        for view in body:
            self._socket.sendall(view)

    def send_paced(self, body: Iterable[memoryview], bytes_per_second: float) -> None:
        """Send bytes at a set speed; 0 is as fast as it goes."""
        for piece in self._paced(body, bytes_per_second):
            self._socket.sendall(piece)

    def wait_for_hang_up(self, seconds: float) -> bool:
        """Return when the client is gone or the time is over, and whether it is gone; 0 is for ever."""
        poll = select.poll()
        poll.register(self._socket, _HANGS_UP)
        return bool(poll.poll(seconds * 1000 if seconds else None))

    def reset(self) -> NoReturn:
        """Close without regard to what is under way, so that the client sees a reset; raise OSError."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
        raise ConnectionAbortedError("reset on purpose")

    def _paced(self, views: Iterable[memoryview], bytes_per_second: float) -> Iterator[memoryview]:
        """Yield the bytes in pieces, each when the time to have moved it has passed."""
        if not bytes_per_second:
            yield from views
            return
        smallest_bytes, largest_bytes = _PIECE_BYTES
        piece_bytes = min(max(int(bytes_per_second * _PIECE_SECONDS), smallest_bytes), largest_bytes)
        due_seconds = time.monotonic()
        for view in views:
            for start in range(0, len(view), piece_bytes):
                piece = view[start : start + piece_bytes]
                due_seconds += len(piece) / bytes_per_second
                early_seconds = due_seconds - time.monotonic()
                if early_seconds > 0:
                    self.wait_for_hang_up(early_seconds)
                yield piece

    def _receive(self, into: memoryview, flags: int) -> None:
        ahead, self._ahead = self._ahead[: len(into)], self._ahead[len(into) :]
        into[: len(ahead)] = ahead
        into = into[len(ahead) :]
        while into:
            count = self._socket.recv_into(into, 0, flags)
            if not count:
                raise ConnectionResetError("the client is gone in the middle of a body")
            into = into[count:]
