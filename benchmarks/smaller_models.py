"""Pruned models and sub-models against whole ones: ``python -m benchmarks.smaller_models``.

Tasks in the virtual engine: the mlp on scikit-learn's digits (10 clients, all in each
round, three local epochs) and the cnn on Fashion-MNIST (100 clients by dirichlet(0.3), 10 a
round, one local epoch). Each is trained whole, with 80% of its weights pruned on the way, with
half of the rows of each layer pruned, and with half of the clients, or all, on half of the
hidden units. Sub-models of the cnn need a smaller learning rate than the whole model takes:
their outputs are scaled up at three layers. So a third task has whole and half models at .03.
Accuracy is the mean of the last ten central evaluations; bytes are payloads as they were sent;
seconds are those of local training for each 1000 of a client's examples.

``--task digits``, ``fashion`` or ``fashion-slow`` does one of them, ``--quick`` a few rounds of
each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from flwr.supercore.logger import update_console_handler
from rich.console import Console
from rich.table import Table

from fl_opt.config import ConfigValue
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting import load_run
from run_simulation import run

Config = Mapping[str, ConfigValue]
LAST = 10
WHOLE = "whole"


@dataclass(frozen=True)
class Task:
    """A dataset, a model and how it is federated; ``only`` as the option of that name."""

    name: str
    rounds: int
    quick: int
    config: Config
    only: tuple[str, ...] = ()


_BOTH: Config = {
    "uplink.codec": "topk(0.02) | ternary",
    "downlink.mode": "auto",
    "downlink.codec": "ecsq(1.0)",
    "server-average": "none",
}
_FASHION: Config = {
    **_BOTH,
    "dataset": "fashion-mnist",
    "model": "cnn",
    "data.partition": "dirichlet(0.3)",
    "simulation.num-supernodes": 100,
    "round.clients": 10,
    "train.local-epochs": 1,
    "train.momentum": 0.0,
    "train.clip-norm": 0.0,
    "train.learning-rate": 0.1,
    "uplink.feedback": "none",
    "server-optimizer": "sgd(eta=1.0, momentum=0.9)",
}
TASKS = {
    "digits": Task(
        "mlp, digits",
        50,
        12,
        {
            **_BOTH,
            "dataset": "digits",
            "model": "mlp",
            "uplink.feedback": "residual",
            "data.partition": "dirichlet(0.5)",
            "simulation.num-supernodes": 10,
            "train.local-epochs": 3,
        },
    ),
    "fashion": Task("cnn, Fashion-MNIST", 60, 6, _FASHION),
    "fashion-slow": Task(
        "the same, rate .03",
        60,
        6,
        {**_FASHION, "train.learning-rate": 0.03},
        only=("half", "halves"),
    ),
}


def variants(rounds: int) -> dict[str, Config]:
    """Return what is compared; pruning takes the second sixth to the half of the rounds."""
    begin, end = max(rounds // 6, 1), max(rounds // 2, 1)
    when = f"begin={begin}, end={end}, every={max((end - begin) // 4, 1)}"
    return {
        WHOLE: {},
        "80% pruned": {"pruning": f"magnitude(0.8, {when})"},
        "50% of rows pruned": {"pruning": f"structured(0.5, {when})"},
        "half width, all clients": {"submodels": "rolling(0.5)"},
        "halves in turn, all clients": {"submodels": "rolling(0.5, shift=64)"},
        "half width, half of them": {"submodels": "rolling(0.5, share=0.5)"},
        "first half, half of them": {"submodels": "static(0.5, share=0.5)"},
    }


@dataclass(frozen=True)
class Row:
    """What a run ended with.

    Bytes are payloads: of the whole run, and of the last round. Train seconds are for 1000 of a
    client's examples: the median over the last rounds and over clients.
    """

    task: str
    variant: str
    seed: int
    rounds: int
    accuracy: float
    bytes_up: int
    bytes_down: int
    last_bytes_up: int
    last_bytes_down: int
    train_seconds: float
    failures: int


def main() -> None:
    """Run everything, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=list(TASKS), help="default: all")
    parser.add_argument("--rounds", type=int, help="default: 50, 60 and 60")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    parser.add_argument("--only", nargs="+", help="names of variants, such as 'pruned'")
    parser.add_argument("--quick", action="store_true", help="12, 6 and 6 rounds")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    update_console_handler(level="ERROR")
    console = Console()
    rows: list[Row] = []
    for name in [arguments.task] if arguments.task else TASKS:
        task = TASKS[name]
        rounds = arguments.rounds or (task.quick if arguments.quick else task.rounds)
        for variant, config in variants(rounds).items():
            wanted = arguments.only or task.only
            if wanted and variant != WHOLE and not any(part in variant for part in wanted):
                continue
            for seed in arguments.seeds:
                with console.status(f"{task.name}: {variant}, seed {seed}"):
                    rows.append(measure(task, variant, config, rounds, seed))
            if arguments.output:
                found = [asdict(row) for row in rows]
                arguments.output.write_text(json.dumps(found, indent=1))
    console.print(as_table(rows))


def measure(task: Task, variant: str, config: Config, rounds: int, seed: int) -> Row:
    """Run a variant."""
    whole: dict[str, ConfigValue] = {
        **task.config,
        **config,
        "num-server-rounds": rounds,
        "evaluate.federated-every": 0,
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        summary = run(whole, output=Path(folder) / "run", quiet=True)
        records = load_run(Path(folder) / "run").records
    last = records[-LAST:]
    return Row(
        task=task.name,
        variant=variant,
        seed=seed,
        rounds=rounds,
        accuracy=float(np.mean([r.accuracy for r in last if r.accuracy is not None])),
        bytes_up=summary.communication.up.payload_bytes,
        bytes_down=summary.communication.down.payload_bytes,
        last_bytes_up=records[-1].bytes_up,
        last_bytes_down=records[-1].bytes_down,
        train_seconds=per_example(last),
        failures=summary.failures,
    )


def per_example(records: list[RoundRecord]) -> float:
    """Return the seconds of local training for each 1000 examples, by median over clients."""
    clients = [c for record in records for c in record.clients if c.num_examples]
    return float(np.median([1000 * c.train_seconds / c.num_examples for c in clients]))


def as_table(rows: list[Row]) -> Table:
    """Lay out means over seeds for a terminal; points are against the whole model."""
    table = Table("task", "variant", title="Payloads in kB of 1000 bytes")
    headings = ("points", "up", "down", "last round up", "last round down", "s/1000")
    for heading in (f"mean of last {LAST}", *headings):
        table.add_column(heading, justify="right")
    for task, variant in dict.fromkeys((row.task, row.variant) for row in rows):
        ours = [row for row in rows if (row.task, row.variant) == (task, variant)]
        whole = [row for row in rows if (row.task, row.variant) == (task, WHOLE)]
        points = 100 * (mean(ours, "accuracy") - mean(whole, "accuracy"))
        sizes = ("bytes_up", "bytes_down", "last_bytes_up", "last_bytes_down")
        table.add_row(
            task,
            variant,
            f"{mean(ours, 'accuracy'):.4f}",
            f"{points:+.1f}",
            *(f"{mean(ours, size) / 1000:.1f}" for size in sizes),
            f"{mean(ours, 'train_seconds'):.4f}",
        )
    return table


def mean(rows: list[Row], name: str) -> float:
    """Return the mean of a column."""
    return float(np.mean([getattr(row, name) for row in rows]))


if __name__ == "__main__":
    main()
