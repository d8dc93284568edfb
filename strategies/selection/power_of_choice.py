"""The highest losses among a few candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.selection.checks import check_at_least
from strategies.selection.draw import weighted_sample
from strategies.selection.history import HistorySelection, Known, filled


@dataclass(frozen=True)
class PowerOfChoice:
    """Draw candidates, keep those with the highest loss.

    Cho, Wang and Joshi 2020, "Client selection in federated learning: convergence analysis and
    power-of-choice selection strategies", arXiv 2010.01243, in the variant rpow-d that costs no
    message: the loss is what the client told when it last trained. Candidates are drawn without
    replacement, in proportion to their numbers of examples; whose number is not known counts
    as an average client. A client that was never asked comes before all others. One that was
    asked and told no loss, because it failed or reports none, has an average one, so that it
    neither blocks a place for ever nor is shut out.

    Parameters
    ----------
    candidates : int
        How many are drawn, the paper's d; if fewer clients are drawn than wanted, as many as
        wanted. 0: twice as many.
    """

    candidates: int = 0

    name: ClassVar[str] = "power-of-choice"

    def __post_init__(self) -> None:
        check_at_least(0, candidates=self.candidates)

    def build(self, seed: int) -> PowerOfChoiceSelection:
        """Return a selection that has seen nothing yet; ``seed`` is the run's."""
        return PowerOfChoiceSelection(self, seed)


class PowerOfChoiceSelection(HistorySelection):
    """See :class:`PowerOfChoice`.

    Parameters
    ----------
    settings : PowerOfChoice
    seed : int
        Of the run.
    """

    name: ClassVar[str] = PowerOfChoice.name

    def __init__(self, settings: PowerOfChoice, seed: int) -> None:
        super().__init__(seed)
        self._settings = settings

    def pick(
        self, known: Known, count: int, server_round: int, generator: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose ``count`` positions."""
        wanted = max(self._settings.candidates or 2 * count, count)
        candidates = weighted_sample(generator, filled(known.num_examples, 1.0), wanted)
        loss = np.where(known.requests == 0, np.inf, filled(known.loss, 0.0))
        # Ties stay in the order of the draw, which is random.
        return candidates[np.argsort(-loss[candidates], kind="stable")[:count]]
