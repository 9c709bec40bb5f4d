"""How long a thread of libfuse waits for the kernel to forget."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from blobfs.kernel.notifier import Notifier


def test_caller_returns_when_the_kernel_has_forgotten() -> None:
    forgotten: list[str] = []
    notifier = Notifier(most_seconds=60.0)
    assert notifier.forget(lambda: forgotten.append("/x"))
    assert forgotten == ["/x"]
    notifier.close()


def test_caller_does_not_wait_for_a_kernel_that_waits_for_it() -> None:
    """The kernel waits for a page whose bytes only a thread that calls can bring."""
    read = threading.Event()
    notifier = Notifier(most_seconds=0.05)
    with ThreadPoolExecutor(3) as callers:
        assert list(callers.map(notifier.forget, [read.wait] * 3)) == [False] * 3
    read.set()
    notifier.close()


def test_kernel_is_told_later_what_the_machine_gave_no_thread_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    forgotten: list[str] = []
    notifier = Notifier(most_seconds=60.0)
    with monkeypatch.context() as shortage:
        shortage.setattr(threading.Thread, "start", refuse)
        assert not notifier.forget(lambda: forgotten.append("/x"))
    assert notifier.forget(lambda: forgotten.append("/y"))
    assert forgotten == ["/x", "/y"]
    notifier.close()
