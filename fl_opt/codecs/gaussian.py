"""The scalar quantizer of least squared error for normal values (Lloyd 1982, Max 1960)."""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 500
_TOLERANCE = 1e-9


@lru_cache(maxsize=8)
def normal_centroids(bits: int) -> NDArray[np.float64]:
    """Return the ``2**bits`` reconstruction levels for the standard normal distribution.

    Lloyd's iteration: cell borders halfway between levels, levels at the means of their cells,
    ``(pdf(a) - pdf(b)) / (cdf(b) - cdf(a))``. It starts at the levels of the asymptotically
    best compander, which are quantiles of a normal distribution of variance 3 (Panter and
    Dite 1951). The mean squared errors are 0.3634, 0.1175, 0.03454 and 0.00950 for 1 to 4 bits.

    Returns
    -------
    ndarray of float64, shape (2**bits,)
        Increasing, symmetric about zero, read-only.
    """
    normal = NormalDist()
    half = 1 << (bits - 1)
    compander = NormalDist(sigma=3**0.5)
    levels = np.array([compander.inv_cdf(0.5 + (i + 0.5) / (2 * half)) for i in range(half)])
    # The positive half is enough: its lowest border is zero, its highest infinity.
    for _ in range(_ROUNDS):
        borders = [0.0, *((levels[1:] + levels[:-1]) / 2)]
        density = np.array([*map(normal.pdf, borders), 0.0])
        below = np.array([*map(normal.cdf, borders), 1.0])
        moved = -np.diff(density) / np.diff(below)
        shift = float(np.abs(moved - levels).max())
        levels = moved
        if shift < _TOLERANCE:
            break
    table = np.concatenate([-levels[::-1], levels])
    table.setflags(write=False)
    return table
