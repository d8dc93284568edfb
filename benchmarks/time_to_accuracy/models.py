"""The cnn in two more sizes, to see what grows with a model."""

from __future__ import annotations

from torch import nn

from fl_opt.data import TaskInfo


def small(info: TaskInfo) -> nn.Module:
    """About 0.03 million parameters on Fashion-MNIST."""
    return _cnn(info, first=8, second=16, hidden=32)


def large(info: TaskInfo) -> nn.Module:
    """About 1.7 million parameters, LEAF's cnn for FEMNIST with another head."""
    return _cnn(info, first=32, second=64, hidden=512)


def _cnn(info: TaskInfo, first: int, second: int, hidden: int) -> nn.Module:
    channels, height, width = info.input_shape
    return nn.Sequential(
        nn.Conv2d(channels, first, kernel_size=5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel_size=5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * (height // 4) * (width // 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, info.num_classes),
    )
