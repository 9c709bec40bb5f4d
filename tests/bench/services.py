"""What all systems run against: the responder under a network model, or Azurite."""

import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from azcopy import url_of
from azurite import Azurite
from certificates import make_certificate
from responder.control import Counters, Responder
from responder.faults import Rule
from responder.memory import MiB, Pattern
from responder.recipes import Recipe

MB = 1_000_000
UPLOADS_AT_ONCE = 8
BLOCK_SIZES_BYTES = (4 * MiB, 8 * MiB, 16 * MiB)  # that the systems send


@dataclass(frozen=True, slots=True)
class Model:
    """The service and the way to it."""

    name: str
    title: str
    rules: tuple[Rule, ...] = ()
    has_tls: bool = False
    is_azurite: bool = False


MODELS = (
    Model("none", "no network model: what the processors allow"),
    Model(
        "8ms",
        "8 ± 2 ms, 60 MB/s a connection",
        (Rule(latency_seconds=0.008, jitter_seconds=0.002, bytes_per_second=60 * MB),),
    ),
    Model("2ms", "2 ms, 200 MB/s a connection", (Rule(latency_seconds=0.002, bytes_per_second=200 * MB),)),
    Model("tls", "TLS, no network model", has_tls=True),
    Model("azurite", "Azurite, the emulator", is_azurite=True),
)


@dataclass(frozen=True, slots=True)
class Service:
    """A running service."""

    model: Model
    server: Responder | Azurite
    certificate: Path | None  # what clients must trust, over TLS

    @property
    def endpoint(self) -> str:
        """The address of the account."""
        return self.server.endpoint

    def url(self, container: str, name: str) -> str:
        """Return where a blob, or all blobs below a name, can be found, with the right to use them."""
        # A responder can stand wherever Azurite does.
        return url_of(cast(Azurite, self.server), container, name)

    @contextmanager
    def container(self, recipes: Iterable[Recipe], uploads: Iterable[Path]) -> Iterator[str]:
        """Make a container with these blobs; it is gone afterwards."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        self.server.create_container(name)
        for recipe in recipes:
            if isinstance(self.server, Responder):
                self.server.make_blobs(name, recipe)
            else:
                self._upload_blobs(name, recipe)
        with self.server.client() as client:
            for path in uploads:
                client.get_blob_client(name, path.name).upload_blob(path.read_bytes())
            yield name
            client.delete_container(name)

    def keep_memory(self, size_bytes: int) -> None:
        """Have memory at hand to store so much: whoever writes first would wait longer than the others."""
        if isinstance(self.server, Responder):
            for block_bytes in BLOCK_SIZES_BYTES:
                self.server.keep_memory(block_bytes, -(-size_bytes // block_bytes))

    def reset_counters(self) -> Counters | None:
        """Return what was counted since the last reset, where somebody counts."""
        return self.server.reset_counters() if isinstance(self.server, Responder) else None

    def _upload_blobs(self, container: str, recipe: Recipe) -> None:
        content = b"".join(Pattern(recipe.content, 0, recipe.size_bytes).views(0, recipe.size_bytes))
        with (
            self.server.client() as client,
            client.get_container_client(container) as target,
            ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool,
        ):
            names = [
                recipe.name.format(index=index, directory=index * recipe.directories // recipe.count)
                for index in range(recipe.count)
            ]
            list(pool.map(lambda name: target.upload_blob(name, content).close(), names))


@contextmanager
def running(model: Model) -> Iterator[Service]:
    """Start the service that a model is about."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        certificate, key = make_certificate(folder) if model.has_tls else (None, None)
        if model.is_azurite:
            yield Service(model, stack.enter_context(Azurite()), None)
            return
        # A service has processors of its own: its hashing would slow down those that send checksums.
        responder = stack.enter_context(Responder(certificate, key, believes_checksums=True))
        responder.order(*model.rules)
        yield Service(model, responder, certificate)
