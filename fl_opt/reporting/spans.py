"""How long each part of the rounds took, over a whole run: mean, spread, p95, total, count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_opt.profiling.rounds import SERVER_PARTS
from fl_opt.reporting.reader import Run

Side = Literal["server", "client"]


@dataclass(frozen=True)
class Span:
    """One part, measured several times.

    Attributes
    ----------
    side : {"server", "client"}
        Who measured it: the server once a round, a client once a reply.
    name : str
    count : int
    mean, spread, p95, total : float
        Seconds; the spread is the standard deviation.
    """

    side: Side
    name: str
    count: int
    mean: float
    spread: float
    p95: float
    total: float


def spans(run: Run) -> list[Span]:
    """Return the parts of a run's rounds, the server's first.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Span
        Parts that were never measured are left out.
    """
    found: dict[tuple[Side, str], list[float]] = {}
    for side, name, seconds in _measured(run):
        found.setdefault((side, name), []).append(seconds)
    return [
        _span(side, name, values) for (side, name), values in sorted(found.items(), key=_order)
    ]


def _measured(run: Run) -> Iterator[tuple[Side, str, float]]:
    for record in run.records:
        for name in SERVER_PARTS:
            if name in record.parts:
                yield "server", name, record.parts[name]
        for client in record.clients:
            if client.staleness:
                yield "client", "train", client.train_seconds
                yield "client", "encode", client.encode_seconds


def _order(item: tuple[tuple[Side, str], list[float]]) -> tuple[bool, float]:
    (side, _), values = item
    return side == "client", -sum(values)


def _span(side: Side, name: str, values: list[float]) -> Span:
    return Span(
        side,
        name,
        len(values),
        float(np.mean(values)),
        float(np.std(values)),
        float(np.percentile(values, 95)),
        float(np.sum(values)),
    )
