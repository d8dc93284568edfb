"""Tables of a report: runs, clients and settings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fl_opt.config import Settings, flat_settings
from fl_opt.profiling.rounds import ClientRecord
from fl_opt.reporting.reader import Run
from fl_opt.reporting.units import format_bytes, format_seconds


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
        Cell(format_bytes(memory) if memory else "-", memory),
    ]


def _number(value: float | None, style: str, unit: str = "") -> Cell:
    return Cell("-", -1.0) if value is None else Cell(f"{value:{style}}{unit}", value)


def _seconds(value: float | None) -> Cell:
    return Cell("-", -1.0) if value is None else Cell(format_seconds(value), value)
