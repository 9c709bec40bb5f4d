"""Ways of reading and writing that no common program has. Each raises OSError, or fails its run."""

import os
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py

from bench.cells import Place

KiB = 1024
MiB = 1024 * KiB


def shell(script: str) -> Callable[[Place], None]:
    """Return what runs a script with $MOUNT, $SOURCE and $SCRATCH, and raises if a command of it fails."""

    def run(place: Place) -> None:
        places = {"MOUNT": place.mount, "SOURCE": place.source, "SCRATCH": place.scratch}
        environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
        subprocess.run(
            ["bash", "-euc", script],
            env=environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    return run


def random_offsets(file_bytes: int, size_bytes: int, count: int, seed: int = 0) -> list[int]:
    """Return the same aligned offsets every time."""
    places = random.Random(seed)
    return [places.randrange(file_bytes // size_bytes) * size_bytes for _ in range(count)]


def random_reads(
    name: str, file_bytes: int, size_bytes: int, count: int, jobs: int
) -> Callable[[Place], None]:
    """Return what reads pieces of a file in no order, shared among so many threads."""
    offsets = random_offsets(file_bytes, size_bytes, count)

    def run(place: Place) -> None:
        path = place.mount / name
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda job: _read_at(path, offsets[job::jobs], size_bytes), range(jobs)))

    return run


def strided_reads(name: str, file_bytes: int, size_bytes: int, stride_bytes: int) -> Callable[[Place], None]:
    """Return what reads a piece at the start of every stride."""
    offsets = list(range(0, file_bytes, stride_bytes))
    return lambda place: _read_at(place.mount / name, offsets, size_bytes)


def _read_at(path: Path, offsets: list[int], size_bytes: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for offset in offsets:
            if len(os.pread(descriptor, size_bytes, offset)) != size_bytes:
                raise EOFError(f"{path} ends before {offset + size_bytes}")
    finally:
        os.close(descriptor)


def buffered_writes(name: str, size_bytes: int, record_bytes: int) -> Callable[[Place], None]:
    """Return what writes a file record by record, leaving to Python's buffer how much goes at a time."""

    def run(place: Place) -> None:
        with open(place.mount / name, "wb") as file:
            for number in range(size_bytes // record_bytes):
                file.write(b"%0*d" % (record_bytes, number))

    return run


def interleaved_reads(names: list[str], read_bytes: int) -> Callable[[Place], None]:
    """Return what opens all files and reads the start of each, in turns of a MiB."""

    def run(place: Place) -> None:
        descriptors = [os.open(place.mount / name, os.O_RDONLY) for name in names]
        for offset in range(0, read_bytes, MiB):
            for descriptor in descriptors:
                os.pread(descriptor, MiB, offset)
        for descriptor in descriptors:
            os.close(descriptor)

    return run


def create_stat_delete(count: int) -> Callable[[Place], None]:
    """Return what makes small files, asks for each, and removes them."""

    def run(place: Place) -> None:
        paths = [place.mount / f"new-{index}" for index in range(count)]
        for path in paths:
            path.write_bytes(b"small")
        for path in paths:
            path.stat()
        for path in paths:
            path.unlink()

    return run


def write_table(path: Path, rows: int) -> None:
    """Write an HDF5 file of one chunked dataset, 8 KiB a row, with as many groups as a real one may have."""
    source = random.Random(0)
    with h5py.File(path, "w") as file:
        for number in range(32):
            file.create_group(f"run-{number:02}").attrs["temperature"] = number
        table = file.create_dataset("table", (rows, 1024), dtype="f8", chunks=(64, 1024))
        for start in range(0, rows, 64):
            table[start : start + 64] = source.random()


def slice_table(name: str, rows: int, count: int) -> Callable[[Place], None]:
    """Return what opens an HDF5 file, looks at its groups and reads some rows in no order."""

    def run(place: Place) -> None:
        with h5py.File(place.mount / name, "r") as file:
            for group in file:
                dict(file[group].attrs)
            for row in random_offsets(rows, 1, count):
                file["table"][row]

    return run
