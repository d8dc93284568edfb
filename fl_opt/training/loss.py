"""The loss of all tasks here: cross entropy of classes."""

from __future__ import annotations

import torch
from torch import nn


def prediction_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over all predictions, in nats.

    Parameters
    ----------
    logits : torch.Tensor
        Shape ``(n, classes)``, or ``(n, window, classes)`` with a prediction at each position.
    targets : torch.Tensor
        int64, shape ``(n,)`` or ``(n, window)``.

    Returns
    -------
    torch.Tensor
        A scalar.
    """
    return nn.functional.cross_entropy(logits.flatten(end_dim=-2), targets.flatten())
