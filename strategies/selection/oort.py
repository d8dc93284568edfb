"""Clients whose data is worth the time they take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.selection.base import Report
from strategies.selection.checks import check_at_least, check_between
from strategies.selection.draw import weighted_sample
from strategies.selection.history import Column, HistorySelection, Known, filled
from strategies.selection.pacer import Pacer


@dataclass(frozen=True)
class Oort:
    """Exploit the clients of the highest utility, and explore the others.

    Lai et al. 2021, "Oort: efficient federated learning via guided participant selection",
    arXiv 2010.06081. With R the round, the utility of client i is::

        (U_i + sqrt(0.1 ln R / L_i)) (T / t_i) ** (alpha if t_i > T else 0)

    where L_i is the round in which it was last asked, t_i its last duration, T the preferred
    duration (see :class:`~strategies.selection.pacer.Pacer`), and U_i is ``|B| sqrt(mean
    loss^2)`` over its |B| examples. Clients report their mean loss alone, so that U_i is ``|B|
    |mean loss|``, a lower bound. It is clipped at a percentile of all clients' and, as in the
    authors' program, divided by that, so that the other term is on a scale with it. A client
    that was asked and told no loss has an average U_i.

    Of ``count`` clients, a share that shrinks from round to round is drawn from those never
    asked. (The paper prefers the fast ones, by their hardware; the server is not told that
    here.) The rest are drawn in proportion to their utility from all those that have at least
    ``cutoff`` times the utility of the least one that would be among the best.

    Parameters
    ----------
    alpha : float
        Penalty on slow clients; 0: none.
    exploration, exploration_decay, exploration_floor : float
        The share of exploration in round R is ``exploration * exploration_decay ** (R - 1)``,
        but not below the floor; all in [0, 1]. With a floor of 0 some clients may never be
        asked.
    cutoff : float
        In [0, 1].
    clip : float
        The percentile at which U_i is clipped, in [1, 100].
    pace : float
        T at first, as a percentile of the clients' durations, in [0, 100].
    pace_step : float
        By how much the pacer raises it.
    pace_window : int
        Rounds between two looks of the pacer.
    max_updates : int
        A client is not asked again after so many usable updates, unless there are too few
        others; 0: no limit.
    """

    alpha: float = 2.0
    exploration: float = 0.9
    exploration_decay: float = 0.95
    exploration_floor: float = 0.2
    cutoff: float = 0.95
    clip: float = 98.0
    pace: float = 50.0
    pace_step: float = 10.0
    pace_window: int = 20
    max_updates: int = 0

    name: ClassVar[str] = "oort"

    def __post_init__(self) -> None:
        check_between(0, 100, alpha=self.alpha, pace=self.pace, pace_step=self.pace_step)
        check_between(
            0,
            1,
            exploration=self.exploration,
            exploration_decay=self.exploration_decay,
            exploration_floor=self.exploration_floor,
            cutoff=self.cutoff,
        )
        check_between(1, 100, clip=self.clip)
        check_at_least(1, pace_window=self.pace_window)
        check_at_least(0, max_updates=self.max_updates)

    def build(self, seed: int) -> OortSelection:
        """Return a selection that has seen nothing yet; ``seed`` is the run's."""
        return OortSelection(self, seed)

    def exploring_share(self, server_round: int) -> float:
        """Return the share of a round that explores."""
        share = self.exploration * self.exploration_decay ** (server_round - 1)
        return max(share, self.exploration_floor)


class OortSelection(HistorySelection):
    """See :class:`Oort`.

    Parameters
    ----------
    settings : Oort
    seed : int
        Of the run.
    """

    name: ClassVar[str] = Oort.name

    def __init__(self, settings: Oort, seed: int) -> None:
        super().__init__(seed)
        self._settings = settings
        self._pacer = Pacer(settings.pace, settings.pace_step, settings.pace_window)

    def pick(
        self, known: Known, count: int, server_round: int, generator: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose ``count`` positions."""
        settings = self._settings
        limit = settings.max_updates or math.inf
        tired = known.updates >= limit
        unexplored = generator.permutation(np.flatnonzero(known.requests == 0))
        explored = np.flatnonzero((known.requests > 0) & ~tired)
        # Rounded up or down by chance, so that the share is right in small rounds too.
        explore = int(settings.exploring_share(server_round) * count + generator.random())
        explore = min(explore, unexplored.size)
        exploit = min(count - explore, explored.size)
        utility = utilities(known, server_round, settings, self._pacer.percentile)[explored]
        best = explored[sample_best(generator, utility, exploit, settings.cutoff)]
        # Where there are not enough to exploit, explore more; then take those that are tired.
        others = generator.permutation(np.flatnonzero(tired))
        return np.concatenate([best, unexplored, others])[:count]

    def observe(self, report: Report) -> None:
        """Learn from what became of a request."""
        super().observe(report)
        if report.used:
            value = statistical_utility(self._history.of([report.node_id]))
            self._pacer.add(report.server_round, float(value[0]))

    def state(self) -> dict[str, Any]:
        """Return what was learned, for a checkpoint."""
        return {**super().state(), "pacer": self._pacer.state()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        super().restore(values)
        self._pacer.restore(values.get("pacer", {}))


def statistical_utility(known: Known) -> Column:
    """Return ``|B| |mean loss|``; the mean of the others where there is no loss."""
    return filled(filled(known.num_examples, 1.0) * np.abs(known.loss), 0.0)


def utilities(known: Known, server_round: int, settings: Oort, pace: float) -> Column:
    """Return the utility of clients, of which those never asked have none that makes sense.

    Parameters
    ----------
    known : Known
    server_round : int
    settings : Oort
    pace : float
        The preferred duration, as a percentile of those of clients that answered last time.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    value = statistical_utility(known)
    asked = known.requests > 0
    ceiling = np.percentile(value[asked], settings.clip) if asked.any() else 0.0
    if ceiling > 0.0:
        value = np.minimum(value, ceiling) / ceiling
    value += np.sqrt(0.1 * math.log(max(server_round, 1)) / np.maximum(known.last_round, 1.0))
    # Those that do not answer are no reason to wait for.
    seconds = known.seconds[(known.failures == 0) & ~np.isnan(known.seconds)]
    preferred = np.percentile(seconds, pace) if seconds.size else math.inf
    slow = known.seconds > preferred
    value[slow] *= (preferred / known.seconds[slow]) ** settings.alpha
    return value


def sample_best(
    generator: np.random.Generator, utility: Column, count: int, cutoff: float
) -> NDArray[np.intp]:
    """Draw from the best ``count``, and all that come close to the least of them."""
    if not count:
        return np.empty(0, np.intp)
    least = np.partition(utility, -count)[-count]
    close = np.flatnonzero(utility >= cutoff * least)
    return close[weighted_sample(generator, utility[close], count)]
