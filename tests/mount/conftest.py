"""What tests share: one mount for a module, or a service of its own that can be told to fail."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from azure.storage.blob import ContainerClient
from azurite import Azurite
from mounts import Mount, Mounts
from responder.control import Responder


@pytest.fixture(scope="module")
def shared_container(azurite: Azurite) -> str:
    """The name of the container that the tests of a module share."""
    name = uuid4().hex
    azurite.create_container(name)
    return name


@pytest.fixture(scope="module", params=["libfuse3", "libfuse2"])
def shared_mounts(
    request: pytest.FixtureRequest, azurite: Azurite, shared_container: str
) -> Iterator[Mounts]:
    """Call it to mount the module's container once more, by the same binding."""
    with Mounts(azurite, shared_container, request.param) as mounts:
        yield mounts


@pytest.fixture(scope="module")
def shared_mount(shared_mounts: Mounts) -> Mount:
    """The mount that the tests of a module share, once by each binding; other users may enter."""
    return shared_mounts("--allow-other")


@pytest.fixture
def directory(shared_mount: Mount) -> Path:
    """A new directory in the shared mount that only root may change."""
    path = shared_mount.path / uuid4().hex
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def remounted(shared_mounts: Mounts, directory: Path) -> Iterator[Callable[[], Path]]:
    """Call it for the directory as a mount that knows nothing yet shows it."""
    made: list[Mount] = []

    def mount_again() -> Path:
        made.append(shared_mounts())
        return made[-1].path / directory.name

    yield mount_again
    for mount in made:
        shared_mounts.unmount(mount)


@pytest.fixture(scope="module")
def service() -> Iterator[Responder]:
    """A service of the module's own, which checks every SAS and can be told to fail."""
    with Responder(checks_access=True) as service:
        yield service


@pytest.fixture
def box(service: Responder) -> Iterator[str]:
    """A new container of that service, which fails in nothing and counts from nought."""
    name = uuid4().hex
    service.order()
    service.reset_counters()
    service.create_container(name)
    yield name
    service.order()


@pytest.fixture
def blobs(service: Responder, box: str) -> Iterator[ContainerClient]:
    """What another client sees of it."""
    with service.client() as client:
        yield client.get_container_client(box)
