"""Small tasks and models for tests of training."""

from __future__ import annotations

import torch
from torch import nn

from fl_opt.data import Examples


def separable(count: int, seed: int = 0) -> Examples:
    """Points in eight dimensions, of three classes that a linear model tells apart."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 8, generator=generator)
    return Examples(inputs, inputs[:, :3].argmax(dim=1))


def linear_model() -> nn.Module:
    """Build a linear model whose weights are all zero."""
    model = nn.Linear(8, 3)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model
