"""Charts as PNG files, for slides and papers; needs the extra ``[plot]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fl_opt.errors import ConfigError
from fl_opt.reporting.reader import Run
from fl_opt.reporting.report.about_runs import charts
from fl_opt.reporting.report.charts import BarChart, Chart, LineChart
from fl_opt.reporting.report.names import run_names


def write_png(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write one file for each chart of the report.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("pictures need matplotlib: pip install 'fl-opt[plot]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts(runs, run_names(runs)):
        figure = Figure(figsize=(7, 4), layout="constrained")
        _draw(chart, figure.subplots())
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', chart.title.lower()).strip('-')}.png"
        figure.savefig(path, dpi=150)
        written.append(path)
    return written


def _draw(chart: Chart, axes: Any) -> None:
    if isinstance(chart, LineChart):
        _draw_lines(chart, axes)
    else:
        _draw_bars(chart, axes)
    axes.set_title(chart.title)
    if len(chart.legend) > 1:
        axes.legend(fontsize=8)


def _draw_lines(chart: LineChart, axes: Any) -> None:
    for line in chart.shown:
        style = "-" if len(line.points) > 1 else "o"
        axes.plot(*_columns(line.points), style, label=line.name)
    if chart.front:
        axes.plot(*_columns(chart.places(chart.front)), "--", color="grey")
    axes.set_xscale("log" if chart.across.log else "linear")
    axes.set_yscale("log" if chart.up.log else "linear")
    axes.set_xlabel(chart.across.label)
    axes.set_ylabel(chart.up.label)
    axes.xaxis.set_major_formatter(lambda value, _: chart.across.written(value))
    axes.yaxis.set_major_formatter(lambda value, _: chart.up.written(value))
    axes.grid(visible=True, linewidth=0.3)


def _draw_bars(chart: BarChart, axes: Any) -> None:
    names = [bar for bar, _ in chart.bars]
    starts = [0.0] * len(names)
    for part in chart.legend:
        widths = [parts.get(part, 0.0) for _, parts in chart.bars]
        axes.barh(names, widths, left=starts, label=part)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(chart.axis.label)
    axes.xaxis.set_major_formatter(lambda value, _: chart.axis.written(value))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [a for a, _ in points], [b for _, b in points]
