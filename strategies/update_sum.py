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
        self._of_parts: NDArray[np.float64] | None = None

    def add(self, received: UplinkUpdate, weight: float, scale: float = 1.0) -> None:
        """Add a client's update, which has the given weight in the mean.

        With ``scale`` s the update itself is multiplied by s, and its weight stays what it is:
        a mean of stale updates only is a smaller step. The update of a sub-model counts in
        the mean of the entries that it covers.
        """
        received.update.add_to(self._sum, weight * scale)
        self._exact.add(received.exact, weight)
        if received.part is None:
            self._weight += weight
            return
        if self._of_parts is None:
            self._of_parts = np.zeros(self._sum.size)
        self._of_parts[received.part.positions] += weight

    def is_finite(self) -> bool:
        """Whether the sum has not overflowed."""
        return bool(np.isfinite(self._sum).all())

    def mean(self) -> tuple[Vector, dict[str, NDArray[Any]]]:
        """Return the weighted means, in the accumulator's memory; it is used up.

        What nobody has trained is zero.
        """
        if self._of_parts is None:
            self._sum /= np.float32(self._weight)
        else:
            self._of_parts += self._weight
            trained = self._of_parts > 0.0
            np.divide(self._sum, self._of_parts, out=self._sum, where=trained)
        return self._sum, self._exact.result()
