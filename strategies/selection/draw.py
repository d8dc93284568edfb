"""Random draws that policies have in common."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_LEAST: Final = 1e-12
"""The least weight that counts, as a share of the largest one."""


def weighted_sample(
    generator: np.random.Generator, weights: NDArray[np.float64], count: int
) -> NDArray[np.intp]:
    """Draw without replacement, each time in proportion to the weights that are left.

    The smallest of independent exponential times with rates ``weights``, as in Efraimidis and
    Spirakis 2006, "Weighted random sampling with a reservoir".

    Parameters
    ----------
    generator : numpy.random.Generator
    weights : ndarray of float64, shape (n,)
        At least 0 and finite. Those that are next to nothing count alike, and come last.
    count : int
        At most n.

    Returns
    -------
    ndarray of intp, shape (count,)
        Positions, in the order in which they are drawn.
    """
    largest = weights.max(initial=0.0)
    rates = np.maximum(weights / largest, _LEAST) if largest else np.ones_like(weights)
    times = generator.standard_exponential(weights.size) / rates
    return np.argsort(times, kind="stable")[:count]
