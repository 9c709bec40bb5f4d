"""Pictures of the time tables."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bench.report import Row
from bench.services import Model

BAR_INCHES = 0.16


def plot(model: Model, cells: Sequence[Row], path: Path) -> None:
    """Draw every workload's times as bars, one colour for each system, and write a PNG."""
    cells = [row for row in cells if row.model == model.name and row.runs]
    systems = list(dict.fromkeys(row.system for row in cells))
    titles = list(dict.fromkeys(row.title for row in cells))[::-1]
    height = 1 / (len(systems) + 1)
    figure = Figure(figsize=(11, 1 + BAR_INCHES * len(titles) * (len(systems) + 1)), layout="constrained")
    axes = figure.subplots()
    for number, system in enumerate(systems):
        bars = {titles.index(row.title) - number * height: row for row in cells if row.system == system}
        lows = [row.seconds - min(run.seconds for run in row.runs) for row in bars.values()]
        highs = [max(run.seconds for run in row.runs) - row.seconds for row in bars.values()]
        seconds = [row.seconds for row in bars.values()]
        axes.barh(list(bars), seconds, height, xerr=(lows, highs), label=system)
    axes.set_yticks([index - 0.4 for index in range(len(titles))], titles)
    axes.set_xscale("log")
    axes.set_xlabel("seconds, median and range; less is better")
    axes.set_title(model.title)
    axes.legend()
    figure.savefig(path)
