"""Bytes, rounds and virtual time to an accuracy: ``python -m benchmarks.time_to_accuracy``.

Methods are tuned over one small grid from one seed, then run from several seeds as they were
tuned. What came of each run is kept in a folder, so that stages can be run one by one, and a
broken-off benchmark goes on. ``--page`` writes the results found there as Markdown, with
pictures beside it; nothing is run then.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from benchmarks.time_to_accuracy import methods
from benchmarks.time_to_accuracy.page import write_page
from benchmarks.time_to_accuracy.plan import Job, Plan, tuned_methods
from benchmarks.time_to_accuracy.runs import Runs
from benchmarks.time_to_accuracy.tasks import TASKS

STAGES = ("tuning", "methods", "ablation", "growth", "waiting", "links")


def main() -> None:
    """Carry stages out, or write the page."""
    parser = argparse.ArgumentParser(prog="benchmarks.time_to_accuracy", description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--only", nargs="+", help="names of methods, or parts of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=max(os.cpu_count() or 1, 1))
    parser.add_argument("--quick", action="store_true", help="6 rounds of everything, one seed")
    parser.add_argument("--folder", type=Path, default=Path("runs/time-to-accuracy"))
    parser.add_argument("--page", type=Path, help="write what is there, and run nothing")
    arguments = parser.parse_args()
    folder = arguments.folder / "quick" if arguments.quick else arguments.folder
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    plan = Plan(Runs(folder), seeds, arguments.quick)
    console = Console()
    if arguments.page:
        write_page(plan, arguments.page)
        console.print(f"wrote {arguments.page}")
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core for each run
    for stage in arguments.stages:
        for name, listed in steps(plan, stage, arguments.tasks):
            jobs = [job for job in listed() if wanted(job, arguments.only)]
            carry_out(plan, name, jobs, arguments.jobs, console)


def steps(
    plan: Plan, stage: str, tasks: Iterable[str]
) -> list[tuple[str, Callable[[], list[Job]]]]:
    """Return what a stage consists of; each is listed when what it builds on was run."""
    chosen = [TASKS[name] for name in tasks]
    match stage:
        case "tuning":
            return [
                (f"tuning, {t.name}", lambda t=t: plan.tuning(t, tuned_methods()))  # type: ignore[misc]
                for t in chosen
            ]
        case "methods":
            tried = (methods.BASELINE, *methods.OURS, *methods.PEERS)
            return [
                (f"methods, {t.name}", lambda t=t: plan.seeded(t, tried, plan.seeds))  # type: ignore[misc]
                for t in chosen
            ]
        case "ablation":
            return [("ablation", plan.ablation)]
        case "growth":
            return [("growth", plan.growth)]
        case "waiting":
            return [("waiting", plan.waiting)]
        case _:
            return [("links", plan.links)]


def wanted(job: Job, only: list[str] | None) -> bool:
    """Tell whether a job's method was asked for."""
    return not only or any(part in job.method.name for part in only)


def carry_out(plan: Plan, name: str, jobs: list[Job], parallel: int, console: Console) -> None:
    """Run what is missing, and say so."""
    started, ended = time.perf_counter(), 0
    missing = [job for job in jobs if plan.runs.get(job.config) is None]
    if missing:
        console.print(f"{name}: {len(missing)} of {len(jobs)} runs are missing")
    with console.status(name):
        for config in plan.runs.carry_out((job.config for job in jobs), parallel):
            ended += 1
            job = next(job for job in jobs if job.config == config)
            minutes = (time.perf_counter() - started) / 60
            console.print(
                f"  {ended}/{len(missing)} after {minutes:.1f} min: "
                f"{job.task.name}, {job.method.name}, {job.choice}, seed {job.seed}"
            )


if __name__ == "__main__":
    main()
