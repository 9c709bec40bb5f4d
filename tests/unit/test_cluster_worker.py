"""What a worker of a cluster has for a copy: until when it is there, and what it tells."""

import asyncio
import os
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import wait_until

from blobfs.cluster import FileProgress
from blobfs.cluster_worker import MovedBytes, WorkerSession
from blobfs.copies import session
from blobfs.copy_session import Route
from blobfs.copying.entries import Entry, Work
from blobfs.copying.interruption import Interruption
from blobfs.copying.places import Container, Place
from blobfs.copying.report import Report, Unwatched
from blobfs.errors import Unavailable
from blobfs.format.attributes import Attributes
from blobfs.settings import ContentSettings, CopySettings, ServiceSettings, SessionSettings

WORK = Work(Entry("file", Attributes(0o100644, 0, 0, 0, 0, 0), 10), "file", "there")
SETTINGS = SessionSettings(ServiceSettings("devstoreaccount1", "results"), ContentSettings(), CopySettings())


def test_a_session_is_closed_only_when_nothing_is_done_with_it_any_more() -> None:
    own = WorkerSession("x", SETTINGS)
    worker: Any = SimpleNamespace()
    own.setup(worker)
    began, may_end, closed = threading.Event(), threading.Event(), threading.Event()
    own._closing.callback(closed.set)

    def use() -> None:
        with own.use():
            began.set()
            may_end.wait()

    user = threading.Thread(target=use)
    user.start()
    began.wait()
    ending = threading.Thread(target=lambda: asyncio.run(own.teardown(worker)))
    ending.start()
    wait_until(lambda: own.interruption.is_set)
    assert not closed.is_set()
    may_end.set()
    ending.join()
    user.join()
    assert closed.is_set()


def test_no_file_leaves_anything_with_the_pool_of_a_session() -> None:
    there = Place("there", "there", Container("devstoreaccount1", "results"))
    route = Route(Place("here", "here"), there, there.path)
    with session(SETTINGS, Report(Unwatched()), Interruption()) as opened:
        before = len(opened.content.pool._reclaimers)
        for _ in range(3):
            opened.carrier(route)
            opened.parts(route, WORK)
        assert len(opened.content.pool._reclaimers) == before


def test_a_worker_that_has_no_credential_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_STORAGE_")]:
        monkeypatch.delenv(name)
    here = WorkerSession("x", replace(SETTINGS, service=ServiceSettings("ada", "results")))
    worker: Any = SimpleNamespace(address="tcp://10.0.0.7:1234")
    with pytest.raises(Unavailable, match=r"the worker tcp://10\.0\.0\.7:1234: no credential"):
        here.setup(worker)


def test_what_has_moved_is_told_for_each_file_at_its_end() -> None:
    told: list[tuple[str, int]] = []
    moved = MovedBytes(lambda target, size_bytes: told.append((target, size_bytes)))
    for target in ("one", "two"):
        with moved.of(target):
            moved.moved(3)
            moved.moved(4)
    assert told == [("one", 7), ("two", 7)]


def test_no_more_of_a_file_is_shown_to_have_moved_than_there_is() -> None:
    moved: list[int] = []
    progress = FileProgress(moved.append)
    progress.begin(WORK)
    progress.note("there", 6)
    progress.note("there", 6)  # by another worker, the first one being lost
    progress.note("elsewhere", 6)
    progress.end(WORK, was_copied=True)
    progress.note("there", 1)
    assert moved == [6, 4]


def test_what_failed_moves_no_further() -> None:
    moved: list[int] = []
    progress = FileProgress(moved.append)
    progress.begin(WORK)
    progress.note("there", 6)
    progress.end(WORK, was_copied=False)
    assert moved == [6]
