"""The one policy by which a request is tried again. Nothing above or below it repeats one."""

import logging
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, repeat
from typing import NoReturn, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from blobfs.errors import Failure

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Transient(Exception):
    """An attempt failed in a way that another may cure; the message says how."""

    def __init__(self, reason: str, gives: type[Failure], *, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.gives = gives  # what the caller gets when no attempt cures it
        self.wait_seconds = wait_seconds  # at least, as the service asked


LAST_MOMENT_SECONDS = 0.01  # the last try begins this long before it would be too late
LEAST_SHARE = 0.1  # of the total time: with less left, a try would only replace the cause by a timeout


class Deadline:
    """When a call that gets nowhere ends."""

    def __init__(self, total_seconds: float) -> None:
        self.least_seconds = LEAST_SHARE * total_seconds  # that a try is worth beginning with
        self._total_seconds = total_seconds
        self.renew()

    def renew(self) -> None:
        """Count the time from now: the call got somewhere."""
        self._ends_at = time.monotonic() + self._total_seconds

    @property
    def remaining_seconds(self) -> float:
        """How long the call may still take; 0 when its time is over."""
        return max(0.0, self._ends_at - time.monotonic())


class RetryPolicy:
    """Exponential waits with full jitter, until a total time would be passed."""

    def __init__(
        self,
        *,
        total_seconds: float,
        first_wait_seconds: float,
        longest_wait_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._total_seconds = total_seconds
        self._backoff = wait_random_exponential(multiplier=first_wait_seconds, max=longest_wait_seconds)
        self._retrying = Retrying(
            retry=retry_if_exception_type(Transient),
            before_sleep=_report,
            sleep=sleep,
        )

    def deadline(self) -> Deadline:
        """Return the deadline of a call that begins now."""
        return Deadline(self._total_seconds)

    def run(self, attempt: Callable[[], Result], deadline: Deadline) -> Result:
        """Return what `attempt` returns once it does not raise Transient. Blocks and waits in between.

        Raises the failure that the last Transient named when there is no time for another attempt.
        """
        began_at = time.monotonic()
        try:
            return attempt()  # as nearly all do; what tenacity does costs more than a small request
        except Transient as error:
            failure = error
        return self._run_again(attempt, failure, deadline, began_at)

    def _run_again(
        self, attempt: Callable[[], Result], failure: Transient, deadline: Deadline, began_at: float
    ) -> Result:
        """Go on after a first attempt that failed."""
        attempts = chain((_raising(failure),), repeat(attempt))
        retrying = self._retrying.copy(
            wait=_Waits(self._backoff, deadline),
            stop=lambda state: state.upcoming_sleep + deadline.least_seconds >= deadline.remaining_seconds,
            retry_error_callback=partial(_give_up, began_at),
        )
        return retrying(lambda: next(attempts)())


class _Waits:
    """The waits of one call: at least as long as the service asks, else random, and cut once to fit."""

    def __init__(self, backoff: wait_random_exponential, deadline: Deadline) -> None:
        self._backoff = backoff
        self._deadline = deadline
        self._is_cut = False

    def __call__(self, state: RetryCallState) -> float:
        seconds = self._backoff(state)
        free_seconds = self._deadline.remaining_seconds - self._deadline.least_seconds - LAST_MOMENT_SECONDS
        if seconds > free_seconds > 0 and not self._is_cut:
            self._is_cut, seconds = True, free_seconds
        return max(seconds, _cause(state).wait_seconds)


def _cause(state: RetryCallState) -> Transient:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Transient)
    return error


def _report(state: RetryCallState) -> None:
    number, wait_seconds = state.attempt_number, state.upcoming_sleep
    logger.debug("attempt %d failed, next in %.1f s: %s", number, wait_seconds, _cause(state))


def _give_up(began_at: float, state: RetryCallState) -> NoReturn:
    cause, seconds = _cause(state), time.monotonic() - began_at
    raise cause.gives(f"{cause}; gave up after {state.attempt_number} attempts in {seconds:.0f} s") from cause


def _raising(failure: Transient) -> Callable[[], NoReturn]:
    def attempt() -> NoReturn:
        raise failure

    return attempt
