import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from certificates import make_certificate

from blobfs.azure.pace import TURN_BYTES, Pace, paced_file

RECORD_BYTES = 1 << 14  # RFC 8446, section 5.1
BODY = bytes(number % 251 for number in range(2 * TURN_BYTES))


class Server:
    """The far end of a connection, whose records go out when and as far as a test says so."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                self._incoming.write(self._socket.recv(1 << 16))
        self._socket.sendall(self._outgoing.read())

    def records(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()

    def send(self, data: bytes, *, withheld_bytes: int = 0) -> None:
        records = self.records(data)
        self.send_raw(records[: len(records) - withheld_bytes])

    def send_raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def hang_up(self) -> None:
        self._socket.close()


@pytest.fixture
def pace() -> Pace:
    return Pace(window_seconds=10.0, check_wanted=lambda: None)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Server, ssl.SSLSocket]]:
    certificate, private_key = make_certificate(tmp_path)
    ours, theirs = (ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER))
    ours.load_verify_locations(certificate)
    theirs.load_cert_chain(certificate, private_key)
    with ExitStack() as stack:
        near, far = (stack.enter_context(sock) for sock in socket.socketpair())
        for sock in (near, far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * TURN_BYTES)
        server = Server(far, theirs)
        shaking = threading.Thread(target=server.shake_hands)
        shaking.start()
        client = stack.enter_context(ours.wrap_socket(near, server_hostname="127.0.0.1"))
        shaking.join()
        yield server, client


def test_all_records_that_are_there_come_at_once(ends: tuple[Server, ssl.SSLSocket], pace: Pace) -> None:
    server, client = ends
    into = memoryview(bytearray(len(BODY)))
    server.send(BODY[: 5 * RECORD_BYTES])
    with paced_file(client, pace, 10.0) as file:
        assert file.raw.readinto(into) == 5 * RECORD_BYTES
    assert into[: 5 * RECORD_BYTES] == BODY[: 5 * RECORD_BYTES]


def test_no_turn_is_without_end(ends: tuple[Server, ssl.SSLSocket], pace: Pace) -> None:
    server, client = ends
    into = memoryview(bytearray(len(BODY)))
    sending = threading.Thread(target=server.send, args=(BODY,))
    sending.start()
    with paced_file(client, pace, 10.0) as file:
        received = 0
        while received < len(BODY):
            count = file.raw.readinto(into[received:])
            assert 0 < count < TURN_BYTES + RECORD_BYTES
            received += count
    sending.join()
    assert into == BODY


def test_nobody_keeps_the_turn_who_waits_for_the_rest_of_a_record(
    ends: tuple[Server, ssl.SSLSocket], pace: Pace
) -> None:
    server, client = ends
    into = memoryview(bytearray(len(BODY)))
    server.send(BODY[: 2 * RECORD_BYTES], withheld_bytes=100)
    with paced_file(client, pace, 10.0) as file:
        assert file.raw.readinto(into) == RECORD_BYTES
    assert pace.tls_turn.acquire(blocking=False)


def test_a_record_of_which_a_byte_comes_now_and_then_does_not_keep_its_reader(
    ends: tuple[Server, ssl.SSLSocket],
) -> None:
    server, client = ends
    given_up = threading.Event()

    def drip() -> None:
        for byte in server.records(BODY[:RECORD_BYTES])[:-1]:
            if given_up.wait(0.01):
                return
            server.send_raw(bytes([byte]))

    dripping = threading.Thread(target=drip)
    dripping.start()
    pace = Pace(window_seconds=0.5, check_wanted=lambda: None)
    with paced_file(client, pace, 0.5) as file, pytest.raises(TimeoutError):
        file.raw.readinto(memoryview(bytearray(RECORD_BYTES)))
    assert dripping.is_alive()
    given_up.set()
    dripping.join()


def test_what_came_before_a_connection_broke_is_not_lost(
    ends: tuple[Server, ssl.SSLSocket], pace: Pace
) -> None:
    server, client = ends
    into = memoryview(bytearray(len(BODY)))
    server.send(BODY[: 2 * RECORD_BYTES])
    server.hang_up()
    with paced_file(client, pace, 10.0) as file:
        assert file.raw.readinto(into) == 2 * RECORD_BYTES
        assert file.raw.readinto(into) == 0
