import _ssl
import ctypes
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import make_certificate

from blobfs.azure import tls
from blobfs.azure.pace import Pace, paced_file
from blobfs.azure.tls import (
    TURN_BYTES,
    OpenSslRecords,
    PythonRecords,
    Records,
    new_ssl_object,
    records_of,
)

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

    def say_goodbye(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._socket.sendall(self._outgoing.read())

    def hang_up(self) -> None:
        self._socket.close()


@dataclass
class Client:
    sock: ssl.SSLSocket
    records: Records


@pytest.fixture
def pace() -> Pace:
    return Pace(window_seconds=10.0, check_wanted=lambda: None)


@pytest.fixture(params=[OpenSslRecords, PythonRecords])
def ends(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Server, Client]]:
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
        with new_ssl_object() as made:
            sock = stack.enter_context(ours.wrap_socket(near, server_hostname="127.0.0.1"))
        shaking.join()
        client = Client(sock, records_of(sock, made if request.param is OpenSslRecords else []))
        assert type(client.records) is request.param
        yield server, client


def test_all_records_that_are_there_come_at_once(ends: tuple[Server, Client], pace: Pace) -> None:
    server, client = ends
    into = memoryview(bytearray(len(BODY)))
    server.send(BODY[: 5 * RECORD_BYTES])
    with paced_file(client.sock, client.records, pace, 10.0) as file:
        assert file.raw.readinto(into) == 5 * RECORD_BYTES
    assert into[: 5 * RECORD_BYTES] == BODY[: 5 * RECORD_BYTES]


@pytest.mark.parametrize("most_bytes", [1, 100, RECORD_BYTES - 1, RECORD_BYTES + 1, len(BODY)])
def test_nothing_is_lost_or_mixed_up_whatever_is_asked_for(
    ends: tuple[Server, Client], pace: Pace, most_bytes: int
) -> None:
    server, client = ends
    body = BODY[: min(len(BODY), 2000 * most_bytes)]
    into = memoryview(bytearray(len(body)))
    sending = threading.Thread(target=server.send, args=(body,))
    sending.start()
    with paced_file(client.sock, client.records, pace, 10.0) as file:
        received = 0
        while received < len(body):
            count = file.raw.readinto(into[received : received + most_bytes])
            assert 0 < count <= most_bytes
            received += count
    sending.join()
    assert into == body


@pytest.mark.parametrize("ends", [PythonRecords], indirect=True)
def test_a_turn_ends_after_so_many_bytes(ends: tuple[Server, Client], pace: Pace) -> None:
    server, client = ends
    sending = threading.Thread(target=server.send, args=(BODY,))
    sending.start()
    into, received = memoryview(bytearray(len(BODY))), 0
    with paced_file(client.sock, client.records, pace, 10.0) as file:
        while received < len(BODY):
            count = file.raw.readinto(into[received:])
            assert 0 < count < TURN_BYTES + RECORD_BYTES
            received += count
    sending.join()
    assert into == BODY


def test_who_waits_for_the_rest_of_a_record_keeps_neither_the_turn_nor_what_came_before(
    ends: tuple[Server, Client], pace: Pace
) -> None:
    server, client = ends
    into = memoryview(bytearray(len(BODY)))
    server.send(BODY[: 2 * RECORD_BYTES], withheld_bytes=100)
    with paced_file(client.sock, client.records, pace, 10.0) as file:
        assert file.raw.readinto(into) == RECORD_BYTES
    assert client.records.receive(into) is None
    assert PythonRecords.turn.acquire(blocking=False)
    PythonRecords.turn.release()


def test_a_record_of_which_a_byte_comes_now_and_then_does_not_keep_its_reader(
    ends: tuple[Server, Client],
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
    with paced_file(client.sock, client.records, pace, 0.5) as file, pytest.raises(TimeoutError):
        file.raw.readinto(memoryview(bytearray(RECORD_BYTES)))
    assert dripping.is_alive()
    given_up.set()
    dripping.join()


def test_what_came_before_a_connection_broke_is_not_lost(ends: tuple[Server, Client], pace: Pace) -> None:
    server, client = ends
    into = memoryview(bytearray(len(BODY)))
    server.send(BODY[: 2 * RECORD_BYTES])
    server.hang_up()
    with paced_file(client.sock, client.records, pace, 10.0) as file:
        assert file.raw.readinto(into) == 2 * RECORD_BYTES
        assert file.raw.readinto(into) == 0


def test_a_connection_may_end_as_the_standard_wants_it(ends: tuple[Server, Client], pace: Pace) -> None:
    server, client = ends
    server.send(BODY[:100])
    server.say_goodbye()
    into = memoryview(bytearray(len(BODY)))
    with paced_file(client.sock, client.records, pace, 10.0) as file:
        assert file.raw.readinto(into) == 100
        assert file.raw.readinto(into) == 0
        assert file.raw.readinto(into) == 0


def test_a_forged_record_is_refused(ends: tuple[Server, Client], pace: Pace) -> None:
    server, client = ends
    server.send(BODY[:RECORD_BYTES])
    forged = bytearray(server.records(BODY[:RECORD_BYTES]))
    forged[-1] ^= 1
    server.send_raw(bytes(forged))
    into = memoryview(bytearray(len(BODY)))
    with paced_file(client.sock, client.records, pace, 10.0) as file:
        assert file.raw.readinto(into) == RECORD_BYTES
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            file.raw.readinto(into)
    assert into[:RECORD_BYTES] == BODY[:RECORD_BYTES]


@pytest.mark.parametrize("ends", [OpenSslRecords], indirect=True)
def test_an_error_that_somebody_left_behind_is_not_taken_for_ones_own(
    ends: tuple[Server, Client], pace: Pace
) -> None:
    server, client = ends
    into = memoryview(bytearray(len(BODY)))
    with paced_file(client.sock, client.records, pace, 10.0) as file:
        assert client.records.receive(into) is None
        ctypes.PyDLL(_ssl.__file__).BIO_new_file(b"/missing/file", b"r")  # into the thread's queue of errors
        assert client.records.receive(into) is None
        server.send(BODY[:100])
        assert file.raw.readinto(into) == 100


@pytest.mark.parametrize("ends", [OpenSslRecords], indirect=True)
def test_a_closed_connection_writes_nothing_more_by_its_socket_s_number(
    ends: tuple[Server, Client], tmp_path: Path
) -> None:
    _server, client = ends
    number = client.sock.fileno()
    client.sock.close()
    another = os.open(tmp_path / "another", os.O_WRONLY | os.O_CREAT)
    try:
        assert another == number  # the lowest that is free (open(2))
        client.records = PythonRecords(client.sock)  # so the last reference to what was there is dropped
        assert os.fstat(another).st_size == 0
    finally:
        os.close(another)


def test_without_openssl_s_functions_python_receives(
    ends: tuple[Server, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    _server, client = ends
    tls._library.cache_clear()
    monkeypatch.delattr(_ssl, "__file__")  # so it is where OpenSSL is linked into the interpreter
    try:
        with tls.new_ssl_object() as made:
            ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        assert isinstance(tls.records_of(client.sock, made), PythonRecords)
    finally:
        tls._library.cache_clear()
