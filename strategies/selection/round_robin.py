"""Everybody in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.selection.history import HistorySelection, Known


@dataclass(frozen=True)
class RoundRobin:
    """The clients with the fewest requests, used or not; ties are settled by chance.

    A client that joins late is chosen until it has caught up with the others.
    """

    name: ClassVar[str] = "round-robin"

    def build(self, seed: int) -> RoundRobinSelection:
        """Return a selection that has seen nothing yet; ``seed`` is the run's."""
        return RoundRobinSelection(seed)


class RoundRobinSelection(HistorySelection):
    """See :class:`RoundRobin`."""

    name: ClassVar[str] = RoundRobin.name

    def pick(
        self, known: Known, count: int, server_round: int, generator: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose ``count`` positions."""
        chance = generator.random(known.requests.size)
        return np.lexsort((chance, known.requests))[:count]
