"""Which runs there are, stage by stage; later stages take what earlier ones found best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.time_to_accuracy import measure, methods
from benchmarks.time_to_accuracy.methods import BASELINE, Method
from benchmarks.time_to_accuracy.runs import Runs, Trace
from benchmarks.time_to_accuracy.tasks import FASHION, NOTHING, Config, Task, growth
from fl_opt.config import ConfigValue

TUNING_SEED = 1
QUICK_ROUNDS = 6
RATES = (1.0, 10.0, 100.0)
"""Megabits a second."""


@dataclass(frozen=True)
class Job:
    """A method on a task, with one choice of its grid, from one seed."""

    task: Task
    method: Method
    choice: str
    seed: int

    @property
    def tuned_to(self) -> str:
        """What of the choice is not fixed by the method: its first part, the rate."""
        return self.choice.partition(",")[0] if self.method.fixed else self.choice

    @property
    def config(self) -> dict[str, ConfigValue]:
        """All settings that differ from the project's."""
        return {
            **self.task.config,
            **self.method.config,
            **self.task.grid[self.choice],
            **self.method.fixed,
            **(self.task.ours if self.method in methods.OURS else NOTHING),
            "num-server-rounds": self.task.rounds,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Plan:
    """What to run: tasks and seeds, and where results are.

    Attributes
    ----------
    runs : Runs
    seeds : sequence of int
    quick : bool
        Six rounds of everything.
    """

    runs: Runs
    seeds: Sequence[int]
    quick: bool = False

    def sized(self, task: Task) -> Task:
        """Return the task with as many rounds as are asked for."""
        return replace(task, rounds=QUICK_ROUNDS) if self.quick else task

    def tuning(self, task: Task, tried: Iterable[Method]) -> list[Job]:
        """Return the runs of the grid."""
        sized = self.sized(task)
        return [
            Job(sized, method, choice, TUNING_SEED) for method in tried for choice in sized.grid
        ]

    def best(self, task: Task, method: Method) -> str:
        """Return the choice of the grid by which a method gets furthest.

        That is the one with the best smoothed accuracy on average over the last half of the
        rounds, which goes by speed and by the end; the first of the grid if nothing was run.
        """
        found = {
            job.choice: trace
            for job in self.tuning(task, [method.tuned_as or method])
            if (trace := self.runs.get(job.config)) is not None
        }
        if not found:
            return next(iter(task.grid))
        return max(found, key=lambda choice: _height(found[choice]))

    def seeded(self, task: Task, tried: Iterable[Method], seeds: Sequence[int]) -> list[Job]:
        """Return runs of methods as they were tuned."""
        sized = self.sized(task)
        return [
            Job(sized, method, self.best(task, method), seed)
            for seed in seeds
            for method in tried
        ]

    def ablation(self) -> list[Job]:
        """Return the runs of the balanced profile with a part off."""
        task = self.sized(FASHION)
        choice = self.best(FASHION, methods.BALANCED)
        tried = (methods.BALANCED, *methods.without(), *methods.CANDIDATES)
        return [Job(task, method, choice, TUNING_SEED) for method in tried]

    def growth(self) -> list[Job]:
        """Return the runs with other numbers of clients and sizes of the model."""
        tried = (BASELINE, methods.BALANCED, methods.CAREFUL)
        return [
            Job(self.sized(task), method, self.best(FASHION, method), TUNING_SEED)
            for task in growth()
            for method in tried
        ]

    def waiting(self) -> list[Job]:
        """Return runs that do not wait for the last, one for each rate of the links."""
        return [
            Job(
                replace(
                    self.sized(FASHION),
                    name=f"waiting-{rate:g}",
                    config={
                        **FASHION.config,
                        "simulation.uplink-mbps": rate,
                        "simulation.downlink-mbps": rate,
                    },
                ),
                method,
                self.best(FASHION, BASELINE),
                TUNING_SEED,
            )
            for rate in RATES
            for method in methods.WAITING
        ]

    def links(self) -> list[Job]:
        """Return runs on links that differ from client to client, and change."""
        spread: Config = {"simulation.spread": 1.0, "simulation.links": "lognormal(0.5, 10)"}
        task = replace(self.sized(FASHION), name="links", config={**FASHION.config, **spread})
        rates: Config = {"simulation.uplink-mbps": 0.1, "simulation.downlink-mbps": 0.1}
        slow = replace(task, config={**task.config, **rates})
        choice = self.best(FASHION, methods.BALANCED)
        jobs = [Job(slow, method, choice, TUNING_SEED) for method in methods.BY_BANDWIDTH]
        return [*jobs, Job(slow, BASELINE, self.best(FASHION, BASELINE), TUNING_SEED)]


def done(runs: Runs, jobs: Iterable[Job]) -> list[tuple[Job, Trace]]:
    """Return the jobs that were carried out, with what came of them."""
    found = ((job, runs.get(job.config)) for job in jobs)
    return [(job, trace) for job, trace in found if trace is not None]


def _height(trace: Trace) -> float:
    points = measure.curve(trace)
    return measure.mean([point.accuracy for point in points[len(points) // 2 :]])


def tuned_methods() -> tuple[Method, ...]:
    """Return the methods that have a tuning of their own."""
    tried = (BASELINE, *methods.OURS, *methods.PEERS)
    return tuple(method for method in tried if method.tuned_as is None)
