"""Clients with large updates, more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.selection.checks import check_between
from strategies.selection.draw import weighted_sample
from strategies.selection.history import HistorySelection, Known, filled


@dataclass(frozen=True)
class Importance:
    """Clients in proportion to the norm of their last update.

    The idea is that of Chen, Horváth and Richtárik 2020, "Optimal client sampling for federated
    learning", arXiv 2010.13723. They let all clients compute an update, choose by its norm, and
    divide it by the probability of its choice, so that the mean stays unbiased. Here it is the
    norm of an earlier update, no message is added and nothing is divided: the mean is biased
    towards clients with large updates.

    Parameters
    ----------
    floor : float
        In (0, 1]: every client counts as if its norm were at least this share of the mean one.
        A client whose norm is not known counts as an average one.
    """

    floor: float = 0.2

    name: ClassVar[str] = "importance"

    def __post_init__(self) -> None:
        check_between(0.001, 1.0, floor=self.floor)

    def build(self, seed: int) -> ImportanceSelection:
        """Return a selection that has seen nothing yet; ``seed`` is the run's."""
        return ImportanceSelection(self, seed)


class ImportanceSelection(HistorySelection):
    """See :class:`Importance`.

    Parameters
    ----------
    settings : Importance
    seed : int
        Of the run.
    """

    name: ClassVar[str] = Importance.name

    def __init__(self, settings: Importance, seed: int) -> None:
        super().__init__(seed)
        self._settings = settings

    def pick(
        self, known: Known, count: int, server_round: int, generator: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose ``count`` positions."""
        norms = filled(known.update_norm, 1.0)
        weights = np.maximum(norms, self._settings.floor * norms.mean())
        return weighted_sample(generator, weights, count)
