"""A job on a deployment, from its start through all faults to its end."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.audit import Books, audit
from benchmarks.chaos.faults import FAULTS, MissedError, Stage
from benchmarks.chaos.proxy import Proxy
from fl_opt.config import ConfigValue
from fl_opt.deployment import DeploymentError, LocalDeployment
from fl_opt.deployment.home import SERVERAPP
from fl_opt.deployment.local import SUPERLINK
from fl_opt.deployment.runs import StartedRun

APP = Path(__file__).parent / "app"
CLIENTS = 3
ROUND_TIMEOUT = 20.0
PATIENCE = 180.0  # seconds without another round, after which a job is stuck
_QUIET = 5.0  # seconds without a ServerApp, after which the run is taken for dead
_SPREAD = 4.0  # seconds: a fault strikes at a random moment of about a round


@dataclass
class Struck:
    """A fault, and what came of it.

    ``recovery`` is the time from its end to that of the second round after it, in seconds;
    ``resumed`` says whether the run had to be started again.
    """

    name: str
    what: str
    server_round: int
    recovery: float
    resumed: bool


@dataclass
class Outcome:
    """A job that has ended."""

    struck: list[Struck]
    seconds: float
    completed: bool
    books: Books
    missed: list[str] = field(default_factory=list)


class StuckError(Exception):
    """A job did not go on after a fault."""


def run_job(
    folder: Path,
    rounds: int,
    faults: Sequence[str] = (),
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run a job to its end, with faults of these names on the way.

    Parameters
    ----------
    folder : Path
        Empty; gets what clients and server write down.
    rounds : int
        Of the job; as many as the faults need at least.
    faults : sequence of str
        Names in :data:`~benchmarks.chaos.faults.FAULTS`.
    seed : int
        Of the moments, victims and durations.
    tell : callable, optional
        Told a line about each fault.

    Raises
    ------
    StuckError
        If it does not go on, or does not end.
    """
    began = time.monotonic()
    draw = random.Random(seed)  # noqa: S311 - faults, not secrets
    flower = LocalDeployment(CLIENTS, persistent=True, poll_seconds=0.2)
    with Proxy(flower.port, seed) as proxy:
        flower.gateway = proxy.address
        with flower:
            job = _Job(flower, folder, rounds)
            job.start()
            stage = Stage(flower, proxy, folder, draw)
            outcome = Outcome([], 0.0, False, Books())
            for name in faults:
                at = job.wait_for_a_round()
                time.sleep(draw.uniform(0.0, _SPREAD))
                try:
                    what = FAULTS[name](stage)
                except MissedError:
                    outcome.missed.append(name)
                    continue
                struck = job.recover(name, what, at)
                outcome.struck.append(struck)
                tell(f"{name} ({struck.what}) in round {at}: {_how(struck)}")
            outcome.completed = job.finish()
    outcome.seconds = time.monotonic() - began
    outcome.books = audit(folder)
    return outcome


class _Job:
    """A run, and the one that goes on where it was killed."""

    def __init__(self, flower: LocalDeployment, folder: Path, rounds: int) -> None:
        self._flower, self._folder, self._rounds = flower, folder, rounds
        self._run: StartedRun | None = None

    def start(self, *, resume: bool = False) -> None:
        config: dict[str, ConfigValue] = {
            "folder": str(self._folder),
            "num-server-rounds": self._rounds,
            "num-clients": CLIENTS,
            "timeout": ROUND_TIMEOUT,
            "resume": resume,
        }
        self._run = self._flower.start_run(APP, config, timeout=PATIENCE)

    def records(self) -> int:
        """Return how many rounds have been written down, those done again counted twice."""
        return len(list((self._folder / "server").glob("*.npz")))

    def wait_for_a_round(self) -> int:
        """Wait until one more round is complete; return how many are."""
        before = self.records()
        self._until(lambda: self.records() > before)
        return max(
            (int(path.stem[:4]) for path in (self._folder / "server").glob("*.npz")), default=0
        )

    def recover(self, name: str, what: str, at: int) -> Struck:
        """Wait until a round that began after the fault is complete."""
        began, before = time.monotonic(), self.records()
        resumed = self._until(lambda: self.records() > before + 1)
        return Struck(name, what, at, time.monotonic() - began, resumed)

    def finish(self) -> bool:
        """Wait for the end; return whether the run ended by itself, without an error."""
        done = f"{self._rounds:04d}-*.npz"
        self._until(lambda: any((self._folder / "server").glob(done)))
        assert self._run is not None
        so_far = time.monotonic() - self._run.began
        return self._flower.wait(self._run, timeout=so_far + PATIENCE).completed

    def _until(self, condition: Callable[[], bool]) -> bool:
        """Wait, start the run again where it has died, and return whether that was so."""
        resumed, quiet_since = False, math.inf
        moved, progress = time.monotonic(), self.records()
        while not condition():
            if (now := self.records()) > progress:
                moved, progress = time.monotonic(), now
            if time.monotonic() > moved + PATIENCE:
                raise StuckError(self._flower.last_line(SUPERLINK))
            if any(self._flower.apps(SERVERAPP)):
                quiet_since = math.inf
            elif time.monotonic() > quiet_since + _QUIET and self._is_over():
                self.start(resume=True)
                resumed, quiet_since = True, math.inf
            else:
                quiet_since = min(quiet_since, time.monotonic())
            time.sleep(0.1)
        return resumed

    def _is_over(self) -> bool:
        """Whether nothing is going to run the ServerApp any more."""
        if self._run is None:
            return False
        try:
            status = self._flower.status(self._run)
        except DeploymentError:
            return False
        return status.startswith("finished") or status == "running"


def _how(struck: Struck) -> str:
    way = "resumed" if struck.resumed else "went on"
    return f"{way}, two rounds later after {struck.recovery:.1f} s"
