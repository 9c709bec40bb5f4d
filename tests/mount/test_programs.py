"""Programs that know nothing but POSIX files, working in the mount."""

import errno
import fcntl
import mmap
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from mounts import Mount, Mounts, shell
from unix import refused

# git


def test_git_clones_checks_and_commits(directory: Path, tmp_path: Path) -> None:
    script = """
        export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example
        export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example GIT_CONFIG_NOSYSTEM=1
        git init -q -b main "$SOURCE"
        cp -r "$PROJECT/blobfs/cli" "$PROJECT/scripts" "$SOURCE"
        git -C "$SOURCE" add .
        git -C "$SOURCE" commit -q -m one

        git clone -q "$SOURCE" clone
        cd clone
        git fsck --strict
        git status --porcelain
        echo changed >> scripts/lint
        git mv scripts/test scripts/tests
        git commit -q -a -m two
        git gc -q
        git fsck --strict
        git push -q origin main:copy
        git -C "$SOURCE" log --format=%s copy
        git status --porcelain
    """
    project = Path(__file__).parents[2]
    assert shell(directory, script, SOURCE=tmp_path / "source", PROJECT=project) == "two\none\n"


# Databases and scientific files


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite_keeps_a_database(directory: Path, journal: str) -> None:
    script = f"""
        sqlite3 base.db 'pragma journal_mode={journal};
            create table numbers(number integer primary key, square integer);'
        sqlite3 base.db 'begin;
            with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
                insert into numbers select i, i * i from n;
            commit;'
        sqlite3 base.db 'begin; delete from numbers where number % 2; rollback;'
        sqlite3 base.db 'update numbers set square = -square where number <= 1000; vacuum;'
        sqlite3 base.db 'pragma integrity_check; select count(*), sum(square) from numbers;'
    """
    total = sum(n * n if n > 1000 else -n * n for n in range(1, 5001))
    assert shell(directory, script).split()[1:] == ["ok", f"5000|{total}"]


def test_hdf5_creates_grows_and_changes_a_file(directory: Path) -> None:
    path = directory / "data.h5"
    rows = np.arange(200_000, dtype="f8").reshape(2000, 100)
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=rows, maxshape=(None, 100), chunks=(250, 100), compression="gzip")
        file.attrs["unit"] = "m"
    for step in range(1, 4):
        with h5py.File(path, "r+") as file:
            dataset = file["rows"]
            dataset.resize(dataset.shape[0] + 2000, axis=0)
            dataset[-2000:] = rows * step
            dataset[step] = -1.0
            file.create_group(f"step{step}")
    with h5py.File(path, "r") as file:
        assert file.attrs["unit"] == "m"
        assert sorted(file) == ["rows", "step1", "step2", "step3"]
        expected = np.vstack([rows, rows, rows * 2, rows * 3])
        expected[1:4] = -1.0
        np.testing.assert_array_equal(file["rows"][:], expected)


def test_numpy_maps_a_file_into_memory(directory: Path) -> None:
    path = directory / "array.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype="f4", shape=(1000, 1000))
    array[:] = np.arange(1000)
    array.flush()
    del array
    array = np.load(path, mmap_mode="r+")
    array[500] = -1
    del array
    found = np.load(path, mmap_mode="r")
    assert found[499].tolist() == list(range(1000))
    assert set(found[500]) == {-1.0}


def test_a_fortran_program_writes_records_and_changes_one(directory: Path) -> None:
    (directory / "records.f90").write_text("""
        program records
            integer :: i
            real(8) :: row(100), total
            open(10, file='rows.bin', form='unformatted', access='direct', recl=800, status='new')
            do i = 1, 500
                row = i
                write(10, rec=i) row
            end do
            row = 0
            write(10, rec=250) row
            total = 0
            do i = 500, 1, -1
                read(10, rec=i) row
                total = total + row(50)
            end do
            close(10)
            open(11, file='log.txt', position='append')
            write(11, '(F10.1)') total
            close(11)
        end program
    """)
    script = "gfortran -O0 -o records records.f90; ./records; rm rows.bin; ./records; cat log.txt"
    assert shell(directory, script).split() == ["125000.0", "125000.0"]
    assert (directory / "rows.bin").stat().st_size == 500 * 800


RECORD_PROGRAMS = {
    "records.c": """
        #include <stdio.h>
        int main(int count, char **arguments) {
            static char buffer[1 << 20];
            FILE *file = fopen("records.txt", "w");
            if (count > 1) setvbuf(file, buffer, _IOFBF, sizeof buffer);
            for (int i = 0; i < 10000; i++) fprintf(file, "%99d\\n", i);
            return fclose(file);
        }
    """,
    "records.f90": """
        program records
            integer :: i
            open(10, file='records.txt', status='replace')
            do i = 0, 9999
                write(10, '(I99)') i
            end do
            close(10)
        end program
    """,
    "records.py": """if True:
        with open("records.txt", "w") as file:
            for i in range(10_000):
                file.write(f"{i:99}\\n")
    """,
}


