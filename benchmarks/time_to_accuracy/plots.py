"""Accuracy over bytes, accuracy over time, and the Pareto front."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.time_to_accuracy.measure import curve, reached
from benchmarks.time_to_accuracy.plan import Job
from benchmarks.time_to_accuracy.replay import Link, round_seconds
from benchmarks.time_to_accuracy.runs import Trace

Results = Sequence[tuple[Job, Trace]]
_MBPS = 10.0


def draw(results: Results, plateau: float, path: Path) -> None:
    """Draw all methods into one picture; one run of each, that of the first seed."""
    first = min(job.seed for job, _ in results)
    shown = [(job, trace) for job, trace in results if job.seed == first]
    figure, (by_bytes, by_time, front) = plt.subplots(1, 3, figsize=(15, 4.8))
    for number, (job, trace) in enumerate(shown):
        points = curve(trace)
        heights = [point.accuracy for point in points]
        style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
        sent = [point.bytes / 1e6 for point in points]
        by_bytes.plot(sent, heights, label=job.method.name, **style)
        clock = list(itertools.accumulate(round_seconds(trace, Link(_MBPS, _MBPS))))
        by_time.plot([clock[point.round] for point in points], heights, **style)
        if (point := reached(trace, 0.95 * plateau)) is not None:
            front.scatter(point.bytes / 1e6, point.round, color=style["color"])
            front.annotate(
                job.method.name, (point.bytes / 1e6, point.round), fontsize=7, rotation=20
            )
    for axes, what in ((by_bytes, "megabytes, both directions"), (by_time, _time())):
        _label(axes, what, "accuracy")
        axes.axhline(0.95 * plateau, color="grey", linewidth=0.8, linestyle=":")
        axes.set_ylim(bottom=0.5 * plateau)
    _label(front, "megabytes to 95% of the plateau", "rounds")
    figure.legend(loc="lower center", ncols=6, fontsize=8)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _time() -> str:
    return f"virtual seconds at {_MBPS:g} Mbit/s"


def _label(axes: Axes, below: str, beside: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(below)
    axes.set_ylabel(beside)
    axes.grid(visible=True, linewidth=0.3)
