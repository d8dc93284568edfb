"""Model and data of an app that was written before Flower's Message API."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def build() -> nn.Sequential:
    """Return a small network for images of 8x8 pixels."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def load(partition_id: int, num_partitions: int) -> tuple[Tensor, Tensor]:
    """Return a client's own images and labels."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16.0, dtype=torch.float32)
    return inputs[partition_id::num_partitions], torch.tensor(labels)[
        partition_id::num_partitions
    ]
