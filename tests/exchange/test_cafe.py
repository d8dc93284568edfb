"""Coding against a prediction: what the client takes away, the server adds back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, decode
from fl_opt.exchange.feedback.base import State
from fl_opt.exchange.feedback.cafe import Cafe, add_prediction

Vector = NDArray[np.float32]
SIZE = 16
# Multiples of 1/16 up to 64: sums and products with small whole numbers are exact in float32.
grid = arrays(np.float32, SIZE, elements=st.integers(-1024, 1024).map(lambda n: n / 16))
clients = st.lists(st.tuples(grid, st.integers(1, 9)), min_size=1, max_size=5)


def aggregate(updates: list[tuple[Vector, int]], prediction: Vector, codec: str) -> Vector:
    """The weighted sum that a server makes of what clients send."""
    total = np.zeros(SIZE, np.float32)
    for delta, weight in updates:
        state: State = {"prediction": prediction}
        vector, moved = Cafe().before(delta.copy(), state)
        payload = build_codec(codec).encode(vector)
        sent = decode(payload, size=SIZE)
        assert Cafe().after(vector, sent, moved) == {}
        sent.add_to(total, weight)
    add_prediction(total, prediction, sum(weight for _, weight in updates))
    return total


@given(clients, grid)
def test_without_loss_the_prediction_leaves_no_trace(
    updates: list[tuple[Vector, int]], prediction: Vector
) -> None:
    expected = sum(weight * delta for delta, weight in updates)
    np.testing.assert_array_equal(aggregate(updates, prediction, "none"), expected)


@given(clients, grid)
def test_what_is_lost_is_lost_of_the_difference_only(
    updates: list[tuple[Vector, int]], prediction: Vector
) -> None:
    """The sum is that of ``p + C(delta - p)``."""
    codec = build_codec("topk(0.25)")
    expected = sum(
        weight * (prediction + decode(codec.encode(delta - prediction), size=SIZE).to_dense())
        for delta, weight in updates
    )
    np.testing.assert_array_equal(aggregate(updates, prediction, "topk(0.25)"), expected)


@given(grid, st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_updates_that_were_predicted_arrive_whole(
    prediction: Vector, weights: list[int]
) -> None:
    updates = [(prediction, weight) for weight in weights]
    result = aggregate(updates, prediction, "topk(0.07) | ternary")
    np.testing.assert_array_equal(result, sum(weights) * prediction)


def test_a_first_round_has_no_prediction() -> None:
    delta = np.ones(SIZE, np.float32)
    vector, moved = Cafe().before(delta, {})
    assert vector is delta
    np.testing.assert_array_equal(vector, 1.0)
    assert moved == {}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_prediction_is_added_in_place_and_only_read(dtype: type[np.floating]) -> None:
    prediction = np.full(SIZE, 0.5, np.float32)
    prediction.flags.writeable = False
    accumulator = np.ones(SIZE, dtype)
    add_prediction(accumulator, prediction, 3.0)
    np.testing.assert_array_equal(accumulator, np.full(SIZE, 2.5))
    assert Cafe().start(prediction, {"prediction": prediction}) is prediction
