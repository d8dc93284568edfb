"""What is pruned, and when: rules that the setting ``pruning`` names.

What is prunable are arrays of two and more dimensions: not biases, nor the scales of
normalisation. Pruned entries are exactly zero from then on, in the global model and in every
reference, and no message carries them again, up or down. The share that is pruned follows the
schedule of Zhu and Gupta 2017 ("To prune, or not to prune", arXiv 1710.01878)::

    s_t = s (1 - (1 - (t - begin) / (end - begin))^3)      t = begin, begin + every, ..., end

so that most goes early, while there is time to make up for it; with ``begin = end`` all of it
goes at once.

==============  ===================================================================
``none``        nothing
``magnitude``   the entries of smallest magnitude, of all arrays together
``structured``  of each array but the last the rows (outputs of a layer, filters of a
                convolution) of smallest norm
==============  ===================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.grammar import build_named
from fl_opt.errors import ConfigError
from fl_opt.exchange.coverage import Mask
from fl_opt.params import ParamSpec

Vector = NDArray[np.float32]

NO_PRUNING: Final = "none"


class Rule(Protocol):
    """When how much is pruned, and what."""

    name: ClassVar[str]

    @property
    def last_round(self) -> int:
        """The round after which nothing more is pruned; 0 if nothing ever is."""

    def sparsity(self, server_round: int) -> float:
        """Return the share that is to be pruned after a round, from 1."""

    def stays(self, spec: ParamSpec, vector: Vector, alive: Mask, sparsity: float) -> Mask:
        """Return what is not pruned, at a sparsity; what was pruned before stays pruned.

        Parameters
        ----------
        spec : ParamSpec
        vector : ndarray of float32, shape (size,)
        alive : ndarray of bool, shape (size,)
            What was not pruned before.
        sparsity : float
            In (0, 1).
        """


@dataclass(frozen=True)
class NoPruning:
    """Nothing is pruned."""

    name: ClassVar[str] = NO_PRUNING
    last_round: ClassVar[int] = 0

    def sparsity(self, server_round: int) -> float:
        """Return 0."""
        return 0.0

    def stays(self, spec: ParamSpec, vector: Vector, alive: Mask, sparsity: float) -> Mask:
        """Return what there was."""
        return alive


@dataclass(frozen=True)
class Magnitude:
    """The weights of smallest magnitude are pruned, of all arrays together.

    Parameters
    ----------
    final : float
        Share of the prunable weights that is pruned in the end, in (0, 1).
    begin, end : int
        Rounds in which the schedule begins and ends, at least 1.
    every : int
        Rounds from one step of it to the next.
    """

    final: float = 0.8
    begin: int = 5
    end: int = 20
    every: int = 5

    name: ClassVar[str] = "magnitude"

    def __post_init__(self) -> None:
        _check(self.final, self.begin, self.end, self.every)

    @property
    def last_round(self) -> int:
        """The end of the schedule."""
        return self.end

    def sparsity(self, server_round: int) -> float:
        """Return the share by the schedule."""
        return _cubic(self.final, self.begin, self.end, self.every, server_round)

    def stays(self, spec: ParamSpec, vector: Vector, alive: Mask, sparsity: float) -> Mask:
        """Return all but the smallest entries; of equal ones the first go first."""
        listed = np.zeros(spec.size, np.bool_)
        for part, _ in prunable(spec):
            listed[part] = True
        places = np.flatnonzero(listed)
        size = np.abs(vector[places])
        size[~alive[places]] = -1.0
        count = min(round(sparsity * places.size), places.size - 1)
        kept = np.ones(spec.size, np.bool_)
        kept[places[_smallest(size, count)]] = False
        return kept


@dataclass(frozen=True)
class Structured:
    """Whole rows are pruned: outputs of a layer, filters; not those of the last array.

    Parameters
    ----------
    final : float
        Share of the rows of each array that is pruned in the end, in (0, 1); one row stays
        in any case.
    begin, end : int
        Rounds in which the schedule begins and ends, at least 1.
    every : int
        Rounds from one step of it to the next.
    """

    final: float = 0.5
    begin: int = 5
    end: int = 20
    every: int = 5

    name: ClassVar[str] = "structured"

    def __post_init__(self) -> None:
        _check(self.final, self.begin, self.end, self.every)

    @property
    def last_round(self) -> int:
        """The end of the schedule."""
        return self.end

    def sparsity(self, server_round: int) -> float:
        """Return the share by the schedule."""
        return _cubic(self.final, self.begin, self.end, self.every, server_round)

    def stays(self, spec: ParamSpec, vector: Vector, alive: Mask, sparsity: float) -> Mask:
        """Return all but the rows of smallest L2 norm; of equal ones the first go first."""
        kept = np.ones(spec.size, np.bool_)
        for part, rows in list(prunable(spec))[:-1]:
            values = vector[part].reshape(rows, -1).astype(np.float64)
            norms = np.sqrt(np.square(values).sum(axis=1))
            norms[~alive[part].reshape(rows, -1).any(axis=1)] = -1.0
            gone = _smallest(norms, min(round(sparsity * rows), rows - 1))
            kept[part].reshape(rows, -1)[gone] = False
        return kept


PRUNINGS: Final[Mapping[str, type[Rule]]] = {
    kind.name: kind for kind in (NoPruning, Magnitude, Structured)
}


def build_pruning(spec: str) -> Rule:
    """Build what a spec such as ``magnitude(0.8, begin=5, end=20, every=5)`` names.

    Raises
    ------
    ConfigError
        Names the position in the spec and the alternatives.
    """
    return build_named(spec, "pruning", PRUNINGS)


def prunable(spec: ParamSpec) -> Iterator[tuple[slice, int]]:
    """Yield where each prunable array stands in the vector, and the number of its rows."""
    start = 0
    for array in spec.vector_arrays:
        if len(array.shape) > 1 and array.size:
            yield slice(start, start + array.size), array.shape[0]
        start += array.size


def _smallest(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return the places of the ``count`` smallest values; of equal ones the first."""
    return np.argsort(values, kind="stable")[:count]


def _cubic(final: float, begin: int, end: int, every: int, server_round: int) -> float:
    """Return Zhu and Gupta's share at the last step of the schedule that is due."""
    if server_round < begin:
        return 0.0
    if server_round >= end:
        return final
    step = begin + (server_round - begin) // every * every
    return final * (1.0 - (1.0 - (step - begin) / (end - begin)) ** 3)


def _check(final: float, begin: int, end: int, every: int) -> None:
    if not 0.0 < final < 1.0:
        raise ConfigError(f"final = {final} is not between 0 and 1")
    if not 1 <= begin <= end:
        raise ConfigError(f"begin = {begin}, end = {end}: it must be 1 <= begin <= end")
    if every < 1:
        raise ConfigError(f"every = {every} is not at least 1")
