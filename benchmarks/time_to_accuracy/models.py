"""The cnn in two more sizes, to see what grows with a model."""

from __future__ import annotations

from torch import nn

from fl_opt.data import TaskInfo
from fl_opt.models.cnn import cnn


def small(info: TaskInfo) -> nn.Module:
    """About 0.03 million parameters on Fashion-MNIST."""
    return cnn(info, channels=(8, 16), hidden=32)


def large(info: TaskInfo) -> nn.Module:
    """About 1.7 million parameters, LEAF's cnn for FEMNIST with another head."""
    return cnn(info, channels=(32, 64), hidden=512)
