import os
import threading
from pathlib import Path

import pytest
from waiting import wait_until

from blobfs.proc import is_opening_to_read, own_task, task_of


@pytest.mark.parametrize(("flags", "is_reading"), [(os.O_RDONLY, True), (os.O_WRONLY, False)])
def test_thread_inside_open_is_seen_to_be_opening_a_file_to_read(
    tmp_path: Path, flags: int, is_reading: bool
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # whose open(2) blocks until the other end is opened, too
    opener = threading.Thread(target=lambda: os.close(os.open(pipe, flags)))
    opener.start()
    try:
        call = Path(f"/proc/self/task/{opener.native_id}/syscall")
        wait_until(lambda: _is_in_open(call))
        assert is_opening_to_read(own_task(opener.native_id or 0)) is is_reading
    finally:
        os.close(os.open(pipe, os.O_RDWR))
        opener.join()


def _is_in_open(call: Path) -> bool:
    return call.read_text().split()[0] in ("2", "56", "257")


def test_thread_that_waits_for_something_else_is_opening_nothing() -> None:
    waiting = threading.Event()
    waiter = threading.Thread(target=waiting.wait)
    waiter.start()
    try:
        assert not is_opening_to_read(task_of(waiter.native_id or 0))
    finally:
        waiting.set()
        waiter.join()


def test_unknown_thread_is_opening_nothing() -> None:
    assert not is_opening_to_read(task_of(0))
