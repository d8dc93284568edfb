"""Weighted draws without replacement."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from strategies.selection.draw import weighted_sample


def test_draws_follow_the_weights_that_are_left() -> None:
    weights = np.array([1.0, 2.0, 5.0])
    generator = np.random.default_rng(1)
    found: Counter[tuple[int, ...]] = Counter()
    number = 5_000
    for _ in range(number):
        found[tuple(weighted_sample(generator, weights, 2).tolist())] += 1
    for first, second in permutations(range(3), 2):
        p = weights[first] / 8 * weights[second] / (8 - weights[first])
        assert found[first, second] / number == pytest.approx(p, abs=0.025)


def test_only_the_proportions_of_weights_matter() -> None:
    weights = np.array([1e-300, 3e-300, 2e-300])
    small = weighted_sample(np.random.default_rng(2), weights, 3)
    large = weighted_sample(np.random.default_rng(2), weights * 1e300 * 1e300, 3)
    np.testing.assert_array_equal(small, large)


def test_weights_of_nothing_are_drawn_last_and_alike() -> None:
    weights = np.array([0.0, 0.0, 1.0, 0.0])
    first, second = Counter[int](), Counter[int]()
    generator = np.random.default_rng(3)
    for _ in range(600):
        drawn = weighted_sample(generator, weights, 2).tolist()
        first[drawn[0]] += 1
        second[drawn[1]] += 1
    assert first == {2: 600}
    assert all(150 < second[index] < 250 for index in (0, 1, 3))


def test_nothing_but_zeros_is_drawn_from_like_anything_else() -> None:
    drawn = weighted_sample(np.random.default_rng(4), np.zeros(5), 5)
    assert sorted(drawn.tolist()) == [0, 1, 2, 3, 4]
    assert weighted_sample(np.random.default_rng(4), np.ones(5), 5).tolist() == drawn.tolist()
