"""Faults in real deployments: ``python -m benchmarks.chaos``.

A SuperLink and three SuperNodes on this machine run a job again and again, while faults strike
at random moments: processes are killed and frozen, the network between them delays, loses and
cuts, the disk is full for checkpoints, clocks jump. A run that was killed is started again
with ``resume``. Each job has to come to its end, with an accuracy within a point of a job
without faults, and books in which no client's work is missing or counts twice.

The status is 1 if that is not so.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.chaos.faults import FAULTS
from benchmarks.chaos.job import Outcome, run_job

ROUNDS_FOR_A_FAULT = 3
ALLOWED = 0.01  # of accuracy
_WIDTH = 132  # characters: the table of jobs is wide, also in a file


def main() -> int:
    """Run all jobs and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--faults", type=int, default=32, help="how many (default: 32)")
    parser.add_argument("--per-job", type=int, default=8, help="faults of a job (default: 8)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="four faults in one job")
    options = parser.parse_args()
    count, per_job = (4, 4) if options.quick else (options.faults, options.per_job)
    console = Console(width=_WIDTH, highlight=False)
    names = list(_names(count, options.seed))
    rounds = ROUNDS_FOR_A_FAULT * per_job + 3

    console.print(f"one job of {rounds} rounds without faults")
    with tempfile.TemporaryDirectory() as folder:
        quiet = run_job(Path(folder), rounds)
    console.print(f"  {quiet.seconds:.0f} s, accuracy {quiet.books.accuracy:.4f}")
    jobs: list[Outcome] = []
    for start in range(0, count, per_job):
        console.print(f"job {len(jobs) + 1}")
        with tempfile.TemporaryDirectory() as folder:
            jobs.append(
                run_job(
                    Path(folder),
                    rounds,
                    names[start : start + per_job],
                    seed=options.seed + start + 1,
                    tell=lambda line: console.print(f"  {line}"),
                )
            )
    return _report(console, quiet, jobs)


def _names(count: int, seed: int) -> Iterator[str]:
    """Yield kinds of faults: all of them in a random order, and again."""
    draw = random.Random(seed)  # noqa: S311 - faults, not secrets
    while count > 0:
        yield from draw.sample(list(FAULTS), len(FAULTS))[:count]
        count -= len(FAULTS)


def _report(console: Console, quiet: Outcome, jobs: list[Outcome]) -> int:
    faults = Table("fault", "times", "resumed", "slowest recovery, s", title="By kind")
    for name in FAULTS:
        struck = [one for job in jobs for one in job.struck if one.name == name]
        if struck:
            slowest = max(one.recovery for one in struck)
            resumed = sum(one.resumed for one in struck)
            faults.add_row(name, str(len(struck)), str(resumed), f"{slowest:.1f}")
    table = Table(
        *("job", "faults", "ended", "rounds", "updates", "returned", "doubled", "vanished"),
        *("left with the dead", "accuracy", "difference"),
        title="By job",
    )
    good = True
    for name, job in (("quiet", quiet), *((str(n), job) for n, job in enumerate(jobs, 1))):
        books = job.books
        difference = books.accuracy - quiet.books.accuracy
        good &= job.completed and books.balanced and abs(difference) <= ALLOWED
        table.add_row(
            *(name, str(len(job.struck)), "completed" if job.completed else "failed"),
            *(str(books.rounds), str(books.updates), str(books.returned)),
            *(str(len(books.doubled)), str(len(books.vanished))),
            *(f"{books.left:.3f}", f"{books.accuracy:.4f}", f"{difference:+.4f}"),
        )
        for line in (*books.doubled, *books.vanished):
            console.print(f"job {name}: {line}", style="red")
        for missed in job.missed:
            console.print(f"job {name}: {missed}: there was nothing to strike")
    console.print(faults, table)
    struck_all = sum(len(job.struck) for job in jobs)
    console.print(f"{struck_all} faults, {'all is well' if good else 'NOT all is well'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
