"""Who takes part in a round."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from fl_opt.seeds import derive_seed


class Selection(Protocol):
    """Chooses the clients of a round."""

    def select(self, node_ids: Sequence[int], count: int, server_round: int) -> list[int]:
        """Return ``count`` of the connected nodes."""


class UniformSelection:
    """Every client with the same probability, without replacement.

    The choice depends on nothing but the seed, the round and the connected nodes, in whatever
    order they are listed.

    Parameters
    ----------
    seed : int
        Of the run.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def select(self, node_ids: Sequence[int], count: int, server_round: int) -> list[int]:
        """Return ``count`` of the connected nodes, in ascending order."""
        generator = random.Random(derive_seed(self._seed, "selection", server_round))  # noqa: S311
        return sorted(generator.sample(sorted(node_ids), count))
