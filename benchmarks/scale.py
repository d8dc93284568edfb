"""The virtual engine at 10,000 clients, and beside Ray: ``python -m benchmarks.scale``.

Every client draws 200 synthetic examples of its own and trains an MLP of 26,122 parameters for
one epoch; updates travel as ``topk(0.02) | ternary``, the model as float32. Each run has a
process of its own; of its rounds the first, in which workers start and libraries load, is not
counted.

The first table is one process with 100 clients a round, of 100 and of 10,000: what a round
takes beyond the clients' own training, and memory. The second is the same job of 100 clients,
20 a round, on the virtual engine with one and two processes and on Flower's Ray engine. Runs
take turns; figures are medians over the rounds of all of them, memory is the highest peak.

Times are seconds a round, by the clock and of all processors. Training and coding are sums of
what clients measured. Beyond training is the time by the clock less training divided by the
number of processes; coding is part of it, and so is what the server measured for writing
messages and for decoding and adding up replies. The rest are Flower's messages, the engine,
reading the model on clients, and processes that wait. Memory is that of the whole tree of
processes, in which what several of them share counts once where the system tells.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.scale_job import Job, Round


@dataclass
class Row:
    """The counted rounds of a job, and the peak of memory in bytes."""

    job: Job
    rounds: list[Round] = field(default_factory=list)
    memory: int = 0

    def add(self, other: Row) -> None:
        """Take in another run of the same job."""
        self.rounds += other.rounds
        self.memory = max(self.memory, other.memory)

    def median(self, of: Callable[[Round], float]) -> float:
        """Return the median over rounds."""
        return statistics.median(map(of, self.rounds))

    def to_dict(self) -> dict[str, Any]:
        """Return figures for tables and JSON; see the module's docstring."""
        processes = self.job.processes
        return {
            **asdict(self.job),
            "processes": processes,
            "seconds": self.median(lambda r: r.total),
            "cpu": self.median(lambda r: r.cpu),
            "training": self.median(lambda r: r.training),
            "beyond": self.median(lambda r: r.total - r.training / processes),
            "encoding": self.median(lambda r: r.encoding),
            "server": self.median(lambda r: r.server),
            "memory-mb": self.memory / 1e6,
            "rounds-counted": len(self.rounds),
        }


def measure(job: Job) -> Row:
    """Run a job in a process of its own, and watch its memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rounds.json"
        call = f"run_to_file({str(path)!r}, **{asdict(job)})"
        code = f"from benchmarks.scale_job import run_to_file; {call}"
        process = subprocess.Popen([sys.executable, "-c", code])
        peak = 0
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.2)
        if process.returncode:
            raise RuntimeError(f"{job} ended with exit code {process.returncode}")
        rounds = [Round(**values) for values in json.loads(path.read_text())]
    return Row(job, rounds[1:], peak)


def tree_memory(pid: int) -> int:
    """Return the memory of a process and all below it, each shared page counted once."""
    total = 0
    try:
        processes = [root := psutil.Process(pid), *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            info = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += getattr(info, "pss", info.rss)  # proportional, where the system tells
    return total


def compare(jobs: list[Job], repeats: int, console: Console) -> list[dict[str, Any]]:
    """Run jobs in turns, and return the figures of each."""
    rows = [Row(job) for job in jobs]
    for turn in range(repeats):
        for row in rows:
            with console.status(f"{row.job.name}, {row.job.clients} clients, run {turn + 1}"):
                row.add(measure(row.job))
    return [row.to_dict() | {"name": row.job.name} for row in rows]


def as_table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Lay rows out for a terminal; ratios are to the first one."""
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    keys = ("seconds", "cpu", "training", "beyond", "encoding", "server", "memory-mb")
    headings = ("s", "CPU s", "train", "beyond", "code", "server", "MB")
    ratio_of = ("seconds", "cpu", "memory-mb")
    for heading in (*headings, *(f"{name} x" for name in ("s", "CPU", "MB"))):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        ratios = [row[key] / rows[0][key] for key in ratio_of]
        table.add_row(
            f"{row['name']}, {row['cohort']}/{row['clients']:,}",
            *(f"{row[key]:.0f}" if row[key] >= 100 else f"{row[key]:.2f}" for key in keys),
            *(f"{ratio:.2f}" for ratio in ratios),
        )
    return table


def main() -> None:
    """Measure, print both tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of each run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each job")
    parser.add_argument("--quick", action="store_true", help="one run of 3 rounds each")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    rounds, repeats = arguments.rounds, arguments.repeats
    if arguments.quick:
        rounds, repeats = 3, 1
    console = Console()
    large = [Job("virtual", clients, 100, rounds) for clients in (100, 10_000)]
    small = [Job("virtual", 100, 20, rounds, workers) for workers in (1, 2)]
    titles = ("Registered clients", "Beside Flower's Ray engine")
    tables = {}
    for title, jobs in zip(titles, (large, [*small, Job("ray", 100, 20, rounds)]), strict=True):
        tables[title] = compare(jobs, repeats, console)
        console.print(as_table(title, tables[title]))
    if arguments.output:
        arguments.output.write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
