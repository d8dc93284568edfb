"""Results as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.time_to_accuracy.measure import (
    accuracy_at,
    final_accuracy,
    mean,
    reached,
    seconds_to,
)
from benchmarks.time_to_accuracy.methods import BASELINE
from benchmarks.time_to_accuracy.plan import RATES, Job
from benchmarks.time_to_accuracy.runs import Trace

Results = Sequence[tuple[Job, Trace]]
BUDGETS = (1e6, 3e6, 10e6, 100e6)


def to_target(results: Results, target: float) -> str:
    """Return what each method needed to get to an accuracy."""
    headings = ["method", "tuned to", "final", "reached", "rounds", "up", "down", "MB", "fewer"]
    headings += [f"s at {rate:g}" for rate in RATES] + ["sooner"]
    measure = _needed([trace for job, trace in results if job.method == BASELINE], target)
    rows = []
    for name, choice, traces in _by_method(results):
        found = _needed(traces, target)
        times = [found[f"s at {rate:g}"] for rate in RATES]
        base = [measure[f"s at {rate:g}"] for rate in RATES]
        sooner = " / ".join(_ratio(b, t) for b, t in zip(base, times, strict=True))
        rows.append(
            [
                name,
                choice,
                f"{mean([final_accuracy(trace) for trace in traces]):.3f}",
                f"{found['reached']:.0f}/{len(traces)}",
                _number(found["rounds"], 0),
                _number(found["up"] / 1e6, 2),
                _number(found["down"] / 1e6, 2),
                _number(found["bytes"] / 1e6, 2),
                _ratio(measure["bytes"], found["bytes"]),
                *(_number(seconds, 1) for seconds in times),
                sooner,
            ]
        )
    return markdown(headings, rows)


def on_own_links(results: Results, target: float) -> str:
    """Return the time to an accuracy on the links of the run, which differ."""
    headings = ["method", "final", "reached", "rounds", "MB", "fewer", "s", "sooner than fp32"]
    measure = _needed([trace for job, trace in results if job.method == BASELINE], target)
    rows = []
    for name, _, traces in _by_method(results):
        found = _needed(traces, target)
        rows.append(
            [
                name,
                f"{mean([final_accuracy(trace) for trace in traces]):.3f}",
                f"{found['reached']:.0f}/{len(traces)}",
                _number(found["rounds"], 0),
                _number(found["bytes"] / 1e6, 2),
                _ratio(measure["bytes"], found["bytes"]),
                _number(found["s"], 1),
                _ratio(measure["s"], found["s"]),
            ]
        )
    return markdown(headings, rows)


def waiting(base: Results, others: Results, target: float) -> str:
    """Return the time to an accuracy at several rates: replayed, and of the runs' own clock."""
    headings = ["Mbit/s", "method", "final", "rounds", "MB", "s", "sooner than fp32"]
    rows = []
    for rate in RATES:
        measure = _needed([t for job, t in base if job.method == BASELINE], target)
        for name, _, traces in _by_method(base):
            found = _needed(traces, target)
            seconds = found[f"s at {rate:g}"]
            rows.append(_row(rate, name, traces, found, seconds, measure[f"s at {rate:g}"]))
        for job, trace in others:
            if job.task.name == f"waiting-{rate:g}":
                found = _needed([trace], target)
                base_seconds = measure[f"s at {rate:g}"]
                rows.append(
                    _row(rate, job.method.name, [trace], found, found["s"], base_seconds)
                )
    return markdown(headings, rows)


def _row(  # noqa: PLR0917
    rate: float,
    name: str,
    traces: Sequence[Trace],
    found: dict[str, float],
    seconds: float,
    base: float,
) -> list[str]:
    return [
        f"{rate:g}",
        name,
        f"{mean([final_accuracy(trace) for trace in traces]):.3f}",
        _number(found["rounds"], 0),
        _number(found["bytes"] / 1e6, 2),
        _number(seconds, 1),
        _ratio(base, seconds),
    ]


def at_budgets(results: Results) -> str:
    """Return the accuracy that each method had for so many bytes."""
    headings = ["method", *(f"{budget / 1e6:g} MB" for budget in BUDGETS)]
    rows = []
    for name, _, traces in _by_method(results):
        cells = []
        for budget in BUDGETS:
            found = [a for trace in traces if (a := accuracy_at(trace, budget)) is not None]
            cells.append(_number(mean(found), 3))
        rows.append([name, *cells])
    return markdown(headings, rows)


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; all columns but the first are aligned to the right."""
    lines = ["| " + " | ".join(headings) + " |"]
    lines.append("|---|" + "--:|" * (len(headings) - 1))
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _by_method(results: Results) -> list[tuple[str, str, list[Trace]]]:
    """Return name, choice of the grid and runs of each method, in order."""
    names = dict.fromkeys(job.method.name for job, _ in results)
    return [
        (
            name,
            next(job.tuned_to for job, _ in results if job.method.name == name),
            [trace for job, trace in results if job.method.name == name],
        )
        for name in names
    ]


def _needed(traces: Sequence[Trace], target: float) -> dict[str, float]:
    """Return means over the runs that reached the target, and how many did."""
    points = [(trace, p) for trace in traces if (p := reached(trace, target)) is not None]
    return {
        "reached": len(points),
        "rounds": mean([p.round for _, p in points]),
        "up": mean([p.bytes_up for _, p in points]),
        "down": mean([p.bytes_down for _, p in points]),
        "bytes": mean([p.bytes for _, p in points]),
        "s": mean([sum(s.virtual_seconds for s in t.steps[: p.round + 1]) for t, p in points]),
        **{
            f"s at {rate:g}": mean([seconds_to(trace, p, rate) for trace, p in points])
            for rate in RATES
        },
    }


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _ratio(base: float, value: float) -> str:
    if math.isnan(base) or math.isnan(value):
        return "-"
    ratio = base / value
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"
