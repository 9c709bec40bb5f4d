"""Waiting for what another process brings about."""

from collections.abc import Callable

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

GLANCE_SECONDS = 0.02  # between two looks


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return when the condition holds. Raises AssertionError if it does not within that time."""
    looks = Retrying(
        retry=retry_if_result(lambda holds: not holds),
        wait=wait_fixed(GLANCE_SECONDS),
        stop=stop_after_delay(seconds),
    )
    try:
        looks(condition)
    except RetryError:
        raise AssertionError(f"still not so after {seconds:.0f} s") from None
