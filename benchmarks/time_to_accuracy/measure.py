"""When a run reached a target, and what had been sent by then."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.time_to_accuracy.replay import Link, link_of, round_seconds
from benchmarks.time_to_accuracy.runs import Trace

SMOOTH = 3
"""Evaluations in a row whose mean counts."""
LAST = 5
"""Evaluations at the end whose mean is the final accuracy."""


@dataclass(frozen=True)
class Point:
    """What a run had come to after a round."""

    round: int
    accuracy: float
    bytes_down: int
    bytes_up: int
    message_bytes: int

    @property
    def bytes(self) -> int:
        """Both directions."""
        return self.bytes_down + self.bytes_up


def curve(trace: Trace) -> list[Point]:
    """Return a point for each evaluation, its accuracy the mean of the last few."""
    down = list(itertools.accumulate(step.bytes_down for step in trace.steps))
    up = list(itertools.accumulate(step.bytes_up for step in trace.steps))
    whole = list(
        itertools.accumulate(s.message_bytes_down + s.message_bytes_up for s in trace.steps)
    )
    evaluated = [
        (number, step.accuracy)
        for number, step in enumerate(trace.steps)
        if step.accuracy is not None and number
    ]
    return [
        Point(
            number,
            statistics.fmean(a for _, a in evaluated[max(0, place - SMOOTH + 1) : place + 1]),
            down[number],
            up[number],
            whole[number],
        )
        for place, (number, _) in enumerate(evaluated)
    ]


def reached(trace: Trace, target: float) -> Point | None:
    """Return the first point at which a target was reached; None if there is none."""
    points = curve(trace)[SMOOTH - 1 :]
    return next((point for point in points if point.accuracy >= target), None)


def final_accuracy(trace: Trace) -> float:
    """Return the mean of the last evaluations."""
    found = [step.accuracy for step in trace.steps if step.accuracy is not None]
    return statistics.fmean(found[-LAST:])


def plateau(traces: Iterable[Trace]) -> float:
    """Return the best accuracy of a smoothed curve, as a mean over runs."""
    return statistics.fmean(
        max(point.accuracy for point in curve(trace)[SMOOTH - 1 :]) for trace in traces
    )


def seconds_to(trace: Trace, point: Point, mbps: float | None = None) -> float:
    """Return the virtual seconds up to a point, on links of that rate or the run's own."""
    link = link_of(trace) if mbps is None else Link(mbps, mbps)
    return sum(round_seconds(trace, link)[: point.round + 1])


def accuracy_at(trace: Trace, budget: float) -> float | None:
    """Return the accuracy that so many bytes bought; None if they were not enough for any."""
    bought = [point.accuracy for point in curve(trace) if point.bytes <= budget]
    return max(bought) if bought else None


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of nothing."""
    return statistics.fmean(values) if values else float("nan")
