"""What is done: one entry for each workload, in three sizes."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from responder.recipes import Recipe

from bench.access import (
    KiB,
    MiB,
    buffered_writes,
    create_stat_delete,
    interleaved_reads,
    random_offsets,
    random_reads,
    shell,
    slice_table,
    strided_reads,
    write_table,
)
from bench.cells import Ideal, Place, Span, Transfer, Workload

RANGE_BYTES = 8 * MiB
STRIDE_BYTES = 16 * MiB
CONNECTIONS = 16

_MAKE_REPOSITORY = """
rm -rf "$SOURCE/tree.git"
git init -q --bare "$SOURCE/tree.git"
git="git --git-dir=$SOURCE/tree.git --work-tree=$SOURCE/tree -c core.bare=false"
$git add .
$git -c user.name=bench -c user.email=bench@localhost commit -qm all
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done."""

    large_bytes: int
    huge_bytes: int  # of the file of which only the start is read
    small_files: int
    small_directories: int
    medium_files: int
    listed_blobs: int
    listed_directories: int
    random_reads: int
    renamed_files: int
    new_files: int
    open_files: int
    table_rows: int


SCALES = {
    "full": Scale(1024 * MiB, 10 * 1024 * MiB, 2000, 40, 200, 100_000, 1000, 400, 1000, 300, 64, 32_768),
    "quick": Scale(256 * MiB, 10 * 1024 * MiB, 200, 10, 20, 10_000, 100, 100, 100, 50, 64, 4096),
    "tiny": Scale(1 * MiB, 16 * MiB, 4, 2, 2, 20, 4, 4, 4, 2, 2, 64),
}


def workloads(scale: Scale) -> list[Workload]:
    """Return all workloads in this size."""
    all_of_them = (*_sequential(scale), *_scattered(scale), *_copies(scale), *_names(scale))
    # Pages of the kernel for all of a file, and as much again for a program's own buffers.
    return [replace(workload, run_memory_bytes=2 * scale.large_bytes) for workload in all_of_them]


def _sequential(scale: Scale) -> Iterator[Workload]:
    size_bytes, size = scale.large_bytes, scale.large_bytes / MiB
    large = Recipe("large", size_bytes=size_bytes, block_bytes=RANGE_BYTES, has_md5=False)
    quarters = replace(large, name="quarter-{index}", count=4, size_bytes=size_bytes // 4)
    read = Workload(
        "read-sequential",
        f"read {size:.0f} MiB, one file",
        size,
        "MiB",
        shell('dd if="$MOUNT/large" of=/dev/null bs=1M status=none'),
        recipes=[large],
        wanted_bytes=size_bytes,
        transfer=Transfer("large", is_upload=False),
        ideal=Ideal(gets=_ranges("large", size_bytes), connections=CONNECTIONS),
        is_repeated=True,
        suits_zeros=True,
    )
    yield read
    yield replace(
        read,
        name="read-four-readers",
        title=f"read 4 × {size / 4:.0f} MiB at once",
        run=shell(_at_once('dd if="$MOUNT/quarter-$number" of=/dev/null bs=1M status=none', 4)),
        recipes=[quarters],
        transfer=None,
        ideal=None,
        is_repeated=False,
        suits_zeros=False,
    )
    yield replace(
        read,
        name="read-shared",
        title=f"2 processes read one file of {size:.0f} MiB",
        run=shell(_at_once('dd if="$MOUNT/large" of=/dev/null bs=1M status=none', 2)),
        transfer=None,
        ideal=None,
        is_repeated=False,
    )
    write = Workload(
        "write-sequential",
        f"write {size:.0f} MiB, one file, until committed",
        size,
        "MiB",
        shell('dd if="$SOURCE/large" of="$MOUNT/large" bs=1M status=none'),
        prepare=lambda source: _write_random(source / "large", size_bytes),
        transfer=Transfer("large", is_upload=True),
        ideal=Ideal(puts=_ranges("large", size_bytes), are_blocks=True, connections=CONNECTIONS),
        service_memory_bytes=size_bytes,
        changes=True,
        suits_zeros=True,
    )
    yield write
    small_bytes = scale.large_bytes // 8
    in_small_steps = replace(write, amount=small_bytes / MiB, transfer=None, ideal=None, suits_zeros=False)
    yield replace(
        in_small_steps,
        name="write-buffered",
        title=f"write {small_bytes / MiB:.0f} MiB, 128 bytes at a time, buffered by the program",
        run=buffered_writes("large", small_bytes, 128),
    )
    yield replace(
        in_small_steps,
        name="write-small",
        title=f"write {small_bytes / MiB:.0f} MiB, 4 KiB at a time",
        run=shell(
            f'dd if="$SOURCE/large" of="$MOUNT/large" bs=4k count={small_bytes // (4 * KiB)} status=none'
        ),
    )
    count = max(1, scale.large_bytes // MiB // 4)
    one = f'dd if="$SOURCE/large" of="$MOUNT/quarter-$number" bs=1M count={count} status=none'
    yield replace(
        write,
        name="write-four-writers",
        title=f"write 4 × {count} MiB at once",
        run=shell(_at_once(one, 4)),
        transfer=None,
        ideal=None,
        suits_zeros=False,
    )


def _scattered(scale: Scale) -> Iterator[Workload]:
    size_bytes, count = scale.large_bytes, scale.random_reads
    large = Recipe("large", size_bytes=size_bytes, block_bytes=RANGE_BYTES, has_md5=False)
    for read_bytes, jobs in ((4 * KiB, 1), (4 * KiB, 16), (64 * KiB, 1), (64 * KiB, 16)):
        spans = [
            Span("large", at, read_bytes)
            for at in random_offsets(size_bytes, read_bytes, count * min(jobs, 2))
        ]
        yield Workload(
            f"random-{read_bytes // KiB}k-{jobs}",
            f"random {read_bytes // KiB} KiB, {jobs} job{'s' * (jobs > 1)}",
            len(spans),
            "reads",
            random_reads("large", size_bytes, read_bytes, len(spans), jobs),
            recipes=[large],
            wanted_bytes=read_bytes * len(spans),
            ideal=Ideal(gets=spans, connections=jobs),
            suits_zeros=True,
        )
    strides = [Span("large", at, MiB) for at in range(0, size_bytes, STRIDE_BYTES)]
    yield Workload(
        "read-strided",
        f"1 MiB of every 16 MiB, {len(strides)} times",
        len(strides),
        "reads",
        strided_reads("large", size_bytes, MiB, STRIDE_BYTES),
        recipes=[large],
        wanted_bytes=len(strides) * MiB,
        ideal=Ideal(gets=strides),
        suits_zeros=True,
    )
    yield Workload(
        "first-byte",
        f"first 4 KiB of {scale.huge_bytes / MiB / 1024:.1f} GiB",
        1,
        "opening",
        random_reads("huge", 4 * KiB, 4 * KiB, 1, 1),
        recipes=[Recipe("huge", size_bytes=scale.huge_bytes, has_md5=False)],
        wanted_bytes=4 * KiB,
        ideal=Ideal(gets=[Span("huge", 0, 4 * KiB)]),
    )
    rows = scale.table_rows
    yield Workload(
        "hdf5",
        f"h5py: open {rows * 8 // KiB} MiB, 20 slices",
        20,
        "slices",
        slice_table("table.h5", rows, 20),
        prepare=lambda source: write_table(source / "table.h5", rows),
        uploads=["table.h5"],
        wanted_bytes=20 * 64 * 8 * KiB,
    )
    files = [f"open-{index}" for index in range(scale.open_files)]
    yield Workload(
        "open-files",
        f"{len(files)} open files, 4 MiB read of each",
        len(files) * 4,
        "MiB",
        interleaved_reads(files, 4 * MiB),
        recipes=[Recipe("open-{index}", len(files), size_bytes=16 * MiB, has_md5=False)],
        wanted_bytes=len(files) * 4 * MiB,
    )


def _copies(scale: Scale) -> Iterator[Workload]:
    small = Recipe("tree/d{directory}/f{index}", scale.small_files, scale.small_directories, 16 * KiB)
    medium = Recipe("medium/f{index}", scale.medium_files, 1, MiB)
    for title, recipe in (("small", small), ("medium", medium)):
        name = recipe.name.partition("/")[0]
        spans = list(_blobs(recipe))
        outwards = Workload(
            f"cp-out-{title}",
            f"cp -r out, {recipe.count} × {recipe.size_bytes // KiB} KiB",
            recipe.count,
            "files",
            shell(f'cp -r "$MOUNT/{name}" "$SCRATCH"'),
            recipes=[recipe],
            wanted_bytes=recipe.count * recipe.size_bytes,
            transfer=Transfer(name, is_upload=False),
            ideal=Ideal(gets=spans, connections=CONNECTIONS),
            is_repeated=True,
        )
        inwards = replace(
            outwards,
            name=f"cp-in-{title}",
            title=f"cp -r in, {recipe.count} × {recipe.size_bytes // KiB} KiB",
            run=shell(f'cp -r "$SOURCE/{name}" "$MOUNT"'),
            recipes=[],
            prepare=_tree_maker(recipe),
            wanted_bytes=0,
            transfer=Transfer(name, is_upload=True),
            ideal=Ideal(puts=spans, connections=CONNECTIONS),
            changes=True,
            is_repeated=False,
        )
        yield from (inwards, outwards)
    rsync = replace(
        inwards,
        name="rsync-in",
        title=f"rsync -a in, {small.count} × 16 KiB",
        amount=small.count,
        run=shell('rsync -a "$SOURCE/tree" "$MOUNT"'),
        prepare=_tree_maker(small),
        transfer=None,
        ideal=None,
    )
    yield rsync
    yield replace(rsync, name="rsync-again", title="rsync -a again, after a remount", is_rehearsed=True)
    yield replace(
        rsync,
        name="untar",
        title=f"tar -x, {small.count} × 16 KiB",
        run=shell('tar -C "$MOUNT" -xf "$SOURCE/tree.tar"'),
        prepare=_tree_maker(small, 'tar -C "$SOURCE" -cf "$SOURCE/tree.tar" tree'),
    )
    wide = Recipe("wide/d{directory}/f{index}", scale.small_files, max(1, scale.small_files // 5), 4 * KiB)
    for name, title, run in (
        ("rsync-in-wide", "rsync -a in", 'rsync -a "$SOURCE/wide" "$MOUNT"'),
        ("untar-wide", "tar -x", 'tar -C "$MOUNT" -xf "$SOURCE/wide.tar"'),
    ):
        yield replace(
            rsync,
            name=name,
            title=f"{title}, {wide.count} × 4 KiB in {wide.directories} directories",
            run=shell(run),
            prepare=_tree_maker(wide, 'tar -C "$SOURCE" -cf "$SOURCE/wide.tar" wide'),
        )
    yield replace(
        rsync,
        name="git-clone",
        title=f"git clone, {small.count} files",
        run=shell('git clone -q "$SOURCE/tree.git" "$MOUNT/clone"'),
        prepare=_tree_maker(small, _MAKE_REPOSITORY),
    )


def _names(scale: Scale) -> Iterator[Workload]:
    count = scale.listed_blobs
    many = Recipe("many/d{directory:04}/f{index:06}", count, scale.listed_directories, 4 * KiB)
    walk = Workload(
        "ls-lR",
        f"ls -lR, {count} blobs in {scale.listed_directories} directories",
        count,
        "entries",
        shell('ls -lR "$MOUNT/many"'),
        recipes=[many],
        is_repeated=True,
    )
    yield walk
    find = shell('find "$MOUNT/many" -type f')
    yield replace(walk, name="find", title=f"find -type f, {count} blobs", run=find, is_repeated=False)
    yield Workload(
        "create-stat-delete",
        f"create, stat, delete {scale.new_files} small files",
        scale.new_files,
        "files",
        create_stat_delete(scale.new_files),
        changes=True,
    )
    yield Workload(
        "rename-directory",
        f"mv of a directory of {scale.renamed_files} files",
        scale.renamed_files,
        "files",
        shell('mv "$MOUNT/old" "$MOUNT/new"'),
        recipes=[Recipe("old/f{index}", scale.renamed_files, size_bytes=4 * KiB)],
        changes=True,
    )
    yield Workload(
        "remove-tree",
        f"rm -r of {scale.renamed_files} files",
        scale.renamed_files,
        "files",
        shell('rm -r "$MOUNT/old"'),
        recipes=[Recipe("old/f{index}", scale.renamed_files, size_bytes=4 * KiB)],
        changes=True,
    )


def _at_once(command: str, count: int) -> str:
    start = f"for number in $(seq 0 {count - 1}); do {command} & jobs+=($!); done"
    return f'{start}; for job in "${{jobs[@]}}"; do wait $job; done'


def _ranges(name: str, size_bytes: int) -> list[Span]:
    return [
        Span(name, start, min(RANGE_BYTES, size_bytes - start)) for start in range(0, size_bytes, RANGE_BYTES)
    ]


def _blobs(recipe: Recipe) -> Iterator[Span]:
    for index in range(recipe.count):
        directory = index * recipe.directories // recipe.count
        yield Span(recipe.name.format(index=index, directory=directory), 0, recipe.size_bytes)


def _write_random(path: Path, size_bytes: int) -> None:
    """Write bytes of which no MiB is like another: equal blocks need not be sent twice."""
    pattern = random.Random(0).randbytes(MiB - 8)
    with path.open("wb") as file:
        for start in range(0, size_bytes, MiB):
            file.write(start.to_bytes(8, "big") + pattern)


def _tree_maker(recipe: Recipe, script: str = "true") -> Callable[[Path], None]:
    """Return what makes the recipe's files locally, each different, and then runs a script."""

    def prepare(source: Path) -> None:
        for index, blob in enumerate(_blobs(recipe)):
            path = source / blob.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(random.Random(index).randbytes(blob.size_bytes))
        shell(script)(Place(mount=source, source=source, scratch=source))

    return prepare
