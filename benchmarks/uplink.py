"""Coded against uncoded uplinks on whole runs: ``python -m benchmarks.uplink``.

The same job with the same seed, with the default codec and without any: final accuracy, bytes
that clients sent (payloads and whole messages) and virtual time. The downlink is float32 in
both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from flwr.supercore.logger import update_console_handler
from rich.console import Console
from rich.table import Table

from fl_opt.config import ConfigValue
from run_simulation import run

DIGITS: dict[str, ConfigValue] = {"evaluate.federated-every": 0}
FASHION: dict[str, ConfigValue] = {
    "dataset": "fashion-mnist",
    "model": "cnn",
    "data.partition": "dirichlet(0.3)",
    "simulation.num-supernodes": 100,
    "round.clients": 10,
    "num-server-rounds": 30,
    "train.local-epochs": 1,
    "train.momentum": 0.0,
    "train.clip-norm": 0.0,
    "evaluate.federated-every": 0,
    "evaluate.central-every": 2,
}


@dataclass(frozen=True)
class Job:
    """A task, and the codec and feedback to compare with none."""

    name: str
    config: dict[str, ConfigValue]
    codec: str
    feedback: str


JOBS = (
    Job("digits", DIGITS, "topk(0.02) | ternary", "residual"),
    Job("fashion-mnist", FASHION, "topk(0.05) | ternary", "none"),
)


@dataclass(frozen=True)
class Row:
    """What a run ended with."""

    task: str
    codec: str
    seed: int
    final_accuracy: float
    last_accuracy: float
    payload_bytes_up: int
    message_bytes_up: int
    virtual_seconds: float


def main() -> None:
    """Run everything, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2], help="for digits")
    parser.add_argument("--quick", action="store_true", help="digits with one seed")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    update_console_handler(level="WARNING")
    console = Console()
    rows: list[Row] = []
    for job in JOBS[:1] if arguments.quick else JOBS:
        seeds = arguments.seeds if job.name == "digits" else arguments.seeds[:1]
        for seed in seeds[:1] if arguments.quick else seeds:
            for codec, feedback in (("none", "none"), (job.codec, job.feedback)):
                with console.status(f"{job.name}, {codec}, seed {seed}"):
                    rows.append(measure(job, codec, feedback, seed))
    console.print(as_table(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def measure(job: Job, codec: str, feedback: str, seed: int) -> Row:
    """Run a job."""
    config = {
        **job.config,
        "downlink.mode": "full",
        "downlink.codec": "fp32",
        "server-average": "none",
        "seed": seed,
        "uplink.codec": codec,
        "uplink.feedback": feedback,
    }
    with tempfile.TemporaryDirectory() as folder:
        summary = run(config, output=Path(folder) / "run", quiet=True)
    up, convergence = summary.communication.up, summary.convergence
    return Row(
        job.name,
        codec,
        seed,
        convergence.final_accuracy or 0.0,
        convergence.last_accuracy or 0.0,
        up.payload_bytes,
        up.message_bytes,
        summary.time.virtual_total or 0.0,
    )


def as_table(rows: list[Row]) -> Table:
    """Lay the rows out for a terminal; ratios are to the row above."""
    table = Table("task", "uplink codec", "seed", title="Coded and uncoded uplinks")
    for heading in ("accuracy", "last 10", "MB up", "fewer", "in messages", "virtual s"):
        table.add_column(heading, justify="right")
    before = rows[0]
    for row in rows:
        if row.codec == "none":
            before = row
        table.add_row(
            row.task,
            row.codec,
            str(row.seed),
            f"{row.final_accuracy:.4f}",
            f"{row.last_accuracy:.4f}",
            f"{row.payload_bytes_up / 1e6:.3f}",
            f"{before.payload_bytes_up / row.payload_bytes_up:.0f}x",
            f"{before.message_bytes_up / row.message_bytes_up:.0f}x",
            f"{row.virtual_seconds:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
