"""Federated averaging through codecs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strategies.base import CompressedStrategy


class CompressedFedAvg(CompressedStrategy):
    """Federated averaging (McMahan et al. 2017) of coded updates.

    The next model is the model plus the mean of the clients' updates, weighted by their
    number of examples. With codec ``none`` this equals the weighted mean of their weights.
    """

    def step(
        self, model: NDArray[np.float32], delta: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return ``model + delta``."""
        return model + delta
