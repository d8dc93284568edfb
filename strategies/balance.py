"""Local work sized per client, so that a cohort ends together.

Nothing is known of devices beforehand: a client first does its ordinary work, and the time
until its reply was there, network included, tells how much it is to do from then on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from fl_opt.codecs.grammar import build_named
from fl_opt.errors import CheckpointError, ConfigError

_SMOOTHING: Final = 0.5
"""Weight of the newest measurement of a client's time per step."""
_MOST_STEPS: Final = 1e9
"""Nobody does more in a round; who says so is not believed."""


@dataclass
class _Speed:
    """A client's ordinary number of steps, and its seconds per step."""

    steps: int
    seconds: float


class Rule(Protocol):
    """How much work clients get."""

    name: ClassVar[str]

    def factor(self, seconds: float, typical: float) -> float | None:
        """Return the share of its ordinary work that a client is to do; None: leave it alone.

        Parameters
        ----------
        seconds : float
            That its ordinary work takes.
        typical : float
            That the ordinary work of the median client takes.
        """


@dataclass(frozen=True)
class NoBalance:
    """Everybody does their ordinary work."""

    name: ClassVar[str] = "none"

    def factor(self, seconds: float, typical: float) -> None:
        """Leave clients alone."""


@dataclass(frozen=True)
class EqualTime:
    """Everybody works as long as the median client takes for its ordinary work.

    The steps are ``T / t`` within bounds, with T that time and t a client's seconds per step,
    as in FedCompass (Li et al. 2024, arXiv 2309.14675).

    Parameters
    ----------
    least, most : float
        Bounds of a client's work, as shares of its ordinary work.
    """

    least: float = 0.1
    most: float = 2.0

    name: ClassVar[str] = "equal-time"

    def __post_init__(self) -> None:
        if not 0.0 < self.least <= 1.0:
            raise ConfigError(f"least = {self.least} is not in (0, 1]")
        if not 1.0 <= self.most <= 1000.0:
            raise ConfigError(f"most = {self.most} is not from 1 to 1000")

    def factor(self, seconds: float, typical: float) -> float:
        """Return typical over own time, within the bounds."""
        return min(max(typical / seconds, self.least), self.most)


BALANCES: Final[Mapping[str, type[Rule]]] = {kind.name: kind for kind in (NoBalance, EqualTime)}


class Balance:
    """Learns how fast clients are, and says how many steps each is to do.

    Parameters
    ----------
    spec : str
        A name of :data:`BALANCES`, such as ``equal-time(least=0.1, most=2.0)``.

    Raises
    ------
    ConfigError
        If the spec is wrong.
    """

    def __init__(self, spec: str) -> None:
        self._rule = build_named(spec, "balance", BALANCES)
        self._speeds: dict[int, _Speed] = {}
        self._typical: float | None = None  # computed when it is asked for, once for all

    def steps(self, node_id: int) -> int | None:
        """Return the number of steps for a client; None: its ordinary ones."""
        speed = self._speeds.get(node_id)
        if speed is None:
            return None
        if self._typical is None:
            ordinary = (one.steps * one.seconds for one in self._speeds.values())
            self._typical = statistics.median(ordinary)
        factor = self._rule.factor(speed.steps * speed.seconds, self._typical)
        return None if factor is None else max(round(factor * speed.steps), 1)

    def observe(self, node_id: int, seconds: float, steps: float | None) -> None:
        """Learn from a reply.

        Parameters
        ----------
        node_id : int
        seconds : float
            From the message to its reply; what is no positive number is left out.
        steps : float or None
            That the client says it has done; what is not from 1 to 1e9 is left out.
        """
        if isinstance(self._rule, NoBalance) or not steps or not 0.0 < seconds < math.inf:
            return
        if not 1.0 <= steps <= _MOST_STEPS:
            return
        self._typical = None
        known = self._speeds.get(node_id)
        if known is None:
            self._speeds[node_id] = _Speed(int(steps), seconds / steps)
        else:
            known.seconds += _SMOOTHING * (seconds / steps - known.seconds)

    def state(self) -> dict[str, Any]:
        """Return what has been learned, as plain values."""
        return {str(node): [one.steps, one.seconds] for node, one in self._speeds.items()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned.

        Raises
        ------
        CheckpointError
            If it is something else.
        """
        try:
            self._speeds = {
                int(node): _Speed(int(steps), float(seconds))
                for node, (steps, seconds) in values.items()
            }
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"state of the balance is damaged: {error!r}") from None
        self._typical = None
