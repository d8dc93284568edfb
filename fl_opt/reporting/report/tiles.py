"""The four metrics of a run as tiles."""

from __future__ import annotations

from dataclasses import dataclass

from fl_opt.reporting.reader import Run
from fl_opt.reporting.units import format_bytes, format_ratio, format_seconds


@dataclass(frozen=True)
class Tile:
    """One figure with a name, and a line below it."""

    name: str
    figure: str
    about: str


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


def _reached(run: Run) -> str:
    found = run.summary.convergence
    if found.best_accuracy is None:
        return "was not evaluated"
    target = f"target {found.target_accuracy:g}"
    if found.rounds_to_target is None:
        return f"best {found.best_accuracy:.4f}; {target} not reached"
    return f"best {found.best_accuracy:.4f}; {target} in round {found.rounds_to_target}"


def _bytes_or_dash(count: int | None) -> str:
    return "-" if count is None else format_bytes(count)
