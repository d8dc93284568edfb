"""Local training of a pruned model."""

from __future__ import annotations

import torch
from torch import nn


def pruned_mask(model: nn.Module) -> torch.Tensor:
    """Return what of a pruned model :func:`~fl_opt.training.train` is to train, as a mask.

    What is pruned is exactly zero, and only weights of two and more dimensions are: their
    zeros are left alone. With their gradients masked they stay zero through momentum, weight
    decay and adaptive steps.

    Parameters
    ----------
    model : torch.nn.Module
        As it was received.

    Returns
    -------
    torch.Tensor
        1 where a parameter is trained and 0 where it is pruned: all trainable parameters,
        flat, in the order of ``model.parameters()``, of their dtype and on their device.
    """
    with torch.no_grad():
        parts = [
            (p != 0 if p.ndim > 1 else torch.ones_like(p, dtype=torch.bool)).reshape(-1).to(p)
            for p in model.parameters()
            if p.requires_grad
        ]
    return torch.cat(parts)