def writes_of(directory: Path, *command: str, **environment: str) -> int:
    """Run a command and return how many times it called write(2)."""
    with subprocess.Popen(command, cwd=directory, env={**os.environ, **environment}) as process:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_status == 0
        return int(re.findall(r"syscw: (\d+)", Path(f"/proc/{process.pid}/io").read_text())[0])


@pytest.mark.parametrize(
    ("command", "environment", "most_bytes"),
    [
        ([sys.executable, "records.py"], {}, 64 << 10),
        (["./c"], {}, 8 << 10),
        (["./c", "setvbuf"], {}, 1 << 20),
        (["./fortran"], {}, 4 << 10),
        (["./fortran"], {"GFORTRAN_FORMATTED_BUFFER_SIZE": "1048576"}, 1 << 20),
    ],
)
def test_programs_write_as_much_at_a_time_as_they_buffer(
    directory: Path, command: list[str], environment: dict[str, str], most_bytes: int
) -> None:
    for name, source in RECORD_PROGRAMS.items():
        (directory / name).write_text(source)
    shell(directory, "gcc -o c records.c; gfortran -o fortran records.f90")
    calls = writes_of(directory, *command, **environment)
    text = (directory / "records.txt").read_text()
    assert text == "".join(f"{number:99}\n" for number in range(10_000))
    assert calls <= len(text) / most_bytes + 2


# Building


def test_make_and_gcc_build_a_library_and_a_program(directory: Path) -> None:
    functions = [f"f{number}" for number in range(12)]
    for number, name in enumerate(functions):
        (directory / f"{name}.c").write_text(f'#include "all.h"\nint {name}(void) {{ return {number}; }}\n')
    (directory / "all.h").write_text("".join(f"int {name}(void);\n" for name in functions))
    total = " + ".join(f"{name}()" for name in functions)
    (directory / "main.c").write_text(
        f'#include <stdio.h>\n#include "all.h"\nint main(void) {{ printf("%d\\n", {total}); }}\n'
    )
    (directory / "Makefile").write_text(
        "CFLAGS = -g -pipe\n"
        f"OBJECTS = {' '.join(f'{name}.o' for name in functions)}\n"
        "main: main.o liball.a liball.so\n\t$(CC) -o $@ main.o -L. -l:liball.a\n"
        "liball.a: $(OBJECTS)\n\tar rcs $@ $^\n"
        "liball.so: $(OBJECTS)\n\t$(CC) -shared -o $@ $^\n"
        "$(OBJECTS) main.o: all.h\n"
    )
    assert "gcc" in shell(directory, "make -j2 CC=gcc")
    assert shell(directory, "./main") == "66\n"
    assert "up to date" in shell(directory, "make CC=gcc")
    shell(directory, "touch f3.c")
    rebuilt = shell(directory, "make CC=gcc")
    assert "f3.o" in rebuilt
    assert "f4.c" not in rebuilt


# Editing


def test_dd_writes_in_pieces_skips_and_overwrites(directory: Path, tmp_path: Path) -> None:
    script = """
        dd if="$FROM" of=file bs=1M status=none
        dd if="$FROM" of=file bs=1000 seek=5000 count=100 conv=notrunc status=none
        dd if=/dev/zero of=file bs=4096 seek=2000 count=1 conv=notrunc,fsync oflag=sync status=none
        dd if=file of="$TO" bs=64K iflag=direct status=none
    """
    content = bytearray(np.random.default_rng(0).bytes(10 << 20))
    (tmp_path / "from").write_bytes(content)
    shell(directory, script, FROM=tmp_path / "from", TO=tmp_path / "to")
    content[5_000_000:5_100_000] = content[:100_000]
    content[2000 * 4096 : 2001 * 4096] = bytes(4096)
    assert (tmp_path / "to").read_bytes() == content
    assert (directory / "file").read_bytes() == content


def test_sed_edits_in_place(directory: Path) -> None:
    path = directory / "file"
    path.write_text("one\ntwo\nthree\n")
    path.chmod(0o640)
    shell(directory, "sed -i s/two/2/ file; sed -i.bak /three/d file")
    assert path.read_text() == "one\n2\n"
    assert (directory / "file.bak").read_text() == "one\n2\nthree\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(directory)) == ["file", "file.bak"]


