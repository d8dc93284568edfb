"""What a report says about runs: tiles, charts and tables."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from fl_opt.config import Settings, flat_settings
from fl_opt.profiling.rounds import ClientRecord, RoundRecord
from fl_opt.reporting.reader import Run
from fl_opt.reporting.report.charts import Axis, BarChart, Chart, LineChart, Series
from fl_opt.reporting.units import format_bytes, format_ratio, format_seconds

VIRTUAL_PARTS = ("download", "compute", "upload")
"""Parts of a round that pass on the virtual clock."""

ROUND = Axis("round", lambda value: f"{value:g}", whole=True)
ACCURACY = Axis("accuracy", lambda value: f"{value:.3g}")
LOSS = Axis("loss", lambda value: f"{value:.3g}")
SENT = Axis("bytes sent, both directions", format_bytes, log=True)
SECONDS = Axis("seconds", format_seconds, zero=True)
MEMORY = Axis("peak memory", format_bytes, zero=True)


Points: TypeAlias = Callable[[Run], list[tuple[float, float]]]


@dataclass(frozen=True)
class Tile:
    """One figure with a name, and a line below it."""

    name: str
    figure: str
    about: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table that can be sorted: what it shows, and what it is sorted by."""

    text: str
    key: float | str


@dataclass(frozen=True)
class TableOf:
    """A table with a heading."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def tiles(run: Run) -> list[Tile]:
    """Return the four metrics: time, bytes, memory and convergence."""
    summary = run.summary
    time, total, found = summary.time, summary.communication.total, summary.convergence
    virtual = time.virtual_mean is not None
    mean = time.virtual_mean if virtual else time.wall_mean
    whole = time.virtual_total if virtual else time.wall_total
    saved = total.percent_saved
    return [
        Tile(
            "accuracy",
            "-" if found.final_accuracy is None else f"{found.final_accuracy:.4f}",
            _reached(run),
        ),
        Tile(
            "sent",
            format_bytes(total.payload_bytes),
            "-"
            if saved is None
            else f"{saved:.1f}% less than float32 ({format_ratio(total.compression_ratio)})",
        ),
        Tile(
            "time per round" + (", virtual" if virtual else ""),
            "-" if mean is None else format_seconds(mean),
            f"{format_seconds(whole or 0.0)} in total, {summary.rounds_done} rounds",
        ),
        Tile(
            "peak memory",
            _bytes_or_dash(summary.memory.client_peak_bytes),
            f"of a client; server {_bytes_or_dash(summary.memory.server_peak_bytes)}",
        ),
    ]


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
        lines("Bytes a round", lambda r: _over_rounds(r, _round_bytes), ROUND, _BYTES),
        BarChart("Steps that updates had missed", _staleness(runs, names), _UPDATES),
        BarChart("Codecs chosen, up", _codecs(runs, names, "codecs_up"), _UPDATES),
        BarChart("Codecs chosen, down", _codecs(runs, names, "codecs_down"), _UPDATES),
        lines("Memory of clients", lambda r: _over_rounds(r, _memory), ROUND, MEMORY),
    ]
    return [chart for chart in found if not chart.empty]


def comparison(runs: Sequence[Run], names: Sequence[str]) -> TableOf:
    """Return one row for each run."""
    headings = ["run", "accuracy", "best", "rounds", "up", "down", "saved", "time", "failed"]
    rows = []
    for name, run in zip(names, runs, strict=True):
        summary = run.summary
        traffic, found = summary.communication, summary.convergence
        seconds = summary.time.virtual_total or summary.time.wall_total
        rows.append(
            [
                Cell(name, name),
                _number(found.final_accuracy, ".4f"),
                _number(found.best_accuracy, ".4f"),
                Cell(str(summary.rounds_done), summary.rounds_done),
                Cell(format_bytes(traffic.up.payload_bytes), traffic.up.payload_bytes),
                Cell(format_bytes(traffic.down.payload_bytes), traffic.down.payload_bytes),
                _number(traffic.total.percent_saved, ".1f", "%"),
                Cell(format_seconds(seconds), seconds),
                Cell(str(summary.failures), summary.failures),
            ]
        )
    return TableOf("Runs", headings, rows)


def clients(run: Run) -> TableOf:
    """Return one row for each client that was asked."""
    headings = ["client", "updates", "failed", "up", "down", "time", "training", "examples"]
    headings += ["steps missed", "codec up", "codec down", "Mbit/s up", "Mbit/s down", "memory"]
    own: dict[int, list[ClientRecord]] = defaultdict(list)
    for record in run.records:
        for client in record.clients:
            own[client.node_id].append(client)
    # Flower's node ids have twenty digits; numbers in their order are easier to talk about.
    rows = [_client(number, own[node]) for number, node in enumerate(sorted(own))]
    return TableOf("Clients", headings, rows)


def changed_settings(runs: Sequence[Run], names: Sequence[str]) -> TableOf:
    """Return the settings in which a run differs from the defaults or from another run."""
    values = [dict(flat_settings(run.settings)) for run in runs]
    ordinary = dict(flat_settings(Settings()))
    rows = [
        [Cell(key, key), *(Cell(str(own[key]), str(own[key])) for own in values)]
        for key in ordinary
        if any(own[key] != ordinary[key] for own in values)
    ]
    return TableOf("Settings that are not the defaults", ["setting", *names], rows)


def _client(number: int, records: Sequence[ClientRecord]) -> list[Cell]:
    used = [record for record in records if record.error is None]
    last = records[-1]

    def mean(values: list[float]) -> float | None:
        return fmean(values) if values else None

    def common(codecs: list[str]) -> Cell:
        found = Counter(filter(None, codecs)).most_common(1)
        return Cell(found[0][0], found[0][0]) if found else Cell("-", "")

    up, down = (sum(getattr(r, key) for r in records) for key in ("bytes_up", "bytes_down"))
    failed = len(records) - len(used)
    memory = max(record.peak_memory_bytes for record in records)
    return [
        Cell(str(number), number),
        Cell(str(len(used)), len(used)),
        Cell(str(failed), failed),
        Cell(format_bytes(up), up),
        Cell(format_bytes(down), down),
        _seconds(mean([r.seconds for r in used])),
        _seconds(mean([r.train_seconds for r in used])),
        _number(mean([float(r.num_examples) for r in used]), ".0f"),
        _number(mean([float(s) for r in used for s in r.staleness]), ".1f"),
        common([record.codec_up for record in used]),
        common([record.codec_down for record in used]),
        _number(last.mbps_up, ".2f"),
        _number(last.mbps_down, ".2f"),
        Cell(_bytes_or_dash(memory or None), memory),
    ]


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


def _reached(run: Run) -> str:
    found = run.summary.convergence
    if found.best_accuracy is None:
        return "was not evaluated"
    target = f"target {found.target_accuracy:g}"
    if found.rounds_to_target is None:
        return f"best {found.best_accuracy:.4f}; {target} not reached"
    return f"best {found.best_accuracy:.4f}; {target} in round {found.rounds_to_target}"


def _number(value: float | None, style: str, unit: str = "") -> Cell:
    return Cell("-", -1.0) if value is None else Cell(f"{value:{style}}{unit}", value)


def _seconds(value: float | None) -> Cell:
    return Cell("-", -1.0) if value is None else Cell(format_seconds(value), value)


def _bytes_or_dash(count: int | None) -> str:
    return "-" if count is None else format_bytes(count)


_BYTES = Axis("bytes", format_bytes, zero=True)
_UPDATES = Axis("updates", lambda value: f"{value:g}")
