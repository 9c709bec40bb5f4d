"""Copies by a real Dask cluster: a scheduler and workers, each a process of its own."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from azurite import Azurite
from click.testing import CliRunner
from mounts import PATH, PROJECT, bash, blobfs, clean_environment
from ports import reserved_port
from responder.control import Responder
from responder.faults import Fault, Rule
from tokens import container_sas
from trees import make_tree, snapshot
from waiting import wait_until

from blobfs.cli.main import blobfs as command

TEXT = (PROJECT / "docs" / "cluster.md").read_text()

MANY = 100  # files: all threads of the workers have one of them in the middle of the copy

LARGE_BYTES = 40 << 20
UNIT_BYTES = 2 << 20  # what is fetched at once with 16 MiB of memory


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
        self.logs = [directory / f"worker-{number}.log" for number in range(2)]
        self.processes = [self._worker(log) for log in self.logs]
        wait_until(lambda: all("Registered to" in log.read_text() for log in self.logs))

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


class Commands:
    """Runs commands for the workers of a scheduler, with a service that does what it is told."""

    def __init__(self, scheduler: str, service: Responder) -> None:
        self.scheduler = scheduler
        self.service = service
        self.where = f"{service.account}/results/large"
        self.environment = {**clean_environment(), "BLOBFS_ENDPOINT": service.endpoint}

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """Return a command line. Little memory makes small units."""
        options = ["--scheduler", self.scheduler, "--memory", "16MiB", "--block-size", "1MiB"]
        return [sys.executable, "-m", "blobfs", name, *options, *map(str, arguments)]

    def __call__(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            self.command(*map(str, arguments)),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, *arguments: str | Path, start_new_session: bool = False) -> "subprocess.Popen[str]":
        """Begin a command."""
        return subprocess.Popen(
            self.command(*map(str, arguments)),
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=start_new_session,
        )

    def upload_large(self, directory: Path) -> Path:
        """Put a large file there, without the workers."""
        large = directory / "large"
        large.write_bytes(os.urandom(LARGE_BYTES))
        ended = blobfs("cp", "--block-size", "1MiB", large, self.where, BLOBFS_ENDPOINT=self.service.endpoint)
        assert ended.returncode == 0, ended.stderr
        self.service.reset_counters()
        return large


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Workers that outlive a test."""
    workers = Workers(tmp_path_factory.mktemp("cluster"))
    yield workers
    workers.close()


