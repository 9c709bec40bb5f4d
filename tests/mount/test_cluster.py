"""Copies by a real Dask cluster: a scheduler and workers, each a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from azurite import Azurite
from click.testing import CliRunner
from mounts import blobfs, clean_environment
from responder.control import Responder
from trees import make_tree, snapshot
from waiting import wait_until

from blobfs.cli.main import blobfs as command

MANY = 100  # files, for a copy that lasts long enough to lose a worker in it


class Workers:
    """A cluster of two workers on this machine, which end with it."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self._stack = ExitStack()
        self._environment = {**clean_environment(), "DASK_DISTRIBUTED__DASHBOARD__LINK": "", **environment}
        log = directory / "scheduler.log"
        self._start("dask_scheduler", log, "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
        wait_until(lambda: re.search(r"tcp://\S+:\d+", log.read_text()) is not None)
        found = re.search(r"tcp://\S+:\d+", log.read_text())
        assert found is not None
        self.address = found.group()
        self.processes = [self._worker(directory / f"worker-{number}.log") for number in range(2)]
        wait_until(lambda: all("Registered to" in log.read_text() for log in directory.glob("worker-*")))

    def close(self) -> None:
        """End all of it."""
        self._stack.close()

    def _worker(self, log: Path) -> "subprocess.Popen[bytes]":
        options = ("--no-nanny", "--nthreads", "2", "--no-dashboard")
        return self._start("dask_worker", log, self.address, *options)

    def _start(self, module: str, log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
            env=self._environment,
            cwd=log.parent,
            stderr=self._stack.enter_context(log.open("wb")),
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Workers with an environment of their own."""
    (tmp_path / "cluster").mkdir()
    workers = Workers(tmp_path / "cluster")
    yield workers
    workers.close()


def test_a_tree_goes_there_and_back_although_a_worker_dies(
    azurite: Azurite, container: str, workers: Workers, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree")
    (tree / "many").mkdir()
    for number in range(MANY):
        (tree / "many" / str(number)).write_text(str(number))
    where = f"{azurite.account}/{container}/run"
    options = ["-r", "--scheduler", workers.address, "--block-size", "1MiB", "--endpoint", azurite.endpoint]

    with azurite.client() as client, client.get_container_client(container) as blobs:
        copy = subprocess.Popen(
            [sys.executable, "-m", "blobfs", "cp", *options, tree, where], env=dict(clean_environment())
        )
        wait_until(lambda: any(True for _ in blobs.list_blob_names(name_starts_with="run/many/")))
        workers.processes[0].kill()
        workers.processes[0].wait()
        assert sum(1 for _ in blobs.list_blob_names(name_starts_with="run/many/")) < MANY
        assert copy.wait() == 0
    back = blobfs("cp", *options, where, tmp_path / "back")
    assert back.returncode == 0, back.stderr
    assert snapshot(tmp_path / "back") == snapshot(tree)


def test_workers_stage_the_blocks_of_a_large_file_once(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(20 << 20))
    with Responder() as responder:
        responder.create_container("results")
        where = f"{responder.account}/results/large"
        options = ["--scheduler", workers.address, "--block-size", "1MiB", "--endpoint", responder.endpoint]
        responder.reset_counters()
        ended = blobfs("cp", *options, tmp_path / "large", where)
        assert ended.returncode == 0, ended.stderr
        requests = responder.counters.requests
        assert requests["PUT block"] == 20
        assert requests["GET block list"] == 3 + 1  # three tasks of up to eight blocks, and the committer
        assert blobfs("verify", "--endpoint", responder.endpoint, tmp_path / "large", where).returncode == 0


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    options = ["--timeout", "1", "--auth", "anonymous", "--scheduler", "tcp://127.0.0.1:9"]
    ended = blobfs("cp", "-r", *options, tmp_path, "ada/results")
    assert ended.returncode == 1
    assert "tcp://127.0.0.1:9: no Dask cluster with workers answers" in ended.stderr


@pytest.mark.parametrize(
    "arguments", [["-", "ada/results/x"], ["--limit-rate", "1MiB", "here", "ada/results"]]
)
def test_what_is_for_one_machine_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(command, ["cp", "--scheduler", "local", *arguments])
    assert result.exit_code == 2
    assert "--scheduler" in result.output


def test_without_dask_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = CliRunner().invoke(command, ["cp", "--scheduler", "local", "here", "ada/results"])
    assert result.exit_code == 2
    assert "pip install 'blobfs[cluster]'" in result.output
