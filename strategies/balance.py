"""Local work sized per client, so that a cohort ends together.

Nothing is known of devices beforehand: the time until a client's first reply was there, network
included, tells how much it is to do from then on. Who comes first does its ordinary work; later
newcomers a part of it, so that a slow one does not hold up a cohort that is known by then.
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
    """A client's ordinary number of steps, its seconds per step, and its examples."""

    steps: int
    seconds: float
    examples: int


class Rule(Protocol):
    """How much work clients get."""

    name: ClassVar[str]

    @property
    def newcomer(self) -> float:
        """Share of their ordinary work that newcomers do once others are known."""

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
    newcomer: ClassVar[float] = 1.0

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
    newcomer : float
        Share of its ordinary work that a client does when it first comes and others are known.
    """

    least: float = 0.1
    most: float = 2.0
    newcomer: float = 0.25

    name: ClassVar[str] = "equal-time"

    def __post_init__(self) -> None:
        if not 0.0 < self.least <= 1.0:
            raise ConfigError(f"least = {self.least} is not in (0, 1]")
        if not 1.0 <= self.most <= 1000.0:
            raise ConfigError(f"most = {self.most} is not from 1 to 1000")
        if not 0.0 < self.newcomer <= 1.0:
            raise ConfigError(f"newcomer = {self.newcomer} is not in (0, 1]")

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
        self._trials: set[int] = set()  # newcomers that were asked for a part
        self._typical: float | None = None  # computed when it is asked for, once for all

    def steps(self, node_id: int) -> int | None:
        """Return the number of steps for a client; None: its ordinary ones."""
        speed = self._speeds.get(node_id)
        if speed is None:
            return self._trial(node_id)
        if self._typical is None:
            ordinary = (one.steps * one.seconds for one in self._speeds.values())
            self._typical = statistics.median(ordinary)
        factor = self._rule.factor(speed.steps * speed.seconds, self._typical)
        return None if factor is None else max(round(factor * speed.steps), 1)

    def _trial(self, node_id: int) -> int | None:
        """Return the number of steps for a client of which nothing is known yet."""
        if self._rule.newcomer == 1.0 or not self._speeds:
            return None
        self._trials.add(node_id)
        typical = statistics.median(one.steps for one in self._speeds.values())
        return max(round(self._rule.newcomer * typical), 1)

    def observe(
        self, node_id: int, seconds: float, steps: float | None, num_examples: int = 0
    ) -> None:
        """Learn from a reply.

        Parameters
        ----------
        node_id : int
        seconds : float
            From the message to its reply; what is no positive number is left out.
        steps : float or None
            That the client says it has done; what is not from 1 to 1e9 is left out.
        num_examples : int
            That it has, by which the ordinary work of one that has done a part is estimated.
        """
        if isinstance(self._rule, NoBalance) or not steps or not 0.0 < seconds < math.inf:
            return
        if not 1.0 <= steps <= _MOST_STEPS:
            return
        self._typical = None
        known = self._speeds.get(node_id)
        if known is None:
            ordinary = self._estimate(num_examples) if node_id in self._trials else int(steps)
            self._trials.discard(node_id)
            self._speeds[node_id] = _Speed(ordinary, seconds / steps, num_examples)
        else:
            known.seconds += _SMOOTHING * (seconds / steps - known.seconds)

    def _estimate(self, num_examples: int) -> int:
        """Return the ordinary steps of a client with so many examples, going by the others."""
        known = self._speeds.values()
        rates = [one.steps / one.examples for one in known if one.examples > 0]
        if not rates or num_examples <= 0:
            return round(statistics.median(one.steps for one in known))
        return max(round(statistics.median(rates) * num_examples), 1)

    def state(self) -> dict[str, Any]:
        """Return what has been learned, as plain values."""
        speeds = {
            str(node): [one.steps, one.seconds, one.examples]
            for node, one in self._speeds.items()
        }
        trials = sorted(self._trials)
        return {"speeds": speeds, "trials": trials} if speeds or trials else {}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned.

        Raises
        ------
        CheckpointError
            If it is something else.
        """
        self._typical = None
        if values == {}:
            self._speeds, self._trials = {}, set()
            return
        try:
            self._speeds = {
                int(node): _Speed(int(steps), float(seconds), int(examples))
                for node, (steps, seconds, examples) in values["speeds"].items()
            }
            self._trials = {int(node) for node in values["trials"]}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"state of the balance is damaged: {error!r}") from None
