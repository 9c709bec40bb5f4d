"""The command line of the benchmark."""

import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console

from bench.catalogue import System, systems
from bench.cells import Measurement, Workload
from bench.report import print_tables, rows, write_document, write_json
from bench.runner import ATTEMPTS, MOST_STOLEN_SHARE, measure
from bench.services import MODELS, Model
from bench.workloads import SCALES, workloads

# Ends within five minutes; the rest of the workloads differ from these less than systems do.
QUICK = (
    "read-sequential",
    "write-sequential",
    "random-4k-1",
    "random-4k-16",
    "read-strided",
    "first-byte",
    "cp-in-small",
    "cp-out-small",
    "rsync-again",
    "ls-lR",
    "create-stat-delete",
    "rename-directory",
)

FILE_COLUMNS = 240  # of the tables, when they go to a file

Named = TypeVar("Named", Workload, System, Model)


@click.command()
@click.option("--only", multiple=True, metavar="WORKLOAD", help="This workload; may be repeated.")
@click.option("--system", multiple=True, metavar="SYSTEM", help="This system; may be repeated.")
@click.option("--model", multiple=True, metavar="MODEL", help="This network model; may be repeated.")
@click.option("--repeats", type=click.IntRange(min=1), help="Runs of each cell.  [default: 3; quick: 1]")
@click.option("--quick", is_flag=True, help="A small set, without a network model, within five minutes.")
@click.option("--scale", type=click.Choice(list(SCALES)), help="How much is done.  [default: full]")
@click.option("--list", "is_list", is_flag=True, help="Say what there is, and end.")
@click.option("--plots/--no-plots", default=True, show_default=True, help="Draw pictures.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/bench"),
    show_default=True,
    help="Directory for benchmark.md, benchmark.json and the pictures.",
)
def main(
    only: Sequence[str],
    system: Sequence[str],
    model: Sequence[str],
    repeats: int | None,
    quick: bool,
    scale: str | None,
    is_list: bool,
    plots: bool,
    output: Path,
) -> None:
    """Measure blobfs beside other programs, in turns, on this machine."""
    size = scale or ("quick" if quick else "full")
    amounts = SCALES[size]
    works = _chosen(workloads(amounts), only or (QUICK if quick else ()), "workload")
    programs = _chosen(systems(amounts.large_bytes), system, "system")
    models = _chosen(MODELS, model or (("none",) if quick else ()), "model")
    if is_list:
        _list(works, programs, models)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # mounts are taken down
    console = Console(width=None if sys.stdout.isatty() else FILE_COLUMNS)
    times = repeats or (1 if quick else 3)
    found = []
    try:
        for each in measure(models, works, programs, times):
            console.print(_line(each), markup=False, highlight=False)
            found.append(each)
    except (KeyboardInterrupt, SystemExit):
        console.print("ended early; here is what there is")
    cells = rows(found, works)
    for one in models:
        print_tables(one, cells, console)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "benchmark.json", found, programs)
    pictures = {}
    if plots:
        from bench.plots import plot  # needs a library that a single cell can do without

        pictures = {one.name: output / f"benchmark-{one.name}.png" for one in models}
        for one in models:
            plot(one, cells, pictures[one.name])
    stolen_shares = [each.stolen_share for each in found]
    disturbed = sum(share > MOST_STOLEN_SHARE for share in stolen_shares)
    notes = [
        f"Medians of {times}, with the range; size {size}.",
        f"runs from which the host took over {MOST_STOLEN_SHARE:.0%} of the processors' time, "
        f"{ATTEMPTS} times: {disturbed} of {len(found)}; at most {max(stolen_shares, default=0.0):.0%}",
    ]
    write_document(output / "benchmark.md", models, cells, programs, notes, pictures)
    console.print(f"written to {output}", markup=False, highlight=False)


def _chosen(items: Sequence[Named], names: Collection[str], what: str) -> list[Named]:
    """Return the items of these names, or all. Raises UsageError for a name that there is not."""
    known = [item.name for item in items]
    for name in names:
        if name not in known:
            raise click.UsageError(f"There is no {what} {name!r} here, only: {', '.join(known)}.")
    return [item for item in items if not names or item.name in names]


def _list(works: Sequence[Workload], programs: Sequence[System], models: Sequence[Model]) -> None:
    for work in works:
        click.echo(f"--only {work.name:20} {work.title}")
    for program in programs:
        click.echo(f"--system {program.name:18} {program.version} {' '.join(program.options)}")
    for model in models:
        click.echo(f"--model {model.name:19} {model.title}")


def _line(each: Measurement) -> str:
    what = f"{each.model:8} {each.workload:20} {'warm' if each.is_warm else 'cold'} {each.system:18}"
    return f"{what} {each.error or f'{each.seconds:8.3f} s'}"


if __name__ == "__main__":
    main()
