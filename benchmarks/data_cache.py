"""Setting data up in a new process: ``python -m benchmarks.data_cache``.

A SuperNode starts a process for each message. Each turn begins with an empty cache and starts
processes one after another: one that may not use the cache, the first that may, and a second.
What is timed in them is ``load_dataset`` and one client's part, with fl_opt imported already
but nothing that datasets and partitions need. Then two processes start together on an empty
cache: between them they are to make each entry once.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
CLIENTS = 100
TASKS = {
    "digits": "dirichlet(0.5)",
    "fashion-mnist": "dirichlet(0.3)",
    "shakespeare": "natural",
}
HEAVY = ("datasets", "flwr_datasets", "pandas", "scipy", "sklearn")


@dataclass(frozen=True)
class Row:
    """One dataset.

    Attributes
    ----------
    uncached, first, second : float
        Seconds of set-up; medians.
    megabytes : float
        Of the cache, examples and division.
    imported : str
        Which of the heavy libraries the second process loaded.
    together : float
        Seconds of the slower one of two processes that start together; the median.
    made_together : int
        Most entries that these two made; 2 are needed.
    """

    dataset: str
    partition: str
    uncached: float
    first: float
    second: float
    megabytes: float
    imported: str
    together: float
    made_together: int


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    parser.add_argument("--set-up", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.set_up:
        dataset, config = arguments.set_up
        sys.stdout.write(json.dumps(set_up(dataset, json.loads(config))))
        return
    console = Console()
    rows = []
    for dataset in arguments.datasets:
        with console.status(dataset):
            rows.append(measure(dataset, 1 if arguments.quick else arguments.turns))
    console.print(as_table(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def measure(dataset: str, turns: int) -> Row:
    """Take turns; every set-up is in a process of its own."""
    seconds: dict[str, list[float]] = {way: [] for way in ("uncached", "first", "second")}
    together: list[float] = []
    made: list[int] = []
    imported: set[str] = set()
    megabytes = 0.0
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            seconds["uncached"].append(finish(start(dataset, folder, limit=0))["seconds"])
            seconds["first"].append(finish(start(dataset, folder))["seconds"])
            second = finish(start(dataset, folder))
            seconds["second"].append(second["seconds"])
            imported.update(second["imported"])
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            megabytes = sum(path.stat().st_size for path in files) / 1e6
        with tempfile.TemporaryDirectory() as folder:
            pair = [finish(process) for process in [start(dataset, folder) for _ in range(2)]]
            together.append(max(report["seconds"] for report in pair))
            made.append(sum(report["made"] for report in pair))
    return Row(
        dataset=dataset,
        partition=TASKS[dataset],
        **{way: statistics.median(times) for way, times in seconds.items()},
        megabytes=megabytes,
        imported=", ".join(sorted(imported)),
        together=statistics.median(together),
        made_together=max(made),
    )


def start(dataset: str, folder: str, limit: int = 1000) -> subprocess.Popen[str]:
    """Start a process that sets its data up."""
    config = {
        "dataset": dataset,
        "data.partition": TASKS[dataset],
        "data.cache-folder": folder,
        "data.cache-limit-mb": limit,
    }
    command = [sys.executable, "-m", __spec__.name, "--set-up", dataset, json.dumps(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a process reports."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a process ended with {process.returncode}")
    report: dict[str, Any] = json.loads(output)
    return report


def set_up(dataset: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Set data up in this process; return seconds, entries made and what was imported."""
    from fl_opt.config import load_settings
    from fl_opt.data import cache, load_dataset

    made = Made()
    logger = logging.getLogger(cache.__name__)
    logger.setLevel(logging.INFO)
    logger.addHandler(made)
    settings = load_settings(config)
    begin = time.perf_counter()
    client = load_dataset(settings, CLIENTS).client(0)
    seconds = time.perf_counter() - begin
    if not len(client.train):
        raise AssertionError(f"a client of {dataset} has no examples")
    imported = [name for name in HEAVY if name in sys.modules]
    return {"seconds": seconds, "made": made.count, "imported": imported}


class Made(logging.Handler):
    """Counts the entries that the cache says it has made."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one message."""
        self.count += " made in " in record.getMessage()


def as_table(rows: list[Row]) -> Table:
    """Lay the rows out for a terminal."""
    title = f"Milliseconds of set-up, one of {CLIENTS} clients"
    imported = "; ".join(sorted({row.imported for row in rows} - {""})) or "none"
    caption = f"heavy libraries that the second imports: {imported}"
    table = Table("dataset", title=title, caption=caption)
    for heading in ("no cache", "first", "second", "times", "MB", "together", "made"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.dataset,
            f"{1e3 * row.uncached:,.0f}",
            f"{1e3 * row.first:,.0f}",
            f"{1e3 * row.second:,.1f}",
            f"{row.first / row.second:,.0f}",
            f"{row.megabytes:,.1f}",
            f"{1e3 * row.together:,.0f}",
            f"{row.made_together} of 2",
        )
    return table


if __name__ == "__main__":
    main()
