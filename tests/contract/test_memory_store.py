"""The port's contract, held against the store in memory that tests below the kernel work on."""

import inspect

import pytest
from contract import test_store as contract
from fakes import MemoryStore

# Here nothing is lost on the way, so nothing is sent twice.
ONLY_OVER_A_NETWORK = {"test_body_that_does_not_match_its_checksum_is_damaged_and_not_stored"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def needs_only_a_store(test: object) -> bool:
    needed = inspect.signature(test).parameters if inspect.isfunction(test) else {}
    return "store" in needed and not {"service", "container"} & set(needed)


globals().update(
    {
        name: test
        for name, test in vars(contract).items()
        if name.startswith("test_") and name not in ONLY_OVER_A_NETWORK and needs_only_a_store(test)
    }
)
