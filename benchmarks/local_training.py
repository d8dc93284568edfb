"""A client's training beside the naive loop: ``python -m benchmarks.local_training``.

One client's share of a round on three tasks: mlp on synthetic data, cnn on Fashion-MNIST,
char_lm on Shakespeare. The naive loop copies the model, reads a Python dataset sample by
sample through a ``DataLoader``, trains under bfloat16 autocast and copies the weights out; the
row below it is the same loop without autocast, which is far faster on many CPUs. Ours takes
the arrays of a model, trains as the client does and returns arrays. All have the same
examples, batches of 32, SGD with momentum and clipping. Then each option alone.

Speed is measured in turns within one process, with one thread; peak memory in a process for
each, as what training added to what was resident before.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import naive_loop
from fl_opt.config import ConfigValue, Settings, load_settings
from fl_opt.data import Examples, StreamedExamples, load_dataset
from fl_opt.models import build_model
from fl_opt.profiling.memory import return_freed_memory
from fl_opt.profiling.phases import phase_memory
from fl_opt.profiling.timing import side_by_side
from fl_opt.simulation.resources import client_threads
from fl_opt.training import get_arrays, prediction_loss, set_arrays, train
from fl_opt.training.plan import Plan
from fl_opt.training.segments import segment_choices

NAIVE, OURS, COMPILED = "naive loop", "fl_opt", "torch.compile"
NAIVE_FP32 = "naive loop in fp32"
TRAIN: dict[str, ConfigValue] = {
    "train.batch-size": naive_loop.BATCH_SIZE,
    "train.local-epochs": naive_loop.LOCAL_EPOCHS,
    "train.learning-rate": naive_loop.LEARNING_RATE,
    "train.momentum": naive_loop.MOMENTUM,
    "train.clip-norm": naive_loop.CLIP_NORM,
    "data.validation-fraction": 0.0,
    "seed": 42,
}
BATCH = naive_loop.BATCH_SIZE
PLAIN = Plan(BATCH, BATCH)


@dataclass(frozen=True, eq=False)
class Task:
    """A model, and the examples of one client."""

    name: str
    config: dict[str, ConfigValue]
    clients: int
    most_examples: int


TASKS = (
    Task("mlp", {"dataset": "synthetic", "model": "mlp", "data.partition": "iid"}, 10, 200),
    Task(
        "cnn", {"dataset": "fashion-mnist", "model": "cnn", "data.partition": "iid"}, 100, 600
    ),
    Task(
        "char_lm",
        {"dataset": "shakespeare", "model": "char_lm", "data.partition": "natural"},
        100,
        256,
    ),
)


@dataclass(frozen=True)
class Option:
    """A way to train: a plan, and changes of the settings."""

    plan: Plan = PLAIN
    settings: dict[str, Any] = field(default_factory=dict)
    streamed: bool = False
    autograd: bool = False


def options_of(model: nn.Module) -> dict[str, Option]:
    """Return what is measured beside the naive loop, by name."""
    found = {
        OURS: Option(),
        "bf16": Option(Plan(BATCH, BATCH, "bf16")),
        "micro batches of 8": Option(Plan(BATCH, 8)),
        "channels last": Option(settings={"channels_last": True}),
        "streamed": Option(streamed=True),
        "autograd": Option(autograd=True),
        COMPILED: Option(settings={"compile": True}),
    }
    for patterns in segment_choices(model)[:1]:
        found["checkpointing"] = Option(Plan(BATCH, BATCH, "fp32", patterns))
    return found


@dataclass(frozen=True)
class Row:
    """One way to train on one task."""

    task: str
    name: str
    samples_a_second: float
    peak_bytes: int
    loss: float


def main() -> None:
    """Measure all tasks, print tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=[task.name for task in TASKS])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="torch.compile too: slow starts")
    parser.add_argument("--quick", action="store_true", help="one repeat")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    rows: list[Row] = []
    for task in TASKS:
        if arguments.tasks and task.name not in arguments.tasks:
            continue
        with console.status(f"{task.name}: naive loop and options in turns"):
            repeats = 1 if arguments.quick else arguments.repeats
            found = measure(task, repeats, arguments.compile and bool(shutil.which("c++")))
        rows += found
        console.print(as_table(found))
        if arguments.output:
            arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def measure(task: Task, repeats: int, compiles: bool) -> list[Row]:
    """Time every way in turns, then have each in a process of its own for its memory."""
    model, examples = material(task)
    names = [n for n in (NAIVE, NAIVE_FP32, *options_of(model)) if compiles or n != COMPILED]
    with client_threads():
        seconds = side_by_side({name: way(task, name) for name in names}, repeats)
    samples = naive_loop.LOCAL_EPOCHS * len(examples)
    rows = []
    for name in names:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak, loss = pool.apply(added_memory, (task, name))
        rows.append(Row(task.name, name, samples / seconds[name], peak, loss))
    return rows


