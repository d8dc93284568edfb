"""How many clients are asked, and when enough have answered for a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from fl_opt.errors import ConfigError


class Pace(Protocol):
    """Rules that a strategy's rounds follow."""

    @property
    def refills(self) -> bool:
        """Whether another client is asked for each that answers."""

    def to_ask(self, wanted: int, in_flight: int) -> int:
        """Return how many clients to ask at the beginning of a round.

        Parameters
        ----------
        wanted : int
            Updates wanted for a step, by the strategy's settings.
        in_flight : int
            Clients asked before that have not answered yet.
        """

    def enough(self, wanted: int, on_time: int, taken: int) -> bool:
        """Say whether a step is to be taken at once.

        Parameters
        ----------
        wanted : int
            As before.
        on_time : int
            Updates taken of clients that were asked in this round.
        taken : int
            All updates taken.
        """


@dataclass(frozen=True)
class Rounds:
    """Clients are asked together, and a step is taken when all of them have answered.

    With over-selection more are asked than are wanted, and the round is closed once those who
    were wanted have answered (Bonawitz et al. 2019, arXiv 1902.01046: the report goal).

    Parameters
    ----------
    over_selection : float
        Clients asked for each one wanted, at least 1; 1.3 in the paper.
    """

    over_selection: float = 1.0
    refills: bool = False

    def __post_init__(self) -> None:
        if not 1.0 <= self.over_selection <= 100.0:
            raise ConfigError(f"over_selection = {self.over_selection} is not from 1 to 100")

    def to_ask(self, wanted: int, in_flight: int) -> int:
        """Return how many are wanted, and some more; late ones count for nothing."""
        return math.ceil(round(wanted * self.over_selection, 6))

    def enough(self, wanted: int, on_time: int, taken: int) -> bool:
        """Say whether the goal is met; without over-selection all are waited for."""
        return self.over_selection > 1.0 and on_time >= wanted


@dataclass(frozen=True)
class Buffer:
    """A step for every so many updates, with always the same number of clients at work.

    Parameters
    ----------
    size : int
        Updates for a step, at least 1: K of FedBuff (Nguyen et al. 2022, arXiv 2106.06639).
    concurrency : int
        Clients at work at any time, at least 1; fewer where there are not so many.
    """

    size: int
    concurrency: int
    refills: bool = True

    def __post_init__(self) -> None:
        for name in ("size", "concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} is not at least 1")

    def to_ask(self, wanted: int, in_flight: int) -> int:
        """Return how many are missing."""
        return max(self.concurrency - in_flight, 0)

    def enough(self, wanted: int, on_time: int, taken: int) -> bool:
        """Say whether the buffer is full."""
        return taken >= self.size
