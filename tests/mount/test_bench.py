"""The benchmark itself, on its smallest cells."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.cells import Measurement
from bench.programs import Failed
from bench.runner import least_disturbed, peak_bytes
from mounts import PROJECT, run

TINY = ("--scale", "tiny", "--model", "2ms", "--repeats", "1", "--no-plots")


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the benchmark's command line."""
    searched = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])
    return run(sys.executable, "-m", "bench", *arguments, PYTHONPATH=searched)


def test_chosen_cells_of_the_benchmark_are_measured_and_written_down(tmp_path: Path) -> None:
    works = ("--only", "read-sequential", "--only", "rsync-again")
    systems = ("--system", "blobfs", "--system", "zeros", "--system", "curl")

    ended = bench(*TINY, *works, *systems, "--output", tmp_path)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    cells = json.loads((tmp_path / "benchmark.json").read_text())["measurements"]
    measured = [(cell["workload"], cell["system"], "warm" if cell["is_warm"] else "cold") for cell in cells]
    assert measured == [
        ("read-sequential", "blobfs", "cold"),
        ("read-sequential", "blobfs", "warm"),
        ("read-sequential", "zeros", "cold"),
        ("read-sequential", "zeros", "warm"),
        ("read-sequential", "curl", "cold"),
        ("rsync-again", "blobfs", "cold"),
    ]
    assert [cell["error"] for cell in cells] == [""] * len(cells)
    assert all(cell["seconds"] > 0 and cell["peak_memory_bytes"] > 0 for cell in cells)
    assert all(0 <= cell["stolen_share"] < 1 for cell in cells)
    assert [cell["sent_bytes"] for cell in cells if cell["system"] == "curl"] == [1 << 20]
    assert [sum(cell["requests"].values()) for cell in cells if cell["system"] == "zeros"] == [0, 0]
    assert "| read 1 MiB, one file, again |" in (tmp_path / "benchmark.md").read_text()


@pytest.mark.parametrize(
    ("shares", "taken"), [([0.0, 0.5], 0.0), ([0.5, 0.01, 0.0], 0.01), ([0.5, 0.2, 0.4, 0.0], 0.2)]
)
def test_a_run_that_the_host_disturbed_is_done_again(shares: list[float], taken: float) -> None:
    turns = iter(shares)

    def turn() -> list[Measurement]:
        return [Measurement("none", "work", "blobfs", 0, is_warm=False, stolen_share=next(turns))]

    assert [run.stolen_share for run in least_disturbed(turn)] == [taken]


def test_a_program_that_ends_under_its_mount_is_a_failure_of_that_cell() -> None:
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(Failed):
            peak_bytes(ended.pid)


def test_a_cell_that_there_is_not_is_refused_with_those_there_are() -> None:
    ended = bench("--only", "swim")

    assert ended.returncode == 2
    assert "There is no workload 'swim' here, only: read-sequential," in ended.stderr


def test_the_list_names_every_workload() -> None:
    ended = bench("--list")
    known = bench("--only", "swim").stderr.partition(" here, only: ")[2].rstrip(".\n").split(", ")
    assert ended.returncode == 0
    assert len(known) > 20
    assert [name for name in known if name not in ended.stdout] == []
