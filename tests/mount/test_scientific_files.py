"""Files of simulation codes, edited in place in the mount and on a local disk: both end up the same."""

import filecmp
from collections.abc import Callable
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
from mounts import Mount, Mounts, run

FORTRAN = """
program restart
    integer :: i, n, place
    real(8) :: row(333)
    character(80) :: line
    open(10, file='rows.bin', form='unformatted', access='direct', recl=2664, status='replace')
    do i = 1, 200
        row = i
        write(10, rec=i) row
    end do
    do i = 1, 300
        place = mod(i * 7919, 200) + 1
        read(10, rec=place) row
        row(mod(i, 333) + 1) = -i
        write(10, rec=place) row
    end do
    close(10)
    open(11, file='log.txt', status='replace')
    do i = 1, 50
        write(11, '(A,I0)') 'line ', i
    end do
    do i = 1, 10
        backspace(11)
    end do
    write(11, '(A)') 'instead of the last ten'
    endfile(11)
    rewind(11)
    n = 0
    do
        read(11, '(A)', end=20) line
        n = n + 1
    end do
20  close(11)
    open(11, file='log.txt', position='append')
    write(11, '(A,I0)') 'lines ', n
    close(11)
    open(12, file='steps.bin', form='unformatted', status='replace')
    do i = 1, 40
        write(12) row
    end do
    rewind(12)
    do i = 1, 20
        read(12) row
    end do
    write(12) (real(i, 8), i = 1, 5)
    close(12)
end program
"""


@pytest.fixture(scope="module")
def shared_mount(shared_mounts: Mounts) -> Mount:
    """A mount of blocks so small that every file has several."""
    return shared_mounts("--block-size", "64KiB")


@pytest.fixture
def on_both(
    directory: Path, tmp_path: Path, remounted: Callable[[], Path]
) -> Callable[[Callable[[Path], None]], Path]:
    """Call it to have the same done in the mount and on the local disk, and every file compared."""

    def compare(work: Callable[[Path], None]) -> Path:
        local = tmp_path / "local"
        local.mkdir()
        work(local)
        work(directory)
        names = sorted(path.name for path in local.iterdir())
        again = remounted()
        assert sorted(path.name for path in again.iterdir()) == names
        assert filecmp.cmpfiles(local, again, names, shallow=False) == (names, [], [])
        return again

    return compare


def edit_hdf5(directory: Path) -> None:
    """Make, grow, change and delete, closing the file in between."""
    path = directory / "data.h5"
    rows = np.arange(60_000, dtype="f8").reshape(600, 100)
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=rows, maxshape=(None, 100), chunks=(50, 100))
        file.create_dataset("packed", data=rows, chunks=(100, 100), compression="gzip")
        file.create_dataset("going", data=rows)
    for step in range(3):
        with h5py.File(path, "r+") as file:
            file["rows"].resize(600 * (step + 2), axis=0)
            file["rows"][-600:] = rows * step
            file["rows"][::97, step] = -1
            file["packed"][step * 50 : step * 50 + 80] = step
            file["rows"].attrs["step"] = f"step {step}" * (step + 1)
    with h5py.File(path, "r+") as file:
        del file["going"]
        del file["rows"].attrs["step"]
        file.attrs["unit"] = "m"


def edit_netcdf(directory: Path) -> None:
    """Make a time series, let it grow, change a part, rename and delete attributes."""
    path = directory / "data.nc"
    field = np.arange(20_000, dtype="f4").reshape(100, 200)
    with netCDF4.Dataset(path, "w") as file:
        for name, length in (("time", None), ("y", 100), ("x", 200)):
            file.createDimension(name, length)
        variable = file.createVariable("t", "f4", ("time", "y", "x"), chunksizes=(1, 50, 200), zlib=True)
        variable.units = "K"
        variable.comment = "to be deleted"
    for step in range(4):
        with netCDF4.Dataset(path, "a") as file:
            file["t"][step] = field * step
            file["t"][step // 2, 10:20, ::3] = -1
            file.history = f"step {step} " * (step + 1)
    with netCDF4.Dataset(path, "a") as file:
        file["t"].delncattr("comment")
        file.renameVariable("t", "temperature")


def test_hdf5_is_grown_and_edited_as_on_a_local_disk(
    on_both: Callable[[Callable[[Path], None]], Path],
) -> None:
    with h5py.File(on_both(edit_hdf5) / "data.h5", "r") as file:
        assert sorted(file) == ["packed", "rows"]
        assert file["rows"].shape == (2400, 100)


def test_netcdf_is_grown_and_edited_as_on_a_local_disk(
    on_both: Callable[[Callable[[Path], None]], Path],
) -> None:
    with netCDF4.Dataset(on_both(edit_netcdf) / "data.nc") as file:
        assert file["temperature"].shape == (4, 100, 200)


def test_a_fortran_program_rewrites_records_and_goes_back_as_on_a_local_disk(
    on_both: Callable[[Callable[[Path], None]], Path], tmp_path: Path
) -> None:
    source, program = tmp_path / "restart.f90", tmp_path / "restart"
    source.write_text(FORTRAN)
    assert run("gfortran", "-o", program, source).returncode == 0

    def execute(directory: Path) -> None:
        ended = run("sh", "-c", 'cd "$0" && exec "$1"', directory, program)
        assert ended.returncode == 0, ended.stderr

    assert (on_both(execute) / "log.txt").read_text().endswith("line 40\ninstead of the last ten\nlines 41\n")
