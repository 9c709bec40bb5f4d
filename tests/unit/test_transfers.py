import threading
from collections.abc import Iterator

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
