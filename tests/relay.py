"""A relay between a mount and its service, whose line can be taken away."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

from responder.control import Responder

_PIECE_BYTES = 64 * 1024
_FULL = 2  # connections that a backlog of 0 takes before the kernel drops the rest without a word


class Relay:
    """Passes bytes on, each way. It can stand wherever tests mount a `Responder`."""

    account = Responder.account

    def __init__(self, service: Responder) -> None:
        parts = urlsplit(service.endpoint)
        self._service = (parts.hostname, parts.port)
        self._sockets: list[socket.socket] = []  # all there are now
        self._listener = self._listen(0)
        self._port = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self._port}{parts.path}"
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()

    def refuse(self) -> None:
        """Have nobody listen, and break off what is open."""
        while self._sockets:
            _end(self._sockets.pop())

    def swallow(self) -> None:
        """Have what is sent vanish, as behind a firewall, and break off what is open."""
        self.refuse()
        self._listen(self._port, backlog=0)
        for _ in range(_FULL):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", self._port))
            self._sockets.append(client)

    def restore(self) -> None:
        """Pass on again."""
        self.refuse()
        self._listener = self._listen(self._port)
        threading.Thread(target=self._serve, daemon=True).start()

    def _listen(self, port: int, backlog: int = 128) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=backlog)
        self._sockets.append(listener)
        return listener

    def _serve(self) -> None:
        listener = self._listener
        with suppress(OSError):  # it is closed
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._service)
                self._sockets += (client, server)
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
    _end(source)
    _end(target)


def _end(taken: socket.socket) -> None:
    with taken, suppress(OSError):
        taken.shutdown(socket.SHUT_RDWR)  # or another thread that receives would keep it open
