"""Charts about runs: how well, how soon, and where time and bytes went."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting.reader import Run
from fl_opt.reporting.report.charts import Axis, BarChart, Chart, LineChart, Series
from fl_opt.reporting.units import format_bytes, format_seconds

VIRTUAL_PARTS = ("download", "compute", "upload")
"""Parts of a round that pass on the virtual clock."""

ROUND = Axis("round", lambda value: f"{value:g}", whole=True)
ACCURACY = Axis("accuracy", lambda value: f"{value:.3g}")
LOSS = Axis("loss", lambda value: f"{value:.3g}")
SENT = Axis("bytes sent, both directions", format_bytes, log=True)
SECONDS = Axis("seconds", format_seconds, zero=True)
MEMORY = Axis("peak memory", format_bytes, zero=True)
BYTES = Axis("bytes", format_bytes, zero=True)
UPDATES = Axis("updates", lambda value: f"{value:g}")

Points: TypeAlias = Callable[[Run], list[tuple[float, float]]]


def charts(runs: Sequence[Run], names: Sequence[str]) -> list[Chart]:
    """Return all charts that there is something to show in."""

    def lines(title: str, of: Points, a: Axis, b: Axis) -> Chart:
        drawn = [Series(name, of(run)) for name, run in zip(names, runs, strict=True)]
        return LineChart(title, drawn, a, b)

    found: list[Chart] = [
        lines("Accuracy over rounds", lambda r: _over_rounds(r, _accuracy), ROUND, ACCURACY),
        lines("Accuracy over bytes", lambda r: _over(r, _sent), SENT, ACCURACY),
        lines("Accuracy over time", lambda r: _over(r, _clock), _time_axis(runs), ACCURACY),
        lines("Loss over rounds", lambda r: _over_rounds(r, _loss), ROUND, LOSS),
        *_pareto(runs, names),
        BarChart("Where a round's time goes", _times(runs, names), SECONDS),
        BarChart("Where bytes go", _bytes(runs, names), Axis("bytes", format_bytes)),
        lines("Bytes a round", lambda r: _over_rounds(r, _round_bytes), ROUND, BYTES),
        BarChart("Steps that updates had missed", _staleness(runs, names), UPDATES),
        BarChart("Codecs chosen, up", _codecs(runs, names, "codecs_up"), UPDATES),
        BarChart("Codecs chosen, down", _codecs(runs, names, "codecs_down"), UPDATES),
        lines("Memory of clients", lambda r: _over_rounds(r, _memory), ROUND, MEMORY),
    ]
    return [chart for chart in found if not chart.empty]


def _accuracy(record: RoundRecord) -> float | None:
    return record.federated_accuracy if record.accuracy is None else record.accuracy


def _loss(record: RoundRecord) -> float | None:
    return record.federated_loss if record.loss is None else record.loss


def _round_bytes(record: RoundRecord) -> float | None:
    return float(record.bytes_up + record.bytes_down)


def _memory(record: RoundRecord) -> float | None:
    return float(record.client_peak_memory_bytes) or None


def _sent(record: RoundRecord) -> float:
    return float(record.bytes_up + record.bytes_down)


def _clock(record: RoundRecord) -> float:
    return record.wall_seconds if record.virtual_seconds is None else record.virtual_seconds


def _over_rounds(
    run: Run, of: Callable[[RoundRecord], float | None]
) -> list[tuple[float, float]]:
    pairs = ((float(record.server_round), of(record)) for record in run.records)
    return [(number, value) for number, value in pairs if value is not None and number]


def _over(run: Run, what: Callable[[RoundRecord], float]) -> list[tuple[float, float]]:
    """Return the accuracy over the running sum of something."""
    sums = itertools.accumulate(what(record) for record in run.records)
    pairs = zip(sums, map(_accuracy, run.records), strict=True)
    return [(total, value) for total, value in pairs if value is not None]


def _time_axis(runs: Sequence[Run]) -> Axis:
    virtual = any(run.summary.time.virtual_total is not None for run in runs)
    return Axis("virtual time" if virtual else "time", format_seconds, zero=True)


def _pareto(runs: Sequence[Run], names: Sequence[str]) -> list[Chart]:
    """Return final accuracy over bytes, if there is more than one run to compare."""
    points = [
        (name, float(s.communication.total.payload_bytes), s.convergence.last_accuracy)
        for name, s in ((name, run.summary) for name, run in zip(names, runs, strict=True))
    ]
    found = [(name, sent, height) for name, sent, height in points if height is not None]
    if len(found) < 2:
        return []
    best, front = 0.0, []
    for _, sent, height in sorted(found, key=lambda point: (point[1], -point[2])):
        if height > best:
            best = height
            front.append((sent, height))
    dots = [Series(name, [(sent, height)]) for name, sent, height in found]
    title = "Accuracy (mean of the last ten rounds) and bytes of each run"
    return [LineChart(title, dots, SENT, ACCURACY, front)]


def _times(runs: Sequence[Run], names: Sequence[str]) -> list[tuple[str, dict[str, float]]]:
    """Return the parts of a mean round: on the virtual clock, and in real time."""
    bars = []
    for name, run in zip(names, runs, strict=True):
        parts = run.summary.time.parts
        virtual = {key: parts[key] for key in VIRTUAL_PARTS if key in parts}
        # What clients report, training and encoding, is part of what the server waits for.
        real = {
            key: value
            for key, value in parts.items()
            if key not in VIRTUAL_PARTS and key not in ("train", "encode")
        }
        if virtual:
            bars.append((f"{name}, virtual" if len(runs) > 1 else "virtual", virtual))
        bars.append((f"{name}, real" if len(runs) > 1 else "real", real))
    return bars


def _bytes(runs: Sequence[Run], names: Sequence[str]) -> list[tuple[str, dict[str, float]]]:
    bars = []
    for name, run in zip(names, runs, strict=True):
        up = run.summary.communication.up.payload_bytes
        kinds = run.summary.exchange.down_by_kind
        parts = {f"down: {kind}": float(count) for kind, count in kinds.items()}
        bars.append((name, {"up: updates": float(up), **parts}))
    return bars


def _staleness(runs: Sequence[Run], names: Sequence[str]) -> list[tuple[str, dict[str, float]]]:
    """Return how many updates had missed how many steps; nothing if none had missed any."""
    bars = []
    for name, run in zip(names, runs, strict=True):
        missed = Counter(s for r in run.records for c in r.clients for s in c.staleness)
        bars.append((name, {f"{key} steps": float(missed[key]) for key in sorted(missed)}))
    return bars if any(len(parts) > 1 for _, parts in bars) else []


def _codecs(
    runs: Sequence[Run], names: Sequence[str], field: str
) -> list[tuple[str, dict[str, float]]]:
    return [
        (name, {codec: float(n) for codec, n in getattr(run.summary.exchange, field).items()})
        for name, run in zip(names, runs, strict=True)
    ]
