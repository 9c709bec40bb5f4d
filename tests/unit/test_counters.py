"""Counting from many threads."""

import sys
import threading

import pytest

from blobfs.counters import Counters
from blobfs.prices import cost_usd


def test_what_nobody_added_to_counts_as_nothing() -> None:
    counters = Counters()
    counters.add("hits")
    counters.add("hits", 2)
    assert counters.totals() == {"hits": 3}
    assert counters.totals()["misses"] == 0


@pytest.fixture
def hasty_switches() -> object:
    """Have threads interrupt each other as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_switches")
def test_nothing_is_lost_between_threads_or_by_looking() -> None:
    counters, seen = Counters(), [0]

    def count() -> None:
        for number in range(5000):
            counters.add(f"kind-{number % 50}")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.append(counters.totals().total())
    assert counters.totals().total() == 40_000
    assert seen == sorted(seen)


def test_requests_cost_what_the_sample_prices_say() -> None:
    assert cost_usd({"PUT block": 10_000, "GET blob": 10_000, "DELETE blob": 10_000}) == pytest.approx(0.0594)
    assert cost_usd({}) == 0
