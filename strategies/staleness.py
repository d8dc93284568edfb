"""How much an update counts that started from an older model.

Staleness is the number of steps that the server took between the model which a client started
from and the one to which its update is added: 0 for an update that missed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from fl_opt.codecs.grammar import build_named
from fl_opt.errors import ConfigError


class Staleness(Protocol):
    """Gives a weight to a staleness."""

    name: ClassVar[str]

    def weight(self, staleness: int) -> float:
        """Return a factor in (0, 1]; 1 for a staleness of 0."""


@dataclass(frozen=True)
class Constant:
    """Every update counts alike."""

    name: ClassVar[str] = "constant"

    def weight(self, _staleness: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Polynomial:
    """``(1 + staleness) ** -exponent``.

    FedBuff (Nguyen et al. 2022, arXiv 2106.06639) has it with 1/2; FedAsync (Xie et al. 2019,
    arXiv 1903.03934) as "poly".

    Parameters
    ----------
    exponent : float
        Above 0, below 100.
    """

    exponent: float = 0.5

    name: ClassVar[str] = "polynomial"

    def __post_init__(self) -> None:
        if not 0.0 < self.exponent < 100.0:
            raise ConfigError(f"exponent = {self.exponent} is not between 0 and 100")

    def weight(self, staleness: int) -> float:
        """Return the power."""
        return float((1.0 + max(staleness, 0)) ** -self.exponent)


@dataclass(frozen=True)
class Hinge:
    """1 up to a staleness of ``grace``, then ``1 / (slope (staleness - grace) + 1)``.

    FedAsync's "hinge", whose ``a`` and ``b`` are called slope and grace here.

    Parameters
    ----------
    slope : float
        Above 0, below 1e6.
    grace : int
        At least 0.
    """

    slope: float = 10.0
    grace: int = 4

    name: ClassVar[str] = "hinge"

    def __post_init__(self) -> None:
        if not 0.0 < self.slope < 1e6:
            raise ConfigError(f"slope = {self.slope} is not between 0 and 1e6")
        if self.grace < 0:
            raise ConfigError(f"grace = {self.grace} is negative")

    def weight(self, staleness: int) -> float:
        """Return 1, or the hinge's falling part."""
        return 1.0 / (self.slope * max(staleness - self.grace, 0) + 1.0)


STALENESS: Final[Mapping[str, type[Staleness]]] = {
    kind.name: kind for kind in (Constant, Polynomial, Hinge)
}


def build_staleness(spec: str) -> Staleness:
    """Build what a spec such as ``polynomial(0.5)`` names.

    Raises
    ------
    ConfigError
        Names the position in the spec and the alternatives.
    """
    return build_named(spec, "staleness", STALENESS)
