"""Files that several programs of one mount write at the same time."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mounts import Mount, Mounts

PROGRAMS, LINES = 4, 40

APPENDING = """
import sys
path, program, lines, reopens = sys.argv[1], *map(int, sys.argv[2:])
file = open(path, "ab", buffering=0)
for number in range(lines):
    line = f"{program} {number} " + "x" * (number * 300) + " end\\n"
    assert file.write(line.encode()) == len(line)
    if reopens:
        file.close()
        file = open(path, "ab", buffering=0)
file.close()
"""

MAPPING = """
import sys
import numpy as np
path, program, programs = sys.argv[1], *map(int, sys.argv[2:])
array = np.memmap(path, dtype="i4", mode="r+", shape=(1000, 300))
for row in range(program, 1000, programs):
    array[row] = row + program
    if row % 100 == program:
        array.flush()
array.flush()
"""


@pytest.fixture(scope="module")
def shared_mount(shared_mounts: Mounts) -> Mount:
    """A mount of blocks so small that every file has several."""
    return shared_mounts("--block-size", "64KiB")


def run_all(program: str, path: Path, *arguments: int) -> None:
    """Run the program several times at once, each with a number of its own."""
    commands = [[program, path, number, *arguments] for number in range(PROGRAMS)]
    running = [subprocess.Popen([sys.executable, "-c", *map(str, command)]) for command in commands]
    assert [program.wait() for program in running] == [0] * PROGRAMS


@pytest.mark.parametrize("reopens", [0, 1])
def test_every_line_that_programs_append_is_there_once_and_whole(
    directory: Path, remounted: Callable[[], Path], reopens: int
) -> None:
    run_all(APPENDING, directory / "log", LINES, reopens)
    lines = (remounted() / "log").read_text().splitlines()
    numbers = [(program, number) for program in range(PROGRAMS) for number in range(LINES)]
    assert sorted(lines) == sorted(
        f"{program} {number} " + "x" * (number * 300) + " end" for program, number in numbers
    )
    assert (directory / "log").read_text().splitlines() == lines


def test_programs_map_one_array_and_each_changes_its_rows(
    directory: Path, remounted: Callable[[], Path]
) -> None:
    path = directory / "array"
    array = np.memmap(path, dtype="i4", mode="w+", shape=(1000, 300))
    array[:] = -1
    array.flush()
    run_all(MAPPING, path, PROGRAMS)
    expected = np.arange(1000) + np.arange(1000) % PROGRAMS
    for found in (array, np.memmap(remounted() / "array", dtype="i4", mode="r", shape=(1000, 300))):
        np.testing.assert_array_equal(found, np.repeat(expected[:, None], 300, axis=1))
