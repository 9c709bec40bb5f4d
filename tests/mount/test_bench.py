"""The benchmark itself, on its smallest cells."""

import json
import os
import sys
from pathlib import Path

import pytest
from mounts import PROJECT, run

SEARCHED = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])


def bench(*arguments: str | Path) -> str:
    """Run the benchmark in its smallest size and return what it printed."""
    ended = run(sys.executable, "-m", "bench", "--scale", "tiny", *arguments, PYTHONPATH=SEARCHED)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("workload", ["read-sequential", "cp-in-small", "rsync-again"])
def test_one_cell_of_the_benchmark_can_be_run_again(tmp_path: Path, workload: str) -> None:
    said = bench(
        *("--only", workload, "--system", "blobfs", "--model", "none"),
        *("--repeats", "1", "--no-plots", "--output", tmp_path),
    )

    assert workload in said
    cells = json.loads((tmp_path / "benchmark.json").read_text())["measurements"]
    assert {cell["workload"] for cell in cells} == {workload}
    for cell in cells:
        assert cell["error"] == ""
        assert cell["seconds"] > 0
        assert cell["peak_memory_bytes"] > 0
        assert sum(cell["requests"].values()) > 0
    assert "| blobfs |" in (tmp_path / "benchmark.md").read_text()


def test_the_mount_of_zeros_and_the_raw_limit_are_measured_beside(tmp_path: Path) -> None:
    bench(
        *("--only", "read-sequential", "--system", "zeros", "--system", "curl", "--model", "2ms"),
        *("--repeats", "1", "--no-plots", "--output", tmp_path),
    )

    cells = json.loads((tmp_path / "benchmark.json").read_text())["measurements"]
    assert [cell["error"] for cell in cells] == ["", "", ""]  # cold, warm and curl
    assert [cell["sent_bytes"] for cell in cells] == [0, 0, 1 << 20]


def test_an_unknown_cell_is_refused_with_those_there_are() -> None:
    ended = run(sys.executable, "-m", "bench", "--only", "swim", PYTHONPATH=SEARCHED)

    assert ended.returncode == 2
    assert "There is no workload 'swim' here, only: read-sequential," in ended.stderr
