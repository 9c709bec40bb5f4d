"""The threads that copy: how they end."""

import os
import signal
import stat
import threading

import pytest
from waiting import wait_until

from blobfs.copying.entries import Entry, Work
from blobfs.copying.interruption import Interruption
from blobfs.copying.workers import WAITING_PER_THREAD, Workers
from blobfs.format.attributes import Attributes

WORK = Work(Entry("file", Attributes(stat.S_IFREG, 0, 0, 0, 0, 0), 0), "file", "file")


def test_a_second_interruption_leaves_no_thread_behind() -> None:
    interruption, may_end = Interruption(), threading.Event()
    before = set(threading.enumerate())

    def perform(_work: Work) -> None:
        wait_until(lambda: interruption.is_set)
        os.kill(os.getpid(), signal.SIGINT)  # as those who wait for the first one's effect do
        may_end.wait()

    workers = Workers(perform, interruption, count=1)

    def be_interrupted() -> None:
        with workers:
            for _ in range(1 + WAITING_PER_THREAD):
                workers.submit(WORK)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    may_end.set()
    wait_until(lambda: set(threading.enumerate()) <= before)
