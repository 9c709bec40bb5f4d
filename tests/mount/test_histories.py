"""Programs on two nodes that work on the same names at once: what all were told must fit one history.

Each program notes what it was told of every operation; the notes are judged when all have ended.
"""

import contextlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mounts import Mounts, blobfs

PROGRAMS = 4  # two on each mount
STEPS = 200

# Refusals that the README names for who loses a race; ENOENT is what a name shows that is just replaced.
LOST = "LOST = {errno.ESTALE, errno.EEXIST, errno.ENOENT}\n"

PRELUDE = (
    "import errno, fcntl, json, os, random, sys\n"
    "directory, me, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
    "chance = random.Random(me)\n"
    "told = []\n"
    "def path(name): return os.path.join(directory, name)\n" + LOST
)

# Adds one to a number in a file, again and again. A lost update would be a number too low.
# Programs of one node take turns by a lock; those of different nodes only by losing.
COUNT = """
for step in range(steps):
    name = f"counter-{chance.randrange(3)}"
    try:
        descriptor = os.open(path(name), os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            number = int(os.pread(descriptor, 100, 0))
            os.pwrite(descriptor, b"%10d" % (number + 1), 0)
        finally:
            os.close(descriptor)
        told.append([name, number + 1])
    except OSError as error:
        if error.errno not in LOST: raise
print(json.dumps(told))
"""

# Appends lines to two logs, each in an open of its own.
APPEND = """
for step in range(steps):
    name = f"log-{chance.randrange(2)}"
    line = f"<{me} {step} {'x' * chance.randrange(3000)}>\\n"
    is_kept = False
    try:
        descriptor = os.open(path(name), os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        is_kept = True
    except OSError as error:
        if error.errno not in LOST: raise
    told.append([name, [line, is_kept]])
print(json.dumps(told))
"""

# Replaces, reads, renames and removes whole files under a few names.
REPLACE = """
for step in range(steps):
    number, action = chance.randrange(4), chance.randrange(8)
    # One program of each node writes two of the files in place. What its own node reads meanwhile
    # may be a part, as on any disk; the other node sees whole files only.
    name, in_place = f"file-{number}", number // 2 == me % 2
    content = f"{me} {step} ".encode() * chance.choice([1, 1000, 30_000])
    try:
        if action < 3 and in_place and me < 2:
            with open(path(name), "wb", buffering=0) as file:
                file.write(content)
        elif action < 5:
            temporary = path(f"temporary-{me}-{step}")
            with open(temporary, "wb", buffering=0) as file:
                file.write(content)
            os.replace(temporary, path(name))
        elif action < 7 and not in_place:
            with open(path(name), "rb") as file:
                found = file.read()
            words = found.split(b" ")
            assert words.pop() == b"", found[-100:]
            assert len(set(zip(words[::2], words[1::2]))) <= 1, (found[:100], len(found))
        elif action == 7:
            os.unlink(path(name))
    except OSError as error:
        if error.errno not in LOST: raise
print(json.dumps(told))
"""

# Claims jobs by renaming them; of all who try, one may be told that it succeeded.
CLAIM = """
jobs = list(range(steps))
chance.shuffle(jobs)
for job in jobs:
    try:
        os.rename(path(f"job-{job}"), path(f"claimed-{job}-{me}"))
        told.append([f"job-{job}", me])
    except OSError as error:
        if error.errno not in LOST: raise
print(json.dumps(told))
"""

# Makes lock files with O_EXCL; of all who try, one may be told that it succeeded.
LOCK = """
for step in range(steps):
    try:
        os.close(os.open(path(f"lock-{step}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        told.append([f"lock-{step}", me])
    except OSError as error:
        if error.errno not in LOST: raise
print(json.dumps(told))
"""


@pytest.fixture
def nodes(mount: Mounts) -> Iterator[Sequence[Path]]:
    """The same empty directory on two mounts. Who loses a race leaves bytes that can only be given up."""
    mount.tolerate_log("was closed without being committed|ended: not committed|is not committed: ")
    options = ("--block-size", "64KiB", "--exclusive-create")
    mounts = [mount(*options), mount(*options)]
    (mounts[0].path / "shared").mkdir()
    yield [mounted.path / "shared" for mounted in mounts]
    for mounted in mounts:
        with mounted.ending():
            blobfs("umount", "--force", mounted.path)


def run(program: str, nodes: Sequence[Path]) -> list[tuple[str, Any]]:
    """Run the program several times at once on every node; return what all were told."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + program, nodes[number % 2], str(number), str(STEPS)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROGRAMS)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * PROGRAMS
    return [(name, fact) for output in outputs for name, fact in json.loads(output)]


def names_told(told: Iterable[tuple[str, object]]) -> Counter[str]:
    return Counter(name for name, _ in told)


def test_no_increment_that_was_acknowledged_is_lost(nodes: Sequence[Path]) -> None:
    for number in range(3):
        (nodes[0] / f"counter-{number}").write_bytes(b"%10d" % 0)
    told = run(COUNT, nodes)
    counts = names_told(told)
    assert sum(counts.values()) >= STEPS  # some lose, but not all the time
    for name, count in counts.items():
        assert sorted(fact for found, fact in told if found == name) == list(range(1, count + 1))
        assert {int((node / name).read_bytes()) for node in nodes} == {count}


def test_a_log_has_every_acknowledged_line_once_and_no_other(nodes: Sequence[Path]) -> None:
    for number in range(2):
        (nodes[0] / f"log-{number}").write_bytes(b"")
    told = run(APPEND, nodes)
    assert sum(is_kept for _, (_, is_kept) in told) >= STEPS
    for name in names_told(told):
        facts = [fact for found, fact in told if found == name]
        kept, lost = ([line for line, is_kept in facts if is_kept is wanted] for wanted in (True, False))
        text, other_text = ((node / name).read_text() for node in nodes)
        assert text == other_text
        # A write(2) comes to the mount in parts, one for each page. Between two of them another program of
        # the node may commit the file, so that of a line whose writer lost there may be the first of them.
        parts = re.findall("<[^<]*", text)
        assert "".join(parts) == text
        rest = Counter(parts)
        rest.subtract(kept)
        assert {rest[line] for line in kept} == {0}
        assert all(any(line.startswith(part) for line in lost) for part in rest.keys() - set(kept))


def test_a_reader_sees_whole_files_of_one_writer_only(nodes: Sequence[Path]) -> None:
    run(REPLACE, nodes)
    for number in range(4):
        contents = []
        for node in nodes:
            with contextlib.suppress(FileNotFoundError):
                contents.append((node / f"file-{number}").read_bytes())
        assert len(contents) != 1
        assert len(set(contents)) <= 1


def test_of_all_who_claim_a_job_by_renaming_it_one_succeeds(nodes: Sequence[Path]) -> None:
    for job in range(STEPS):
        (nodes[job % 2] / f"job-{job}").write_bytes(b"%d" % job)
    told = run(CLAIM, nodes)
    assert names_told(told) == {f"job-{job}": 1 for job in range(STEPS)}
    for name, claimant in told:
        number = name.removeprefix("job-")
        assert (nodes[0] / f"claimed-{number}-{claimant}").read_text() == number


def test_of_all_who_make_a_lock_file_one_succeeds(nodes: Sequence[Path]) -> None:
    assert names_told(run(LOCK, nodes)) == {f"lock-{step}": 1 for step in range(STEPS)}
