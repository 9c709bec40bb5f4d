"""Azurite, the service's own emulator, started for a test on a free port of the loopback."""

import os
import socket
import subprocess
from pathlib import Path
from types import TracebackType

from azure.storage.blob import BlobServiceClient
from waiting import wait_until

START_SECONDS = 60.0
_LOCAL = Path(__file__).parents[1] / ".tools" / "node_modules" / ".bin" / "azurite-blob"


class Azurite:
    """One emulator with nothing in it, all in memory. Over TLS, with Entra ID, if given a certificate."""

    account = "devstoreaccount1"
    # Published, the same everywhere.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def __init__(self, certificate: Path | None = None, private_key: Path | None = None) -> None:
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._tls: list[str] = []
        if certificate and private_key:
            self._tls = ["--cert", str(certificate), "--key", str(private_key), "--oauth", "basic"]

    def __enter__(self) -> "Azurite":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The address of the account."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}/{self.account}"

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError if it ends or stays silent."""
        executable = os.environ.get("BLOBFS_TEST_AZURITE", str(_LOCAL))
        port = str(self._port)
        in_memory = ["--silent", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
        listening = ["--blobHost", "127.0.0.1", "--blobPort", port, "--blobKeepAliveTimeout", "60"]
        command = [executable, *in_memory, *listening, *self._tls]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        process = self._process
        try:
            wait_until(lambda: process.poll() is not None or _answers(self._port), START_SECONDS)
        except AssertionError:
            self.stop()
            raise RuntimeError(f"{executable} did not listen within {START_SECONDS:.0f} s") from None
        if process.returncode is not None:
            raise RuntimeError(f"{executable} ended with {process.returncode} instead of listening")

    def stop(self) -> None:
        """End it and wait until it has ended. Harmless when it is not running."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def client(self) -> BlobServiceClient:
        """Return the SDK's client: another program's view of the same account. Close it."""
        return BlobServiceClient(self.endpoint, credential=self.key)

    def create_container(self, name: str) -> None:
        """Create an empty container."""
        with self.client() as client:
            client.create_container(name)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
