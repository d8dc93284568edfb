"""How the server's learning rate changes over a run: a factor of ``eta`` for each round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from fl_opt.codecs.grammar import build_named
from fl_opt.errors import ConfigError

_LEAST: Final = 1e-30
"""A factor that falls for ever stops here: at 0 there would be no ``eta`` left."""


class Schedule(Protocol):
    """Gives a factor to a round."""

    name: ClassVar[str]

    def factor(self, server_round: int) -> float:
        """Return what ``eta`` is multiplied by; rounds count from 1."""


@dataclass(frozen=True)
class Constant:
    """No change."""

    name: ClassVar[str] = "constant"

    def factor(self, _server_round: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Warmup:
    """Rises in equal steps to 1, which it reaches in round ``rounds``.

    Parameters
    ----------
    rounds : int
        At least 1.
    """

    rounds: int = 5

    name: ClassVar[str] = "warmup"

    def __post_init__(self) -> None:
        _check_count("rounds", self.rounds)

    def factor(self, server_round: int) -> float:
        """Return the share of the warm-up that is over."""
        return min(server_round / self.rounds, 1.0)


@dataclass(frozen=True)
class Step:
    """Multiplied by ``gamma`` after every ``rounds`` rounds.

    Parameters
    ----------
    rounds : int
        At least 1.
    gamma : float
        Above 0, at most 1.
    """

    rounds: int
    gamma: float = 0.5

    name: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        _check_count("rounds", self.rounds)
        _check_share("gamma", self.gamma)

    def factor(self, server_round: int) -> float:
        """Return the power of ``gamma``."""
        return max(float(self.gamma ** ((server_round - 1) // self.rounds)), _LEAST)


@dataclass(frozen=True)
class Cosine:
    """Falls from 1 to ``final`` along half a cosine over ``rounds`` rounds, and stays there.

    Loshchilov and Hutter 2017 (arXiv 1608.03983), without restarts.

    Parameters
    ----------
    rounds : int
        At least 1.
    final : float
        Above 0, at most 1.
    """

    rounds: int
    final: float = 0.1

    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        _check_count("rounds", self.rounds)
        _check_share("final", self.final)

    def factor(self, server_round: int) -> float:
        """Return the cosine's value."""
        progress = min((server_round - 1) / self.rounds, 1.0)
        return self.final + (1.0 - self.final) * (1.0 + math.cos(math.pi * progress)) / 2.0


SCHEDULES: Final[Mapping[str, type[Schedule]]] = {
    kind.name: kind for kind in (Constant, Warmup, Step, Cosine)
}


def build_schedule(spec: str) -> Schedule:
    """Build what a spec such as ``cosine(60)`` names.

    Raises
    ------
    ConfigError
        Names the position in the spec and the alternatives.
    """
    return build_named(spec, "schedule", SCHEDULES)


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} = {value} is not at least 1")


def _check_share(name: str, value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise ConfigError(f"{name} = {value} is not in (0, 1]")
