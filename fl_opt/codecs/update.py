"""What decoding a payload gives: an update of a model, dense or sparse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Positions = NDArray[np.int64]
Layout = tuple[tuple[int, ...], ...]
"""Shapes of the arrays that make up a vector, in order."""
Accumulator = NDArray[np.floating[Any]]


class Update(Protocol):
    """A decoded update of a model of ``size`` entries."""

    @property
    def size(self) -> int:
        """Number of entries of the model."""

    @property
    def count(self) -> int:
        """Number of entries that the update carries."""

    def to_dense(self) -> Vector:
        """Return a new float32 vector of shape ``(size,)``."""

    def add_to(self, accumulator: Accumulator, weight: float = 1.0) -> None:
        """Add ``weight`` times the update to a float32 or float64 vector, in place."""

    def norm(self) -> float:
        """Return the L2 norm, summed in float64."""


@dataclass(frozen=True, eq=False)
class DenseUpdate:
    """Every entry is there.

    Parameters
    ----------
    values : ndarray of float32, shape (size,)
        May be a read-only view of the payload.
    """

    values: Vector

    @property
    def size(self) -> int:
        """Number of entries of the model."""
        return self.values.size

    @property
    def count(self) -> int:
        """Number of entries that the update carries."""
        return self.values.size

    def to_dense(self) -> Vector:
        """Return a new float32 vector of shape ``(size,)``."""
        return np.array(self.values, dtype=np.float32)

    def add_to(self, accumulator: Accumulator, weight: float = 1.0) -> None:
        """Add ``weight`` times the update to a float32 or float64 vector, in place."""
        if weight == 1.0:
            accumulator += self.values
        elif weight == -1.0:
            accumulator -= self.values
        else:
            accumulator += self.values * accumulator.dtype.type(weight)

    def norm(self) -> float:
        """Return the L2 norm, summed in float64."""
        return _norm(self.values)


@dataclass(frozen=True, eq=False)
class SparseUpdate:
    """Only some entries are there; the others are zero.

    Parameters
    ----------
    size : int
        Number of entries of the model.
    positions : ndarray of int64, shape (count,)
        Strictly increasing, within ``[0, size)``.
    values : ndarray of float32, shape (count,)
    """

    size: int
    positions: Positions
    values: Vector

    @property
    def count(self) -> int:
        """Number of entries that the update carries."""
        return self.positions.size

    def to_dense(self) -> Vector:
        """Return a new float32 vector of shape ``(size,)``."""
        dense = np.zeros(self.size, np.float32)
        dense[self.positions] = self.values
        return dense

    def add_to(self, accumulator: Accumulator, weight: float = 1.0) -> None:
        """Add ``weight`` times the update to a float vector, in place: O(count)."""
        np.add.at(accumulator, self.positions, self.values * accumulator.dtype.type(weight))

    def norm(self) -> float:
        """Return the L2 norm, summed in float64."""
        return _norm(self.values)


def _norm(values: Vector) -> float:
    return math.sqrt(float(np.einsum("i,i->", values, values, dtype=np.float64)))
