"""The naive loop against fl_opt on one task: ``python -m benchmarks.reference_workload``.

Ten clients of 200 synthetic samples, an MLP of 26,122 parameters, SGD with rate 0.01 and
momentum 0.9, batches of 32, 3 local epochs, gradients clipped at 1.0, 30 rounds, the same
initial model and the same parts of the data for all. Each side first does one round that does
not count, so that imports count for neither. Our time is that of the whole call of
``run_simulation.run``: Flower's messages, codecs, evaluation of every round and the record.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from flwr.supercore.logger import update_console_handler
from rich.console import Console
from rich.table import Table

from benchmarks import naive_loop
from fl_opt.config import ConfigValue, load_settings
from fl_opt.data import in_memory, load_dataset
from fl_opt.models import build_model
from run_simulation import run

T = TypeVar("T")

CLIENTS = 10
CODECS = ("none", "topk(0.1) | ternary", "topk(0.05) | ternary", "topk(0.02) | ternary")
CONFIG: dict[str, ConfigValue] = {
    "dataset": "synthetic",
    "model": "mlp",
    "data.partition": "iid",
    "data.validation-fraction": 0.0,
    "train.optimizer": "sgd",
    "train.learning-rate": naive_loop.LEARNING_RATE,
    "train.momentum": naive_loop.MOMENTUM,
    "train.batch-size": naive_loop.BATCH_SIZE,
    "train.local-epochs": naive_loop.LOCAL_EPOCHS,
    "train.clip-norm": naive_loop.CLIP_NORM,
    "train.device": "cpu",
    "evaluate.federated-every": 0,
    "downlink.mode": "full",
    "downlink.codec": "fp32",
    "simulation.num-supernodes": CLIENTS,
}


@dataclass(frozen=True)
class Row:
    """One run: final accuracy, seconds by the clock and of the processor, bytes sent up."""

    name: str
    accuracy: float
    wall_seconds: float
    cpu_seconds: float
    bytes_up: int
    dense_bytes_up: int

    @property
    def ratio(self) -> float:
        """Float32 bytes over bytes sent."""
        return self.dense_bytes_up / self.bytes_up


def main() -> None:
    """Run both sides, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--naive-threads",
        type=int,
        default=1,
        help="torch threads of the naive loop; ours has 1",
    )
    parser.add_argument(
        "--loader-workers", type=int, default=0, help="processes of each naive DataLoader"
    )
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    update_console_handler(level="WARNING")
    console = Console()

    torch.set_num_threads(arguments.naive_threads)
    with console.status("naive loop"):
        naive(1, arguments.seed, False, arguments.loader_workers)
        rows = [
            naive(rounds, arguments.seed, compress, arguments.loader_workers)
            for compress in (False, True)
        ]
    torch.set_num_threads(1)
    with console.status("fl_opt"):
        ours(1, arguments.seed, "none")
        rows += [ours(rounds, arguments.seed, codec) for codec in CODECS]

    console.print(as_table(rows, rounds, arguments.seed))
    if arguments.output:
        content = {
            "rounds": rounds,
            "seed": arguments.seed,
            "naive-threads": arguments.naive_threads,
            "loader-workers": arguments.loader_workers,
            "rows": [asdict(row) for row in rows],
        }
        arguments.output.write_text(json.dumps(content, indent=1))


def naive(rounds: int, seed: int, compress: bool, workers: int) -> Row:
    """Run the naive loop."""
    dataset = load_dataset(load_settings({**CONFIG, "seed": seed}), CLIENTS)
    model = build_model("mlp", dataset.info, seed)
    size = sum(parameter.numel() for parameter in model.parameters())
    parts = [in_memory(dataset.client(i).train) for i in range(CLIENTS)]
    result, wall, cpu = timed(
        lambda: naive_loop.run_naive(
            model,
            parts,
            in_memory(dataset.test),
            num_rounds=rounds,
            compress=compress,
            seed=seed,
            loader_workers=workers,
        )
    )
    name = "naive, top 20%" if compress else "naive, all weights"
    dense = 4 * size * CLIENTS * rounds
    return Row(name, result.accuracy, wall, cpu, result.bytes_up, dense)


def ours(rounds: int, seed: int, codec: str) -> Row:
    """Run the same task with fl_opt."""
    config = {**CONFIG, "seed": seed, "num-server-rounds": rounds, "uplink.codec": codec}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        summary, wall, cpu = timed(lambda: run(config, output=output, quiet=True))
    accuracy = summary.convergence.final_accuracy
    assert accuracy is not None
    up = summary.communication.up
    return Row(f"fl_opt, {codec}", accuracy, wall, cpu, up.payload_bytes, up.dense_bytes)


def timed(function: Callable[[], T]) -> tuple[T, float, float]:
    """Call a function; return its result and its wall and processor seconds."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    result = function()
    return result, time.perf_counter() - wall, sum(os.times()[:4]) - cpu


def as_table(rows: list[Row], rounds: int, seed: int) -> Table:
    """Lay the rows out; speed is by the clock, against the naive loop that compresses."""
    table = Table(title=f"Reference workload, {rounds} rounds, seed {seed}")
    table.add_column("")
    for heading in ("accuracy", "wall s", "CPU s", "speed", "MB up", "vs fp32"):
        table.add_column(heading, justify="right")
    baseline = rows[1]
    for row in rows:
        table.add_row(
            row.name,
            f"{row.accuracy:.3f}",
            f"{row.wall_seconds:.1f}",
            f"{row.cpu_seconds:.1f}",
            f"{baseline.wall_seconds / row.wall_seconds:.1f}x",
            f"{row.bytes_up / 1e6:.3f}",
            f"{row.ratio:.1f}x",
        )
    return table


if __name__ == "__main__":
    main()
