"""Top-k: exact count, the right entries, ties settled by position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_opt.codecs.select import TopK
from fl_opt.errors import ConfigError


def reference(vector: np.ndarray, count: int) -> np.ndarray:
    """Sort by magnitude, then by position: slow and plain."""
    order = np.lexsort((np.arange(vector.size), -np.abs(vector)))
    kept = order[:count]
    return np.sort(kept[vector[kept] != 0])


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(-4, 4), min_size=1, max_size=300),
    density=st.floats(1e-6, 1.0),
)
def test_agrees_with_sorting(values: list[int], density: float) -> None:
    vector = np.array(values, np.float32)
    count = max(1, round(density * vector.size))
    np.testing.assert_array_equal(TopK(density).select(vector, 0, (vector.shape,)), reference(vector, count))


@pytest.mark.parametrize("density", [1e-7, 1e-4, 0.01, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("kind", ["normal", "ties", "sparse", "sorted", "spikes on a stride"])
def test_agrees_with_sorting_where_the_cut_is_sampled(kind: str, density: float) -> None:
    generator = np.random.default_rng(5)
    size = 200_003
    vector = generator.standard_normal(size).astype(np.float32)
    if kind == "ties":
        vector = np.round(vector)
    elif kind == "sparse":
        vector[generator.random(size) < 0.999] = 0.0
    elif kind == "sorted":
        vector = np.sort(vector)
    elif kind == "spikes on a stride":
        vector[::3] *= 1000.0
    count = max(1, round(density * size))
    np.testing.assert_array_equal(TopK(density).select(vector, 0, (vector.shape,)), reference(vector, count))


@pytest.mark.parametrize("density", [0.0, -0.1, 1.0001, float("nan")])
def test_density_out_of_range_is_refused(density: float) -> None:
    with pytest.raises(ConfigError, match=r"not in \(0, 1\]"):
        TopK(density)
