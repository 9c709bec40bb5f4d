"""What Python keeps of a thread that it has not made, as libfuse's are."""

import ctypes
import subprocess
import threading
import weakref
from collections.abc import Callable

import pytest

from blobfs.kernel.threads import keep_thread

CALLS_TWICE = """
#include <pthread.h>
static void *call_twice(void *callback) {
    ((void (*)(void)) callback)();
    ((void (*)(void)) callback)();
    return 0;
}
void run(void *callback) {
    pthread_t thread;
    pthread_create(&thread, 0, call_twice, callback);
    pthread_join(thread, 0);
}
"""

mine = threading.local()


class Mark:
    """Something of a thread's."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    directory = tmp_path_factory.mktemp("library")
    (directory / "run.c").write_text(CALLS_TWICE)
    command = ["gcc", "-shared", "-fPIC", "-pthread", "-o", directory / "run.so", directory / "run.c"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(directory / "run.so"))


def marks_of(library: ctypes.CDLL, task: Callable[[], None]) -> list[weakref.ref[Mark]]:
    """Run a callback twice in a thread of C; return what each call found to be the thread's, or put there."""
    marks: list[weakref.ref[Mark]] = []

    def callback() -> None:
        task()
        mine.mark = getattr(mine, "mark", None) or Mark()
        marks.append(weakref.ref(mine.mark))

    library.run(ctypes.CFUNCTYPE(None)(callback))
    return marks


def test_what_is_a_threads_is_kept_between_callbacks(library: ctypes.CDLL) -> None:
    first, second = marks_of(library, keep_thread)
    assert first is second
    assert first() is not None


def test_without_that_python_knows_a_thread_for_one_callback_only(library: ctypes.CDLL) -> None:
    first, second = marks_of(library, lambda: None)
    assert first is not second
    assert first() is second() is None
