import signal
import uuid
from collections.abc import Iterator

import pytest
from azurite import Azurite
from hypothesis import HealthCheck, settings
from mounts import Mounts
from responder.control import Responder


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that has a table of results written rather than compared."""
    parser.addoption("--keep-matrix", action="store_true", help="Write docs/faults.md anew.")


def pytest_configure() -> None:
    """Have programs that tests interrupt end: in a shell's background they would ignore that, as it does."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# How long an example takes says something about the machine only.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    """An emulator for one module: ten minutes after its start it collects garbage, and answers nobody."""
    with Azurite() as azurite:
        yield azurite


@pytest.fixture(scope="session")
def responder() -> Iterator[Responder]:
    """One responder for the whole run, which checks credentials. Tests that order faults start their own."""
    with Responder(checks_access=True) as responder:
        yield responder


@pytest.fixture
def container(azurite: Azurite) -> str:
    """The name of a new, empty container."""
    name = uuid.uuid4().hex
    azurite.create_container(name)
    return name


@pytest.fixture
def binding(request: pytest.FixtureRequest) -> str:
    """The FUSE library to mount with; `mounts.on_both_bindings` runs a test with each."""
    return getattr(request, "param", "libfuse3")


@pytest.fixture
def mount(azurite: Azurite, container: str, binding: str) -> Iterator[Mounts]:
    """Call it to mount the container."""
    with Mounts(azurite, container, binding) as mounts:
        yield mounts
