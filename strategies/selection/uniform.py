"""Every client with the same probability."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fl_opt.seeds import derive_seed
from strategies.selection.base import Selection


@dataclass(frozen=True)
class Uniform:
    """Every client with the same probability, without replacement."""

    name: ClassVar[str] = "uniform"

    def build(self, seed: int) -> UniformSelection:
        """Return a selection; ``seed`` is the run's."""
        return UniformSelection(seed)


class UniformSelection(Selection):
    """See :class:`Uniform`; it learns nothing.

    Parameters
    ----------
    seed : int
        Of the run.
    """

    name: ClassVar[str] = Uniform.name

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def select(self, node_ids: Sequence[int], count: int, server_round: int) -> list[int]:
        """Return distinct nodes in ascending order."""
        generator = random.Random(derive_seed(self._seed, "selection", server_round))  # noqa: S311
        nodes = sorted(set(node_ids))
        return sorted(generator.sample(nodes, min(count, len(nodes))))