def added_memory(task: Task, name: str) -> tuple[int, float]:
    """Return what a round's training adds to resident memory, and the loss after it.

    The naive loop runs first on a few examples, so that what torch sets up when it is first
    used counts for nobody.
    """
    model, examples = material(task)
    few = naive_loop.ListDataset(examples.batch(0, BATCH))
    naive_loop.train_client(copy.deepcopy(model), few, 0)
    run = way(task, name)
    return_freed_memory()
    with client_threads(), phase_memory("train") as phase:
        arrays = run()
    set_arrays(model, arrays)
    with torch.inference_mode():
        loss = prediction_loss(model(examples.inputs), examples.targets)
    return phase.added_bytes, float(loss)


def way(task: Task, name: str) -> Callable[[], dict[str, Any]]:
    """Return what trains a client for a round and gives the arrays of its model."""
    model, examples = material(task)
    model = copy.deepcopy(model)
    if name in {NAIVE, NAIVE_FP32}:
        dataset = naive_loop.ListDataset(examples)

        def naive() -> dict[str, Any]:
            state = naive_loop.train_client(
                copy.deepcopy(model), dataset, 0, autocast=name == NAIVE
            )
            return {key: tensor.numpy() for key, tensor in state.items()}

        return naive

    option = options_of(model)[name]
    start = get_arrays(model)
    settings = settings_of(task).train.model_copy(update=option.settings)
    data = StreamedExamples(examples, torch.arange(len(examples)))
    if option.autograd:
        model.register_forward_hook(lambda *_: None)  # which takes more than the weights

    def ours() -> dict[str, Any]:
        set_arrays(model, start)
        train(model, data if option.streamed else examples, settings, seed=1, plan=option.plan)
        return get_arrays(model)

    return ours


@lru_cache
def material(task: Task) -> tuple[nn.Module, Examples]:
    """Return the model, and the examples of one of the larger clients."""
    settings = settings_of(task)
    dataset = load_dataset(settings, task.clients)
    model = build_model(settings.model, dataset.info, settings.seed)
    clients = [dataset.client(i).train for i in range(min(task.clients, 10))]
    return model, max(clients, key=len).batch(0, task.most_examples)


def settings_of(task: Task) -> Settings:
    """Return the settings of a task."""
    return load_settings({**TRAIN, **task.config})


def as_table(rows: list[Row]) -> Table:
    """Lay the rows of a task out; ratios are to the naive loop, and to ours as it is."""
    task = rows[0].task
    table = Table("", title=f"{task}: one client's round, batches of {BATCH}, one thread")
    for heading in ("samples/s", "to naive", "to fl_opt", "peak MB", "loss after it"):
        table.add_column(heading, justify="right")
    speeds = {row.name: row.samples_a_second for row in rows}
    for row in rows:
        table.add_row(
            row.name,
            f"{row.samples_a_second:,.0f}",
            f"{row.samples_a_second / speeds[NAIVE]:.2f}x",
            f"{row.samples_a_second / speeds[OURS]:.2f}x",
            f"{row.peak_bytes / 1e6:.1f}",
            f"{row.loss:.4f}",
            end_section=row.name == OURS,
        )
    return table


if __name__ == "__main__":
    main()