def test_an_editor_saves_by_renaming_the_old_file_and_writing_a_new_one(directory: Path) -> None:
    path, swap, backup = directory / "file", directory / ".file.swp", directory / "file~"
    for version in range(3):
        if version == 0:
            path.write_text("version 0")
            continue
        with swap.open("w+b", buffering=0) as swapped:
            swapped.write(bytes(4096))
            os.fsync(swapped.fileno())
            path.rename(backup)
            with path.open("x") as file:
                file.write(f"version {version}")
                file.flush()
                os.fsync(file.fileno())
            path.chmod(0o600)
            backup.unlink()
            swap.unlink()
        assert path.read_text() == f"version {version}"
        assert os.listdir(directory) == ["file"]


def test_a_shell_appends_line_by_line(directory: Path) -> None:
    shell(directory, "for i in $(seq 100); do echo $i >> log; done")
    assert (directory / "log").read_text().split() == [str(number) for number in range(1, 101)]


def test_two_programs_append_to_one_log_without_losing_a_line(directory: Path) -> None:
    writer = 'for i in $(seq 50); do echo "$0 $i"; done >> log'
    programs = [subprocess.Popen(["sh", "-c", writer, name], cwd=directory) for name in ("a", "b")]
    assert [program.wait() for program in programs] == [0, 0]
    lines = (directory / "log").read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {number}" for name in "ab" for number in range(1, 51))


def test_python_makes_temporary_files_and_directories(directory: Path) -> None:
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"content")
        file.seek(0)
        assert file.read() == b"content"
        assert os.listdir(directory) == []
    with tempfile.TemporaryDirectory(dir=directory) as below, tempfile.NamedTemporaryFile(dir=below) as named:
        named.write(b"content")
        named.flush()
        assert Path(named.name).read_bytes() == b"content"
    assert os.listdir(directory) == []


# Locks and shared memory

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_lock_keeps_another_program_out_until_it_is_released(directory: Path, kind: str) -> None:
    path = directory / "lock"
    path.touch()
    lock = getattr(fcntl, kind)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with path.open("r+b") as file:
            with refused(errno.EAGAIN):
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (directory / "meanwhile").write_bytes(b"content")
            holder.stdin.close()
            lock(file, fcntl.LOCK_EX)


def test_many_programs_that_wait_for_a_lock_do_not_stop_the_mount(directory: Path) -> None:
    path = directory / "lock"
    path.touch()
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = [subprocess.Popen(["flock", path, "true"]) for _ in range(40)]
        (directory / "meanwhile").write_bytes(b"content")
        assert (directory / "meanwhile").read_bytes() == b"content"
        fcntl.flock(file, fcntl.LOCK_UN)
        assert {program.wait() for program in waiting} == {0}


def test_stores_through_a_shared_map_are_seen_by_readers_and_kept(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(bytes(20_000))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped, path.open("rb") as reader:
        mapped[5000:5007] = b"content"
        assert os.pread(reader.fileno(), 7, 5000) == b"content"
        mapped.flush()
    assert path.read_bytes() == bytes(5000) + b"content" + bytes(20_000 - 5007)


def test_stores_through_a_map_of_a_file_open_to_append_stay_in_place(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(bytes(5000))
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
    with mmap.mmap(descriptor, 0) as mapped:
        mapped[:7] = b"content"
        mapped.flush()
    os.pwrite(descriptor, b"appended", 0)
    os.close(descriptor)
    assert path.read_bytes() == b"content" + bytes(5000 - 7) + b"appended"


def test_file_that_is_written_anew_has_nothing_of_what_was_stored_through_an_older_map(
    shared_mounts: Mounts, shared_mount: Mount, directory: Path
) -> None:
    path = directory / "file"
    path.write_bytes(bytes(1_000_000))
    descriptor = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    mapped[2:5] = mapped[800_000:800_003] = b"old"
    path.write_bytes(b"short")
    mapped.close()
    assert path.read_bytes() == b"short"
    os.getxattr(shared_mount.path, "user.blobfs.sync")
    again = shared_mounts("--read-only")
    assert (again.path / directory.name / "file").read_bytes() == b"short"
    shared_mounts.unmount(again)


def test_file_that_is_opened_to_be_read_can_be_truncated_by_that(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"content")
    os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))
    assert path.read_bytes() == b""


def test_stores_after_close_are_committed_when_the_map_goes(
    shared_mounts: Mounts, shared_mount: Mount, directory: Path
) -> None:
    path = directory / "file"
    path.write_bytes(bytes(20_000))
    descriptor = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    mapped[5000:5007] = b"content"
    mapped.close()
    os.getxattr(shared_mount.path, "user.blobfs.sync")
    again = shared_mounts("--read-only")
    assert (again.path / directory.name / "file").read_bytes()[5000:5007] == b"content"
    shared_mounts.unmount(again)
