"""What runs are called in a report."""

from __future__ import annotations

from collections.abc import Sequence

from fl_opt.reporting.reader import Run


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of runs' folders, with a number where two are the same."""
    names: list[str] = []
    for run in runs:
        name = run.summary.info.folder.name
        same = sum(other.summary.info.folder.name == name for other in runs)
        names.append(name if same == 1 else f"{name} ({len(names) + 1})")
    return names
