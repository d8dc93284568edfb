"""Does a client keep its memory limit? ``python -m benchmarks.memory_limit``.

Deep models are trained with large batches in a process of their own, which is watched from
outside: the kernel's high-water mark of its resident memory, the interpreter and torch
included. First without a limit; then with checkpoints alone; then with
``train.memory-limit-mb`` at half of what the first took, and checkpoints that may be used. The
losses say that training is the same. ``start`` is what the process has when it begins to
train, which after the first run includes what trials left behind; ``parts`` is into how many
passes a batch is cut.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import Examples
from fl_opt.profiling.memory import resident_bytes
from fl_opt.training import train
from fl_opt.training.memory import MEGA, measure_memory
from fl_opt.training.plan import Plan, find_plan
from fl_opt.training.segments import segment_choices

SEED = 1
STEPS = 4
BATCH = 1024


@dataclass(frozen=True)
class Row:
    """One process, and what was seen of it."""

    model: str
    run: str
    limit_mb: int
    peak_mb: float
    before_mb: float
    passes: int
    checkpoint_modules: str
    samples_per_second: float
    loss: float


def main() -> None:
    """Run every process, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one model, two steps")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(work(json.loads(arguments.child))))
        return
    names, steps = (["blocks"], 2) if arguments.quick else (list(MODELS), STEPS)
    console = Console()
    rows = []
    for name in names:
        with console.status(name):
            rows += compare(name, BATCH, steps)
    console.print(as_table(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def compare(name: str, batch: int, steps: int) -> list[Row]:
    """Train one model in three processes, one after the other."""
    job: dict[str, Any] = {"model": name, "batch": batch, "steps": steps}
    free = run("free", {**job, "modules": "", "limit_mb": 0})
    checkpoints = run("checkpoints", {**job, "modules": "best", "limit_mb": 0})
    half = {**job, "modules": "auto", "limit_mb": int(free.peak_mb / 2)}
    return [free, checkpoints, run("half", half)]


def run(title: str, job: dict[str, Any]) -> Row:
    """Start a process and watch its memory until it ends."""
    command = [sys.executable, "-m", "benchmarks.memory_limit", "--child", json.dumps(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = watch(process)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, f"{title} of {job} failed"
    return Row(
        model=job["model"],
        run=title,
        limit_mb=job["limit_mb"],
        peak_mb=peak / MEGA,
        **json.loads(said),
    )


def watch(process: subprocess.Popen[str]) -> int:
    """Return the high-water mark of another process' resident memory, in bytes."""
    status = Path(f"/proc/{process.pid}/status")
    peak = 0
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith(("VmHWM:", "VmRSS:")):  # the mark may be begun anew inside
                peak = max(peak, int(line.split()[1]) * 1024)
        time.sleep(0.005)
    return peak


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Train as a client does: find a plan, then follow it."""
    torch.manual_seed(SEED)
    model = MODELS[job["model"]]()
    count = job["batch"]
    examples = Examples(torch.randn(count, *INPUTS[job["model"]]), torch.arange(count) % 10)
    settings = TrainSettings(
        local_steps=job["steps"],
        batch_size=count,
        learning_rate=0.01,
        checkpoint_modules=job["modules"],
        memory_limit_mb=job["limit_mb"],
    )
    if job["modules"] == "best":
        modules = least_memory(model, examples, settings)
        settings = settings.model_copy(update={"checkpoint_modules": modules})
    with tempfile.TemporaryDirectory() as folder:
        plan: Plan = find_plan(model, examples, settings, folder=Path(folder))
    before = resident_bytes()
    result = train(model, examples, settings, seed=SEED, plan=plan)
    return {
        "before_mb": before / MEGA,
        "passes": -(-count // plan.micro_batch_size),
        "checkpoint_modules": plan.checkpoint_modules,
        "samples_per_second": result.num_samples / result.seconds,
        "loss": result.loss,
    }


def least_memory(model: nn.Module, examples: Examples, settings: TrainSettings) -> str:
    """Return the checkpoints that take least memory, as the setting names them."""

    def peak(modules: str) -> int:
        plan = Plan(len(examples), len(examples), checkpoint_modules=modules)
        return measure_memory(model, examples, settings, plan).peak(len(examples))

    return min(segment_choices(model), key=peak)


class Residual(nn.Module):
    """Two wide layers beside a shortcut: much is kept inside, little between blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Add what the layers make of the inputs."""
        result: torch.Tensor = inputs + self.inner(inputs)
        return result


def blocks() -> nn.Module:
    """Build 24 residual blocks over the rows of an image."""
    body = [Residual(64) for _ in range(24)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(16 * 64, 10))


def convolutions() -> nn.Module:
    """Build 36 convolutions on images of 28x28 pixels, one after the other."""
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()]
    for _ in range(35):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10))


MODELS = {"blocks": blocks, "cnn": convolutions}
INPUTS = {"blocks": (16, 64), "cnn": (1, 28, 28)}


def as_table(rows: list[Row]) -> Table:
    """Lay the rows out for a terminal."""
    title = f"Resident memory of the process in MB, batches of {BATCH}"
    table = Table("model", "run", title=title)
    for heading in ("limit", "peak", "start", "parts", "ex/s", "loss"):
        table.add_column(heading, justify="right")
    table.add_column("kept")
    for row in rows:
        table.add_row(
            row.model,
            row.run,
            str(row.limit_mb or "-"),
            f"{row.peak_mb:.0f}",
            f"{row.before_mb:.0f}",
            str(row.passes),
            f"{row.samples_per_second:,.0f}",
            f"{row.loss:.4f}",
            _short(row.checkpoint_modules),
        )
    return table


def _short(modules: str) -> str:
    """Say what activations are kept: all, or the inputs of blocks or of runs of layers."""
    if not modules:
        return "all"
    return "blocks" if "," in modules else f"{modules[1:]} runs"


if __name__ == "__main__":
    main()
