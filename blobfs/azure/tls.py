"""Connections over TLS that receive as many records with one call as have arrived.

A record has 16 KiB at most (RFC 8446, section 5.1), and Python's ssl gives one for each call, 65,000 a
GiB, after each of which a thread has to get the interpreter's lock back. OpenSSL has a loop of its own
for them (BIO_f_buffer(3) in front of BIO_f_ssl(3)). What that needs is the SSL object of a connection,
which Python does not give away; but OpenSSL tells whoever asks of each one it makes
(CRYPTO_get_ex_new_index(3)). So ssl opens connections, verifies certificates and sends, as always.
What was measured, and tried besides, is in docs/cpu.md, "Many connections and one lock".
"""

import _ssl
import ctypes
import os
import ssl
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int, c_long, c_ulong, c_void_p
from functools import cache
from typing import Any, Protocol

from urllib3.connection import HTTPSConnection

from blobfs.blocks import MiB

TURN_BYTES = MiB  # 64 records

# From openssl/crypto.h, openssl/bio.h and openssl/ssl.h.
_CRYPTO_EX_INDEX_SSL = 0
_BIO_C_SET_SSL = 109
_BIO_CLOSE = 1
_BIO_FLAGS_SHOULD_RETRY = 8

_TellsOfNew = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_int, c_long, c_void_p)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {  # the type of the result, and of the arguments
    "BIO_ctrl": (c_long, c_void_p, c_int, c_long, c_void_p),
    "BIO_f_buffer": (c_void_p,),
    "BIO_f_ssl": (c_void_p,),
    "BIO_free_all": (None, c_void_p),
    "BIO_new": (c_void_p, c_void_p),
    "BIO_push": (c_void_p, c_void_p, c_void_p),
    "BIO_test_flags": (c_int, c_void_p, c_int),
    "CRYPTO_get_ex_new_index": (c_int, c_int, c_long, c_void_p, _TellsOfNew, c_void_p, c_void_p),
    "ERR_clear_error": (None,),
    "ERR_peek_error": (c_ulong,),
    "SSL_get_fd": (c_int, c_void_p),
    "SSL_set_quiet_shutdown": (None, c_void_p, c_int),
    "SSL_up_ref": (c_int, c_void_p),
}


class Records(Protocol):
    """The receiving side of a connection."""

    def receive(self, into: memoryview) -> int | None:
        """Return how much was there, of what has arrived; None for nothing, and 0 at the end.

        Does not block: the socket must not. Raises OSError.
        """


class TlsConnection(HTTPSConnection):
    """A connection that has `records`, unless it goes through TLS to a proxy, or is closed."""

    records: Records | None = None

    def connect(self) -> None:
        """Open it. Blocks."""
        with new_ssl_object() as made:
            super().connect()
        if isinstance(self.sock, ssl.SSLSocket):
            self.records = records_of(self.sock, made)

    def close(self) -> None:
        """Close it."""
        self.records = None
        super().close()


class OpenSslRecords:
    """Receives by OpenSSL's own loop."""

    def __init__(self, library: "_Library", sock: ssl.SSLSocket, ssl_object: int) -> None:
        self._library = library
        self._socket = sock
        self._is_broken = False  # behind what was received last; the thread's queue of errors says how
        call = library.call
        self._chain = call.BIO_new(call.BIO_f_buffer())
        below = call.BIO_new(call.BIO_f_ssl())
        # The chain keeps the object as long as itself, and must not say goodbye by a socket's number:
        # that may be another file's by then.
        call.SSL_up_ref(ssl_object)
        call.SSL_set_quiet_shutdown(ssl_object, 1)
        call.BIO_ctrl(below, _BIO_C_SET_SSL, _BIO_CLOSE, ssl_object)
        call.BIO_push(self._chain, below)
        weakref.finalize(self, call.BIO_free_all, self._chain).atexit = False

    def receive(self, into: memoryview) -> int | None:
        """See Records."""
        if not self._is_broken:
            self._library.call.ERR_clear_error()  # a thread has one queue, for all that it does
        ctypes.set_errno(0)
        start = ctypes.byref(ctypes.c_char.from_buffer(into))
        count: int = self._library.receive(self._chain, start, len(into))
        if count > 0:
            self._is_broken = self._library.call.ERR_peek_error() != 0
            return count
        if self._library.call.BIO_test_flags(self._chain, _BIO_FLAGS_SHOULD_RETRY):
            return None
        if error := ctypes.get_errno():
            raise OSError(error, os.strerror(error))
        return self._socket.recv_into(into)  # meets it again, and Python has exceptions for all of them


class PythonRecords:
    """Receives record by record, and takes turns with the other connections at that.

    Many threads that did it at once would mostly wait for the interpreter's lock.
    """

    turn = threading.Lock()

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._socket = sock
        self._failure: OSError | None = None  # behind what was received last

    def receive(self, into: memoryview) -> int | None:
        """See Records; less than a record is nothing."""
        if self._failure is not None:
            raise self._failure
        count, most_bytes = 0, min(TURN_BYTES, len(into))
        with self.turn:
            try:
                while count < most_bytes and (more := self._socket.recv_into(into[count:])):
                    count += more
            except ssl.SSLWantReadError:
                return count or None
            except OSError as error:
                if not count:
                    raise
                self._failure = error
        return count


@contextmanager
def new_ssl_object() -> Iterator[list[int]]:
    """Have a list of the SSL objects that this thread makes inside, none if OpenSSL is out of reach."""
    _library()
    objects: list[int] = []
    _made.objects = objects
    try:
        yield objects
    finally:
        _made.objects = None


def records_of(sock: ssl.SSLSocket, made: list[int]) -> Records:
    """Return the receiving side of a socket that was made, with its SSL object, a moment ago."""
    library = _library()
    if library is not None and made and library.call.SSL_get_fd(made[-1]) == sock.fileno():
        return OpenSslRecords(library, sock, made[-1])
    return PythonRecords(sock)


class _Made(threading.local):
    objects: list[int] | None = None


_made = _Made()


def _note(ssl_object: int, *_: object) -> None:
    if _made.objects is not None:
        _made.objects.append(ssl_object)


_note_new = _TellsOfNew(_note)  # for as long as OpenSSL may call it


class _Library:
    """The OpenSSL that Python's ssl uses. Raises AttributeError, OSError if it is out of reach."""

    def __init__(self) -> None:
        path = _ssl.__file__  # none if it is a part of the interpreter, as OpenSSL is then
        self.call: Any = ctypes.PyDLL(path)
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(self.call, name)
            function.restype, function.argtypes = result, arguments
        self.receive = ctypes.CDLL(path, use_errno=True).BIO_read  # without the interpreter's lock
        self.receive.restype, self.receive.argtypes = c_int, [c_void_p, c_void_p, c_int]
        self.call.CRYPTO_get_ex_new_index(_CRYPTO_EX_INDEX_SSL, 0, None, _note_new, None, None)


@cache
def _library() -> _Library | None:
    try:
        return _Library()
    except (AttributeError, OSError):  # no file, or none that shows these functions: PythonRecords then
        return None
