"""The commanding side: starts a responder, orders faults, makes blobs, reads counters."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from ssl import SSLContext, create_default_context
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from azure.storage.blob import BlobServiceClient
from azurite import Azurite

from responder.commands import OWNER
from responder.faults import Rule
from responder.recipes import Recipe

_TESTS = Path(__file__).parents[1]
_COMMAND_SECONDS = 120.0  # a recipe may hash some GiB
_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What was asked for and moved since the last reset, commands apart."""

    requests: Mapping[str, int]  # by kind
    statuses: Mapping[int, int]
    bytes_in: int  # of bodies
    bytes_out: int  # of bodies, as announced
    connections: int
    cpu_seconds: float  # of the responder, since it began


class Responder:
    """One responder in a process of its own. Over TLS if given a certificate.

    It can stand wherever tests use `Azurite`.
    """

    account = Azurite.account
    key = Azurite.key

    def __init__(
        self,
        certificate: Path | None = None,
        private_key: Path | None = None,
        *,
        checks_access: bool = False,
        discards_bodies: bool = False,
        believes_checksums: bool = False,
    ) -> None:
        self._certificate = certificate
        self._options = ["--account", self.account]
        self._options += ["--account-key", self.key] if checks_access else []
        self._options += ["--discard-bodies"] if discards_bodies else []
        self._options += ["--believe-checksums"] if believes_checksums else []
        if certificate and private_key:
            self._options += ["--certificate", str(certificate), "--private-key", str(private_key)]
        self._process: subprocess.Popen[str] | None = None
        self.endpoint = ""  # the address of the account, once it is started

    def __enter__(self) -> "Responder":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it listens. Raises RuntimeError if it ends instead."""
        paths = [str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "responder", "--end-with-input", *self._options],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self.endpoint = self._process.stdout.readline().strip()
        if not self.endpoint:
            self.stop()
            raise RuntimeError("the responder ended instead of listening")

    def stop(self) -> None:
        """End it and wait until it has ended. Harmless when it is not running."""
        if self._process is not None:
            self._process.communicate(timeout=_STOP_SECONDS)  # closes its input, with which it ends
            self._process = None

    def freeze(self) -> None:
        """Have it accept connections and answer nothing, until `thaw`. Returns when it has stopped."""
        self._signal(signal.SIGSTOP)
        assert self._process
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Have it go on where it was frozen."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def client(self) -> BlobServiceClient:
        """Return the SDK's client: another program's view of the same account. Close it."""
        trust = str(self._certificate) if self._certificate else True
        return BlobServiceClient(self.endpoint, credential=self.key, connection_verify=trust)

    def create_container(self, name: str) -> None:
        """Create an empty container."""
        with self.client() as client:
            client.create_container(name)

    def make_blobs(self, container: str, recipe: Recipe) -> None:
        """Make blobs without an upload, replacing those of the same names."""
        self._command("PUT", f"blobs/{self.account}/{container}", asdict(recipe))

    def keep_memory(self, size_bytes: int, count: int) -> None:
        """Have room at hand for so many bodies of a size: the first bodies would take longer than others."""
        self._command("PUT", "memory", {"size_bytes": size_bytes, "count": count})

    def order(self, *rules: Rule) -> None:
        """Put these rules in force instead of all others, counting from zero."""
        self._command("PUT", "rules", [rule.to_json() for rule in rules])

    @property
    def hits(self) -> list[int]:
        """How many requests each rule in force has hit."""
        hits: list[int] = self._command("GET", "rules")
        return hits

    @property
    def counters(self) -> Counters:
        """What was asked for and moved."""
        return _counters(self._command("GET", "counters"))

    def reset_counters(self) -> Counters:
        """Count from zero again, and return what was counted before."""
        return _counters(self._command("DELETE", "counters"))

    def connection(self) -> HTTPConnection:
        """Return a new connection. Close it."""
        parts = urlsplit(self.endpoint)
        assert parts.hostname
        if parts.scheme == "http":
            return HTTPConnection(parts.hostname, parts.port, timeout=_COMMAND_SECONDS)
        return HTTPSConnection(parts.hostname, parts.port, timeout=_COMMAND_SECONDS, context=self._trust())

    def _trust(self) -> SSLContext:
        return create_default_context(cafile=self._certificate)

    def _command(self, method: str, what: str, value: object = None) -> Any:
        """Return what the responder answers. Raises RuntimeError if it does not obey."""
        connection = self.connection()
        try:
            connection.request(method, f"/{OWNER}/{what}", json.dumps(value))
            reply = connection.getresponse()
            body = reply.read()
        finally:
            connection.close()
        if reply.status >= 300:
            raise RuntimeError(f"{method} {what}: {body.decode()}")
        return json.loads(body) if body else None


def _counters(fields: dict[str, Any]) -> Counters:
    return Counters(**{**fields, "statuses": {int(key): value for key, value in fields["statuses"].items()}})
