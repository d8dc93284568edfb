"""How long each part of the rounds took, over a whole run: mean, spread, p95, total, count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_opt.profiling.rounds import SERVER_PARTS, ClientRecord, RoundRecord
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
        Of a part within another one: ``encode/codec``.
    count : int
    mean, spread, p95, total : float
        Seconds; the spread is the standard deviation.
    memory_bytes : int or None
        How far it took resident memory beyond the highest so far, the most in a round or
        reply; None where that was not measured, see :class:`~fl_opt.spans.SpanTotal`.
    """

    side: Side
    name: str
    count: int
    mean: float
    spread: float
    p95: float
    total: float
    memory_bytes: int | None = None


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
    found: dict[tuple[Side, str], list[_Measured]] = {}
    for side, name, measured in _measured(run):
        found.setdefault((side, name), []).append(measured)
    return [_span(side, name, found[side, name]) for side, name in _order(found)]


@dataclass(frozen=True)
class _Measured:
    seconds: float
    memory_bytes: int | None = None


def _measured(run: Run) -> Iterator[tuple[Side, str, _Measured]]:
    for record in run.records:
        yield from _of_server(record)
        for client in record.clients:
            if client.staleness:
                yield from _of_client(client)


def _of_server(record: RoundRecord) -> Iterator[tuple[Side, str, _Measured]]:
    nested = {total.path: total for total in record.spans}
    for name in SERVER_PARTS:
        if name in record.parts:
            inside = nested.pop(name, None)
            memory = inside.memory_bytes if inside is not None else None
            yield "server", name, _Measured(record.parts[name], memory)
    for path, total in nested.items():
        yield "server", path, _Measured(total.seconds, total.memory_bytes)


def _of_client(client: ClientRecord) -> Iterator[tuple[Side, str, _Measured]]:
    for total in client.spans:
        yield "client", total.path, _Measured(total.seconds, total.memory_bytes)
    measured = {total.path for total in client.spans}
    for name, seconds in (("train", client.train_seconds), ("encode", client.encode_seconds)):
        if name not in measured:
            yield "client", name, _Measured(seconds)


def _order(found: dict[tuple[Side, str], list[_Measured]]) -> list[tuple[Side, str]]:
    """Return the server's parts first, the longest first, each before what is within it."""
    lengths = {
        key: sum(measured.seconds for measured in values) for key, values in found.items()
    }

    def place(key: tuple[Side, str]) -> list[tuple[float, str]]:
        side, path = key
        names = path.split("/")
        above = ["/".join(names[: depth + 1]) for depth in range(len(names))]
        outer = [(-lengths.get((side, name), 0.0), name) for name in above]
        return [(float(side == "client"), ""), *outer]

    return sorted(found, key=place)


def _span(side: Side, name: str, values: list[_Measured]) -> Span:
    seconds = [measured.seconds for measured in values]
    memory = [one.memory_bytes for one in values if one.memory_bytes is not None]
    return Span(
        side,
        name,
        len(seconds),
        float(np.mean(seconds)),
        float(np.std(seconds)),
        float(np.percentile(seconds, 95)),
        float(np.sum(seconds)),
        max(memory, default=None),
    )
