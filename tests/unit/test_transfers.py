import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from blobfs.errors import NotFound, Unavailable
from blobfs.transfers import Transfers


@pytest.fixture
def transfers() -> Iterator[Transfers]:
    transfers = Transfers(reads=1, writes=2)
    transfers.start()
    yield transfers
    transfers.close()


def test_uploads_cannot_starve_a_reader(transfers: Transfers) -> None:
    release = threading.Event()
    uploads = [transfers.submit_write(release.wait, 30) for _ in range(5)]
    assert transfers.submit_read(lambda: "read").result(10) == "read"
    assert not any(upload.done() for upload in uploads)
    release.set()


def test_results_come_in_the_order_of_the_items(transfers: Transfers) -> None:
    second_done = threading.Event()

    def task(item: int) -> int:
        if item == 0:
            assert second_done.wait(10)
        if item == 1:
            second_done.set()
        return item * item

    assert transfers.for_each(task, range(4)) == [0, 1, 4, 9]


def test_first_failure_is_raised_after_all_tasks_ran(transfers: Transfers) -> None:
    ran = []

    def task(item: int) -> None:
        ran.append(item)
        if item == 1:
            raise NotFound("one")
        if item == 2:
            raise Unavailable("two")

    with pytest.raises(NotFound, match="one"):
        transfers.for_each(task, range(5))
    assert sorted(ran) == [0, 1, 2, 3, 4]


def test_shares_are_one_for_each_thread_or_of_the_largest_size(transfers: Transfers) -> None:
    assert transfers.shares([], 3) == []
    assert transfers.shares([1], 3) == [[1]]
    assert transfers.shares([1, 2, 3], 3) == [[1, 2], [3]]
    assert transfers.shares(list(range(8)), 3) == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_task_for_later_runs_once(transfers: Transfers) -> None:
    ran = threading.Event()
    transfers.run_after(0.0, ran.set)
    assert ran.wait(10)


def test_task_for_later_runs_in_time_while_a_batch_is_worked_on(transfers: Transfers) -> None:
    begun, release, ran = threading.Barrier(3), threading.Event(), threading.Event()

    def task(item: int) -> None:
        if item < 2:
            begun.wait(10)
        assert release.wait(30)

    batch = threading.Thread(target=transfers.for_each, args=(task, range(5)))
    batch.start()
    begun.wait(10)
    transfers.run_after(0.0, ran.set)
    assert ran.wait(5)
    release.set()
    batch.join()


def test_no_thread_runs_before_start_or_after_close() -> None:
    before = set(threading.enumerate())
    transfers = Transfers(reads=2, writes=2)
    assert set(threading.enumerate()) <= before
    transfers.start()
    transfers.submit_read(lambda: None).result(10)
    transfers.close()
    assert set(threading.enumerate()) <= before


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_every_task_is_run_by_the_threads_that_are_there_while_the_machine_gives_no_more(
    transfers: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    with monkeypatch.context() as shortage:
        shortage.setattr(threading.Thread, "start", refuse)
        uploads = [transfers.submit_write(release.wait, 30) for _ in range(5)]
        assert transfers.for_each(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
        release.set()
        assert all(upload.result(10) for upload in uploads)
    together = threading.Barrier(2)
    pair = [transfers.submit_write(together.wait, 10) for _ in range(2)]
    assert {upload.result(20) for upload in pair} == {0, 1}


def test_timer_goes_on_after_the_machine_gave_no_more_threads(
    transfers: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release, ran = threading.Event(), threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        begun.set()
        assert release.wait(30)

    transfers.run_after(0.0, hold)
    assert begun.wait(10)
    with monkeypatch.context() as shortage:
        refused = threading.Event()

        def refuse_and_tell(thread: threading.Thread) -> None:
            refused.set()
            refuse(thread)

        shortage.setattr(threading.Thread, "start", refuse_and_tell)
        transfers.run_after(0.0, ran.release)
        assert refused.wait(10)
    transfers.run_after(0.0, ran.release)
    assert ran.acquire(timeout=10)  # by a second thread
    release.set()
    assert ran.acquire(timeout=10)


def test_what_a_task_took_is_free_once_it_is_done(transfers: Transfers) -> None:
    class Buffer:
        pass

    def fail(_: Buffer) -> None:
        raise NotFound("it")

    for task in (id, fail):
        buffer = Buffer()
        gone = threading.Event()
        weakref.finalize(buffer, gone.set)
        transfers.submit_write(task, buffer).exception(10)
        del buffer
        assert gone.wait(10)


def test_tasks_that_still_wait_are_given_up_at_the_end_but_for_those_on_the_disk() -> None:
    transfers = Transfers(reads=1, writes=1)
    transfers.start()
    begun, release = threading.Barrier(3), threading.Event()

    def hold() -> None:
        begun.wait(10)
        assert release.wait(30)

    for submit in (transfers.submit_read, transfers.submit_disk):
        submit(hold)
    begun.wait(10)
    read, written = transfers.submit_read(id, 0), transfers.submit_disk(abs, -1)
    closing = threading.Thread(target=transfers.close)
    closing.start()
    with pytest.raises(CancelledError):
        read.result(10)
    release.set()
    closing.join()
    assert written.result(0) == 1
    with pytest.raises(RuntimeError, match="closed"):
        transfers.submit_read(id, 0)
