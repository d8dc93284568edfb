"""Batch sizes side by side, for people: a table and a picture."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from fl_opt.errors import ConfigError
from fl_opt.reporting.units import format_bytes
from fl_opt.training.batch_profile import BatchProfile


def profile_table(profile: BatchProfile) -> Table:
    """Lay a profile out for a terminal."""
    noise = profile.noise_scale_before, profile.noise_scale_after
    before, after = (f"{scale:,.0f}" if math.isfinite(scale) else "no end" for scale in noise)
    table = Table(
        "batch size",
        title=f"Local training on {profile.num_examples:,} examples",
        caption=f"gradient noise scale: {before} examples before, {after} after a round's "
        "training; needed: for the same progress, by the latter, with a learning rate that "
        "suits the batch size",
    )
    for heading in (
        "samples/s",
        "memory of process",
        "of training",
        "examples needed",
        "time needed",
    ):
        table.add_column(heading, justify="right")
    for row in profile.rows:
        best = row.time_needed == 1.0
        table.add_row(
            f"{row.batch_size:,}",
            f"{row.samples_per_second:,.0f}",
            format_bytes(row.peak_bytes),
            format_bytes(row.training_bytes) if row.training_bytes else "-",
            f"{row.examples_needed:.2f}x",
            f"{row.time_needed:.2f}x",
            style="bold" if best else None,
        )
    return table


def profile_dict(profile: BatchProfile) -> dict[str, Any]:
    """Return plain values under kebab-case keys, ready for JSON."""
    plain = asdict(profile)
    rows = [_kebab(row) for row in plain.pop("rows")]
    return {**_kebab(plain), "rows": rows}


def plot_profile(profile: BatchProfile, path: Path) -> None:
    """Draw speed, memory and time for the same progress over the batch size.

    Parameters
    ----------
    profile : BatchProfile
    path : Path
        Of the picture; its ending says of which kind, such as ``.png`` or ``.svg``.

    Raises
    ------
    ConfigError
        If matplotlib is missing, does not know the kind, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'fl-opt[plot]'") from None
    sizes = [row.batch_size for row in profile.rows]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = {
        "samples a second": [row.samples_per_second for row in profile.rows],
        "memory of training, MB": [row.training_bytes / 1e6 for row in profile.rows],
        "time for the same progress": [row.time_needed for row in profile.rows],
    }
    axes = figure.subplots(1, len(panels))
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        axis.plot(sizes, values, marker="o")
        axis.set(title=title, xlabel="batch size", xscale="log")
        axis.set_ylim(0, 1.05 * max(values) or 1.0)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"plot {str(path)!r} cannot be written: {reason}") from None


def _kebab(row: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in row.items()}
