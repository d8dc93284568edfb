"""Softmax regression in numpy on scikit-learn's digits: no torch anywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Floats = NDArray[np.float32]
Model = dict[str, Floats]
Examples = tuple[Floats, NDArray[np.int64]]


def build() -> Model:
    """Return the model before training."""
    return {"weight": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}


def load(partition_id: int, num_partitions: int) -> tuple[Examples, Examples]:
    """Return a client's own images and labels, for training and for testing."""
    images, labels = load_digits(return_X_y=True)
    inputs = (images / 16.0).astype(np.float32)[partition_id::num_partitions]
    targets = labels.astype(np.int64)[partition_id::num_partitions]
    cut = int(0.8 * len(targets))
    return (inputs[:cut], targets[:cut]), (inputs[cut:], targets[cut:])


def probabilities(model: Model, inputs: Floats) -> Floats:
    """Return the probability of each class, shape (examples, 10)."""
    scores = inputs @ model["weight"] + model["bias"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def train(model: Model, data: Examples, learning_rate: float, epochs: int = 5) -> Model:
    """Return the model after some epochs of gradient descent."""
    weight, bias = model["weight"].copy(), model["bias"].copy()
    for _ in range(epochs):
        for start in range(0, len(data[1]), 32):
            inputs, targets = data[0][start : start + 32], data[1][start : start + 32]
            error = probabilities({"weight": weight, "bias": bias}, inputs)
            error[np.arange(len(targets)), targets] -= 1.0
            weight -= learning_rate * inputs.T @ error / len(targets)
            bias -= learning_rate * error.mean(axis=0)
    return {"weight": weight, "bias": bias}


def test(model: Model, data: Examples) -> float:
    """Return the accuracy."""
    return float((probabilities(model, data[0]).argmax(axis=1) == data[1]).mean())