@pytest.fixture
def mortals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Workers that a test may kill."""
    workers = Workers(tmp_path_factory.mktemp("mortals"))
    yield workers
    workers.close()


@pytest.fixture
def service() -> Iterator[Responder]:
    with Responder() as responder:
        responder.create_container("results")
        yield responder


def test_a_tree_goes_there_and_back_although_a_worker_dies(
    service: Responder, mortals: Workers, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree")
    (tree / "many").mkdir()
    for number in range(MANY):
        (tree / "many" / str(number)).write_text(str(number))
    where = f"{service.account}/results/run"
    options = ["-r", "--scheduler", mortals.address, "--block-size", "1MiB", "--endpoint", service.endpoint]

    service.order(Rule(kind="PUT blob", pattern="/run/many/", skip=MANY // 2, fault=Fault.HOLD))
    copy = subprocess.Popen(
        [sys.executable, "-m", "blobfs", "cp", *options, tree, where], env=dict(clean_environment())
    )
    wait_until(lambda: service.hits[0] >= 4)  # all threads of both workers
    mortals.processes[0].kill()
    mortals.processes[0].wait()
    service.order()
    assert copy.wait() == 0
    back = blobfs("cp", *options, where, tmp_path / "back")
    assert back.returncode == 0, back.stderr
    assert snapshot(tmp_path / "back") == snapshot(tree)


def test_a_file_that_workers_may_not_even_look_at_fails_alone(
    workers: Workers, service: Responder, tmp_path: Path
) -> None:
    for name in ("forbidden", *map(str, range(20))):
        (tmp_path / name).write_text(name)
    command = Commands(workers.address, service)
    service.order(Rule(pattern="(PUT|HEAD) .*/forbidden", status=403))
    ended = command("cp", "-r", f"{tmp_path}/.", command.where)
    assert (ended.returncode, "ended early" in ended.stderr) == (1, False), ended.stderr
    assert f"{tmp_path}/forbidden: failed: " in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("21 copied, 1 failed")


def test_workers_stage_the_blocks_of_a_large_file_once(
    workers: Workers, service: Responder, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(20 << 20))
    command = Commands(workers.address, service)
    service.reset_counters()
    ended = command("cp", tmp_path / "large", command.where)
    assert ended.returncode == 0, ended.stderr
    requests = service.counters.requests
    assert requests["PUT block"] == 20
    assert requests["GET block list"] == 3 + 1  # three tasks of up to eight blocks, and the committer
    there = "--endpoint", service.endpoint, tmp_path / "large", command.where
    assert blobfs("verify", *there).returncode == 0


def test_workers_fetch_the_blocks_of_a_large_file_once(
    workers: Workers, service: Responder, tmp_path: Path
) -> None:
    command = Commands(workers.address, service)
    large = command.upload_large(tmp_path)
    service.order(Rule(kind="GET blob", latency_seconds=0.2))
    ended = command("cp", command.where, tmp_path / "back")
    assert ended.returncode == 0, ended.stderr
    requests = service.counters.requests
    assert requests["GET blob"] == LARGE_BYTES // UNIT_BYTES
    assert requests["GET block list"] == 1 + len(workers.processes)
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*back*")) == ["back"]


def test_a_large_file_comes_although_a_worker_dies_that_fetches_some_of_it(
    mortals: Workers, service: Responder, tmp_path: Path
) -> None:
    command = Commands(mortals.address, service)
    large = command.upload_large(tmp_path)
    service.order(Rule(kind="GET blob", latency_seconds=0.5))
    copy = command.start("cp", command.where, tmp_path / "back")
    wait_until(lambda: service.counters.requests.get("GET block list", 0) == 3 and service.hits[0] > 4)
    mortals.processes[0].kill()
    _, said = copy.communicate(timeout=60)
    assert copy.returncode == 0, said
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert list(tmp_path.glob(".blobfs-*")) == []


def test_workers_say_how_much_of_a_large_file_has_moved(
    workers: Workers, service: Responder, tmp_path: Path
) -> None:
    command, large = Commands(workers.address, service), tmp_path / "large"
    large.write_bytes(os.urandom(LARGE_BYTES))
    service.order(Rule(kind="PUT block", latency_seconds=0.5))
    bar = f"script -qec '{shlex.join(command.command('cp', large, command.where))}' /dev/null"
    said = subprocess.run(bar, shell=True, env=command.environment, stdout=-1, check=True, text=True).stdout
    shown = {float(share) for share in re.findall(r"([\d.]+)/40\.0 MiB", said)}
    assert len(shown - {0.0, 40.0}) > 1
    assert max(shown) <= 40.0


def test_ctrl_c_ends_the_workers_of_this_machine_without_a_word_of_theirs(
    service: Responder, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(LARGE_BYTES))
    service.order(Rule(kind="PUT block", latency_seconds=0.5))
    command = Commands("local", service)
    copy = command.start("cp", tmp_path / "large", command.where, start_new_session=True)
    wait_until(lambda: service.hits[0] > 3)
    os.killpg(copy.pid, signal.SIGINT)  # as a terminal does
    _, said = copy.communicate(timeout=60)
    assert copy.returncode == 130
    assert said.splitlines() == ["blobfs: interrupted; the same command goes on from here."]


def test_the_commands_for_a_cluster_work_in_their_order(
    azurite: Azurite, container: str, workers: Workers, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "results")
    words = {"ACCOUNT": azurite.account, "CONTAINER": container, "tcp://HOST:8786": workers.address}
    install, *examples = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert install == "pip install '.[cluster]'\n"  # as for tests
    for example in examples:
        script = _replaced(example, words)
        ended = bash(tmp_path, f"set -e\n{script}", BLOBFS_ENDPOINT=azurite.endpoint)
        assert ended.returncode == 0, ended.stderr
    assert snapshot(tmp_path / "copy-44") == snapshot(tree)


def test_the_job_for_slurm_copies(azurite: Azurite, container: str, tmp_path: Path) -> None:
    """With a stand-in for srun, that starts what it is given twice, and for the end of the job."""
    tree = make_tree(tmp_path / "results")
    (tmp_path / ".secrets").mkdir()
    token = container_sas(container)
    (tmp_path / ".secrets" / "results.sas").write_text(token)
    (tmp_path / "srun").write_text('#!/bin/sh\n"$@" & "$@" & wait\n')
    (tmp_path / "srun").chmod(0o700)
    (script,) = re.findall(r"^```sh job\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    with reserved_port("") as port, (tmp_path / "said").open("wb") as said:
        words = {"ACCOUNT": azurite.account, "CONTAINER": container, "8786": str(port)}
        job = subprocess.Popen(
            ["bash", "-c", _replaced(script, {**words, "/scratch/results": str(tree)})],
            cwd=tmp_path,
            env={
                **clean_environment(),
                "HOME": str(tmp_path),
                "PATH": f"{tmp_path}:{PATH}",
                "SLURM_JOB_ID": "7",
                "BLOBFS_ENDPOINT": azurite.endpoint,
            },
            stderr=said,
            start_new_session=True,
        )
        try:
            assert job.wait(60) == 0, (tmp_path / "said").read_text()
        finally:
            os.killpg(job.pid, signal.SIGKILL)
    where = f"{azurite.account}/{container}/run-45"
    assert blobfs("verify", "--endpoint", azurite.endpoint, tree, where).returncode == 0
    assert (tmp_path / "said").read_text().count("Registered to") == 2


def _replaced(command: str, words: Mapping[str, str]) -> str:
    return re.sub("|".join(words), lambda word: words[word.group()], command)


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
    assert "in the clone of blobfs: pip install '.[cluster]'" in result.output
