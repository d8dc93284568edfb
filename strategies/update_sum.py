"""The updates of a round, added up as they arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_opt.exchange.exact import ExactMean
from fl_opt.exchange.incoming import UplinkUpdate
from fl_opt.params import ParamSpec

Vector = NDArray[np.float32]


class UpdateSum:
    """A weighted sum of updates in one accumulator: memory does not grow with their number.

    Parameters
    ----------
    spec : ParamSpec
        Of the model.
    """

    def __init__(self, spec: ParamSpec) -> None:
        self._sum = np.zeros(spec.size, np.float32)
        self._exact = ExactMean(spec)
        self._weight = 0.0

    def add(self, received: UplinkUpdate, weight: float) -> None:
        """Add a client's update and exact arrays, ``weight`` times."""
        received.update.add_to(self._sum, weight)
        self._exact.add(received.exact, weight)
        self._weight += weight

    def is_finite(self) -> bool:
        """Whether the sum has not overflowed."""
        return bool(np.isfinite(self._sum).all())

    def mean(self) -> tuple[Vector, dict[str, NDArray[Any]]]:
        """Return the weighted means, in the accumulator's memory; it is used up."""
        self._sum /= np.float32(self._weight)
        return self._sum, self._exact.result()


def staleness_weight(staleness: int) -> float:
    """Return ``(1 + staleness) ** -0.5``, the weight of an update that missed steps.

    FedBuff (Nguyen et al. 2022, arXiv 2106.06639) uses it; staleness is the number of versions
    between the model that the update started from and the one that it is added to.
    """
    return float((1.0 + max(staleness, 0)) ** -0.5)
