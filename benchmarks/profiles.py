"""What the profiles come to in the default job: ``python -m benchmarks.profiles``.

Ten clients with scikit-learn's digits, all of them in each of 30 rounds (``--quick``: three),
on the virtual engine; payloads of both directions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import get_args

from flwr.supercore.logger import update_console_handler
from rich.console import Console
from rich.table import Table

from fl_opt.config import ConfigValue
from fl_opt.profiles import ProfileName
from fl_opt.reporting import RunSummary, format_bytes, format_ratio
from run_simulation import run


def main() -> None:
    """Run each profile from each seed and print a table of means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 42])
    parser.add_argument("--quick", action="store_true", help="three rounds")
    arguments = parser.parse_args()
    update_console_handler(level="ERROR")
    console = Console()
    table = Table("profile", "last 10", "rounds to .9", "both directions", "fewer")
    for name in get_args(ProfileName):
        with console.status(name):
            runs = [summary(name, seed, quick=arguments.quick) for seed in arguments.seeds]
        accuracy = statistics.fmean(run.convergence.last_accuracy or 0.0 for run in runs)
        found = [run.convergence.rounds_to_target for run in runs]
        sent = statistics.fmean(run.communication.total.payload_bytes for run in runs)
        dense = statistics.fmean(run.communication.total.dense_bytes for run in runs)
        rounds = ", ".join("-" if number is None else str(number) for number in found)
        table.add_row(
            name, f"{accuracy:.4f}", rounds, format_bytes(sent), format_ratio(dense / sent)
        )
    console.print(table)


def summary(profile: str, seed: int, *, quick: bool) -> RunSummary:
    """Carry a run out."""
    config: dict[str, ConfigValue] = {"profile": profile, "seed": seed}
    if quick:
        config["num-server-rounds"] = 3
    with tempfile.TemporaryDirectory() as folder:
        return run(config, output=Path(folder) / "run", quiet=True)


if __name__ == "__main__":
    main()
