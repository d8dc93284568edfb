"""Clients that are equally fast, together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.selection.checks import check_between
from strategies.selection.history import Column, HistorySelection, Known


@dataclass(frozen=True)
class Tiers:
    """All clients of a round from one tier of speed, so that none waits for the others.

    TiFL (Chai et al. 2020, "TiFL: a tier-based federated learning system", arXiv 2001.09249).
    Clients are sorted by the seconds of their last request and cut into tiers of equal size; a
    client whose last request failed is slower than all others. Clients that were never asked
    come first, whatever the tier. A tier is drawn with a probability in proportion to its rank,
    1 for the lowest mean loss: TiFL ranks by accuracy on the tiers' test data, which the server
    is not told here. Within a tier all clients are equally likely. A tier with too few clients
    is filled up from the nearest ones.

    Credits keep all tiers in the game. Each has the same number of rounds; one that has used
    them up rests until all have, and all get new ones then. A tier's rounds are the requests to
    its clients divided by the number of clients of a round, so that they move with a client
    whose speed changes.

    Parameters
    ----------
    tiers : int
        From 1 to 100.
    credits : int
        Rounds of a tier, from 1 to 1,000,000.
    """

    tiers: int = 5
    credits: int = 10

    name: ClassVar[str] = "tiers"

    def __post_init__(self) -> None:
        check_between(1, 100, tiers=self.tiers)
        check_between(1, 1_000_000, credits=self.credits)

    def build(self, seed: int) -> TierSelection:
        """Return a selection that has seen nothing yet; ``seed`` is the run's."""
        return TierSelection(self, seed)


class TierSelection(HistorySelection):
    """See :class:`Tiers`.

    Parameters
    ----------
    settings : Tiers
    seed : int
        Of the run.
    """

    name: ClassVar[str] = Tiers.name

    def __init__(self, settings: Tiers, seed: int) -> None:
        super().__init__(seed)
        self._settings = settings

    def pick(
        self, known: Known, count: int, server_round: int, generator: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose ``count`` positions."""
        measured = np.flatnonzero(known.requests)
        distance = np.full(known.requests.size, -1)
        if measured.size:
            tier = tiers_of(known, measured, self._settings.tiers)
            shares = tier_shares(known, measured, tier, self._settings.credits * count)
            distance[measured] = np.abs(tier - generator.choice(shares.size, p=shares))
        chance = generator.random(distance.size)
        return np.lexsort((chance, distance))[:count]


def tiers_of(known: Known, measured: NDArray[np.intp], tiers: int) -> NDArray[np.intp]:
    """Return the tier of each of the measured clients, 0 the fastest."""
    number = measured.size
    order = np.lexsort((known.seconds[measured], known.failures[measured] > 0))
    tier = np.empty(number, np.intp)
    tier[order] = np.arange(number) * min(tiers, number) // number
    return tier


def tier_shares(
    known: Known, measured: NDArray[np.intp], tier: NDArray[np.intp], credit: int
) -> Column:
    """Return the probability of each tier.

    Parameters
    ----------
    known : Known
    measured : ndarray of intp, shape (n,)
        Positions of clients.
    tier : ndarray of intp, shape (n,)
        Theirs; none is empty.
    credit : int
        The requests that a tier's credits stand for.

    Returns
    -------
    ndarray of float64, shape (tiers,)
    """
    spent = np.bincount(tier, weights=known.requests[measured])
    has_credit = spent < credit * (spent.min() // credit + 1)
    loss = _mean_losses(known.loss[measured], tier)
    # Its rank: how many of the tiers it competes with have no higher loss.
    rank = (loss[has_credit] <= loss[:, np.newaxis]).sum(axis=1) * has_credit
    shares: Column = rank / rank.sum()
    return shares


def _mean_losses(loss: Column, tier: NDArray[np.intp]) -> Column:
    """Return the mean loss of each tier; one of which none is known has the highest."""
    told = ~np.isnan(loss)
    number = np.bincount(tier, weights=told)
    total = np.bincount(tier, weights=np.where(told, loss, 0.0))
    mean = np.full(number.size, np.inf)
    np.divide(total, number, out=mean, where=number > 0)
    return mean
