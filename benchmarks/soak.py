"""Long runs: does anything grow? ``python -m benchmarks.soak``.

- virtual: 2,000 rounds of ten clients on the virtual engine, one process;
- churn: 200 rounds of 100 out of 1,000 clients, of which three in ten lose all they know in
  each round, as a client does that leaves and comes back as another;
- deployment: 200 rounds on a SuperLink and two SuperNodes of this machine.

After each round the resident memory and the open files of every process that lives as long as
the run are read. The slope is that of a line through the second half of the samples, by least
squares, in MB and in files for 1,000 rounds; a warm-up is no growth.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from flwr.supercore.logger import update_console_handler
from rich.console import Console
from rich.table import Table

from fl_opt.config import ConfigValue
from fl_opt.deployment import LocalDeployment
from fl_opt.deployment.home import SERVERAPP
from fl_opt.deployment.local import SUPERLINK, supernode_name
from fl_opt.profiling.rounds import RoundRecord
from run_simulation import PROJECT, run

PARTS = ("virtual", "churn", "deployment")
ROUNDS = {"virtual": (2000, 60), "churn": (200, 8), "deployment": (200, 6)}
COMMON: dict[str, ConfigValue] = {
    "model": "mlp",
    "evaluate.federated-every": 0,
    "evaluate.central-every": 10,
    "output.name": "run",
}
CONFIG: dict[str, dict[str, ConfigValue]] = {
    "virtual": {"dataset": "digits", "simulation.num-supernodes": 10, "train.local-epochs": 1},
    "churn": {
        "dataset": "synthetic",
        "data.partition": "iid",
        "simulation.num-supernodes": 1000,
        "round.clients": 100,
        "faults.restart": 0.3,
        "train.local-epochs": 1,
    },
    "deployment": {
        "dataset": "synthetic",
        "simulation.num-supernodes": 2,
        "round.min-nodes": 2,
        "train.local-epochs": 1,
        "checkpoint.every": 1,
    },
}


@dataclass
class Samples:
    """Memory in MB and open files of a process, against rounds."""

    rounds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def add(self, rounds: float, process: psutil.Process) -> None:
        """Read a process."""
        try:
            memory, files = process.memory_info().rss, process.num_fds()
        except psutil.Error:
            return
        self.rounds.append(rounds)
        self.megabytes.append(memory / 1e6)
        self.files.append(files)

    def row(self) -> dict[str, float]:
        """Return the figures for the table."""
        half = len(self.rounds) // 2
        return {
            "samples": len(self.rounds),
            "first-mb": self.megabytes[half],
            "last-mb": self.megabytes[-1],
            "mb-per-1000": _slope(self.rounds[half:], self.megabytes[half:]),
            "first-files": self.files[half],
            "last-files": self.files[-1],
            "files-per-1000": _slope(self.rounds[half:], self.files[half:]),
        }


def _slope(rounds: list[float], values: list[Any]) -> float:
    if len(set(rounds)) < 2:
        return 0.0
    return float(np.polyfit(rounds, values, 1)[0] * 1000)


class Watch:
    """An observer that samples its own process after each round."""

    def __init__(self, console: Console) -> None:
        self.samples = Samples()
        self._console, self._told = console, time.monotonic()

    def on_start(self, num_rounds: int) -> None:
        """Nothing yet."""

    def on_reply(self, server_round: int, received: int, expected: int) -> None:
        """Only rounds count."""

    def on_round(self, record: RoundRecord) -> None:
        """Sample; say where the run is, now and then."""
        self.samples.add(record.server_round, psutil.Process())
        if time.monotonic() - self._told > 30:
            self._told = time.monotonic()
            self._console.print(f"  round {record.server_round}")

    def on_end(self) -> None:
        """The samples are there."""


def simulated(part: str, rounds: int, console: Console) -> dict[str, Samples]:
    """Run on the virtual engine; return the samples of its one process."""
    watch = Watch(console)
    with tempfile.TemporaryDirectory() as folder:
        config = {
            **COMMON,
            **CONFIG[part],
            "num-server-rounds": rounds,
            "output.folder": folder,
        }
        summary = run(config, quiet=True, observers=[watch])
        size = (Path(folder) / "run" / "rounds.jsonl").stat().st_size
    exchange = summary.exchange
    console.print(
        f"  {summary.rounds_done} rounds, {summary.participants} updates, "
        f"{summary.failures} failed, {exchange.lost} states lost, {exchange.returned} updates "
        f"taken back; accuracy {summary.convergence.last_accuracy:.4f}; "
        f"history {size / 1e6:.1f} MB on disk"
    )
    return {f"{part}: all in one": watch.samples}


def deployed(rounds: int, console: Console) -> dict[str, Samples]:
    """Run on a deployment; return the samples of each process that lives on."""
    found: dict[str, Samples] = defaultdict(Samples)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalDeployment(2, poll_seconds=0.2) as flower,
    ):
        path = Path(folder) / "run" / "rounds.jsonl"
        config = {
            **COMMON,
            **CONFIG["deployment"],
            "num-server-rounds": rounds,
            "output.folder": folder,
        }
        started = flower.start_run(PROJECT, config)
        with _sampling(flower, path, found, console):
            finished = flower.wait(started, timeout=60.0 * rounds)
        console.print(
            f"  {finished.status}, {finished.seconds:.0f} s; history "
            f"{path.stat().st_size / 1e6:.2f} MB on disk"
        )
    return dict(found)


@contextmanager
def _sampling(
    flower: LocalDeployment, path: Path, found: dict[str, Samples], console: Console
) -> Iterator[None]:
    over = threading.Event()

    def sample() -> None:
        last = 0
        while not over.wait(1.0):
            lines = path.read_bytes().count(b"\n") if path.exists() else 0
            if lines - 1 <= last:
                continue
            last = lines - 1
            if not last % 10:
                console.print(f"  round {last}")
            for name in (SUPERLINK, supernode_name(0), supernode_name(1)):
                for process in flower.processes(name):
                    if _program(process) in ("flower-superlink", "fl-opt", "flower-superexec"):
                        found[f"deployment: {name}, {_program(process)}"].add(last, process)
            for process in flower.apps(SERVERAPP):
                found["deployment: ServerApp"].add(last, process)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _program(process: psutil.Process) -> str:
    try:
        return next((Path(word).name for word in process.cmdline()[1:2]), "")
    except psutil.Error:
        return ""


def main() -> None:
    """Run the parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one")
    parser.add_argument("--quick", action="store_true", help="a few rounds of each")
    parser.add_argument("--rounds", type=int, help="how many instead, at least 1")
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"argument --rounds: {options.rounds} is not at least 1")
    update_console_handler(level="ERROR")
    logging.getLogger("strategies").setLevel(logging.ERROR)
    console = Console(width=120, highlight=False)
    rows: dict[str, dict[str, float]] = {}
    for part in options.part or PARTS:
        rounds = options.rounds or ROUNDS[part][options.quick]
        console.print(f"{part}: {rounds} rounds")
        if part == "deployment":
            samples = deployed(rounds, console)
        else:
            samples = simulated(part, rounds, console)
        rows |= {name: one.row() for name, one in samples.items() if one.rounds}
    table = Table(
        *("process", "samples", "MB, half", "MB, end", "MB/1000 rounds"),
        *("files, half", "files, end", "files/1000 rounds"),
    )
    for name, row in rows.items():
        table.add_row(
            *(name, f"{row['samples']:.0f}", f"{row['first-mb']:.1f}"),
            *(f"{row['last-mb']:.1f}", f"{row['mb-per-1000']:+.2f}"),
            *(f"{row['first-files']:.0f}", f"{row['last-files']:.0f}"),
            f"{row['files-per-1000']:+.2f}",
        )
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
