from typing import NoReturn

import pytest

from blobfs.azure.retry import RetryPolicy, Transient
from blobfs.errors import TimedOut


def test_long_waits_leave_time_for_one_more_try() -> None:
    policy = RetryPolicy(total_seconds=0.5, first_wait_seconds=1e6, longest_wait_seconds=1e6)
    attempts = []

    def attempt() -> NoReturn:
        attempts.append(1)
        raise Transient("busy", TimedOut)

    with pytest.raises(TimedOut, match="gave up after 2 attempts"):
        policy.run(attempt, policy.deadline())
    assert len(attempts) == 2


def test_wait_that_the_service_asks_for_beyond_the_deadline_ends_the_call() -> None:
    policy = RetryPolicy(total_seconds=0.5, first_wait_seconds=0.01, longest_wait_seconds=0.1)

    def attempt() -> NoReturn:
        raise Transient("busy", TimedOut, wait_seconds=60.0)

    with pytest.raises(TimedOut, match="gave up after 1 attempts"):
        policy.run(attempt, policy.deadline())
