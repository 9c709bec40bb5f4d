"""What was measured, for eyes and for programs: tables, JSON and a document."""

import json
import os
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.catalogue import System
from bench.cells import Measurement, Workload
from bench.programs import said
from bench.services import Model
from blobfs.prices import cost_usd

MiB = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One cell of the benchmark, over all its repeats."""

    model: str
    workload: Workload
    is_warm: bool
    system: str
    runs: Sequence[Measurement]  # those that succeeded
    error: str  # of one that did not

    @property
    def title(self) -> str:
        """What was done."""
        return f"{self.workload.title}{', again' if self.is_warm else ''}"

    @property
    def seconds(self) -> float:
        """The median."""
        return self.median("seconds")

    @property
    def amplification(self) -> float:
        """Bytes that the service sent for one that was asked for; 0 where that is no question."""
        wanted_bytes = self.workload.wanted_bytes
        return self.median("sent_bytes") / wanted_bytes if wanted_bytes else 0.0

    @property
    def price(self) -> float:
        """What the requests would cost, in USD."""
        requests = self.runs[len(self.runs) // 2].requests
        return cost_usd(requests)

    def median(self, field: str) -> float:
        """Return the median of a field of the measurements."""
        return float(median(getattr(run, field) for run in self.runs))


def rows(measurements: Iterable[Measurement], workloads: Iterable[Workload]) -> list[Row]:
    """Gather the repeats of each cell, in the order in which they were first met."""
    known = {workload.name: workload for workload in workloads}
    cells: dict[tuple[str, str, bool, str], list[Measurement]] = defaultdict(list)
    for each in measurements:
        cells[each.model, each.workload, each.is_warm, each.system].append(each)
    return [
        Row(
            model,
            known[workload],
            is_warm,
            system,
            [run for run in runs if not run.error],
            next((run.error for run in runs if run.error), ""),
        )
        for (model, workload, is_warm, system), runs in cells.items()
    ]


def time_table(model: str, cells: Sequence[Row]) -> list[list[str]]:
    """Return one line for each workload and one column for each system, headings first."""
    cells = [row for row in cells if row.model == model]
    names = list(dict.fromkeys(row.system for row in cells))
    lines: dict[str, dict[str, str]] = defaultdict(dict)
    for row in cells:
        lines[row.title][row.system] = _time(row)
    return [["seconds", *names]] + [
        [title, *(found.get(name, "") for name in names)] for title, found in lines.items()
    ]


def cost_table(model: str, cells: Sequence[Row]) -> list[list[str]]:
    """Return one line for each cell with all that was counted, headings first."""
    heading = ["work", "system", "rate", "daemon CPU s", "client CPU s", "peak MiB", "requests", "MiB moved"]
    done = (row for row in cells if row.model == model and row.runs)
    return [
        [*heading, "amplification", "USD"],
        *([row.title, row.system, *_costs(row)] for row in done),
    ]


def print_tables(model: Model, cells: Sequence[Row], console: Console) -> None:
    """Print both tables of a model."""
    for lines in (time_table(model.name, cells), cost_table(model.name, cells)):
        table = Table(title=model.title)
        for number, heading in enumerate(lines[0]):
            table.add_column(heading, justify="left" if number == 0 else "right")
        for line in lines[1:]:
            table.add_row(*line)
        console.print(table)


def write_json(path: Path, measurements: Iterable[Measurement], systems: Iterable[System]) -> None:
    """Write everything that was measured."""
    content = {
        "machine": machine(),
        "systems": [
            {"name": each.name, "version": each.version, "options": each.options} for each in systems
        ],
        "measurements": [each.to_json() for each in measurements],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def write_document(
    path: Path,
    models: Iterable[Model],
    cells: Sequence[Row],
    systems: Iterable[System],
    notes: Sequence[str],
    pictures: Mapping[str, Path],
) -> None:
    """Write the results as Markdown."""
    lines = ["# Benchmark", "", "Written by `scripts/bench`; every cell of the run is here. " + notes[0], ""]
    lines += [f"- {name}: {value}" for name, value in machine().items()]
    lines += [f"- {note}" for note in notes[1:]]
    lines += ["", *_markdown([["system", "version", "options"], *map(_system_line, systems)])]
    for model in models:
        lines += ["", f"## {model.title[0].upper()}{model.title[1:]}", ""]
        if model.name in pictures:
            lines += [f"![{model.title}]({pictures[model.name].name})", ""]
        lines += [*_markdown(time_table(model.name, cells)), ""]
        lines += _markdown(cost_table(model.name, cells))
    errors = [f"- {row.system}, {row.title}: {_one_line(row.error)}" for row in cells if row.error]
    lines += ["", "## What could not be done", "", *errors] if errors else []
    path.write_text("\n".join(lines) + "\n")


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    processors = said("sh", "-c", "grep -m1 'model name' /proc/cpuinfo").partition(": ")[2]
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processors": f"{os.cpu_count()} × {processors or platform.machine()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1024**3:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "load of the last 15 minutes": f"{os.getloadavg()[2]:.1f}, this run's included",
    }


def _time(row: Row) -> str:
    if not row.runs:
        return "failed"
    times = [run.seconds for run in row.runs]
    spread = f" ({min(times):.3g}–{max(times):.3g})" if len(times) > 1 else ""
    return f"{row.seconds:.3g}{spread}"


def _costs(row: Row) -> list[str]:
    requests = Counter(row.runs[len(row.runs) // 2].requests).most_common()
    moved_bytes = row.median("sent_bytes") + row.median("received_bytes")
    return [
        f"{row.workload.amount / row.seconds:.4g} {row.workload.unit}/s",
        f"{row.median('daemon_cpu_seconds'):.2f}",
        f"{row.median('client_cpu_seconds'):.2f}",
        f"{row.median('peak_memory_bytes') / MiB:.0f}",
        ", ".join(f"{kind} {count}" for kind, count in requests),
        f"{moved_bytes / MiB:.1f}" if requests else "",
        f"{row.amplification:.3g}" if row.amplification else "",
        f"{row.price:.5f}" if requests else "",
    ]


def _system_line(system: System) -> list[str]:
    return [system.name, system.version, f"`{' '.join(system.options)}`" if system.options else ""]


def _markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    heading, *body = ["| " + " | ".join(_one_line(cell) for cell in line) + " |" for line in lines]
    return [heading, "|---" + "|--:" * (len(lines[0]) - 1) + "|", *body]


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
