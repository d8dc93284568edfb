"""All trainable parameters of a model as one tensor.

Clipping, the proximal term and the optimizer then work on one tensor instead of dozens,
which for small models is most of the time of a step that is not the model's own.
"""

from __future__ import annotations

import torch
from torch import nn


def flatten_parameters(model: nn.Module) -> tuple[nn.Parameter, torch.Tensor]:
    """Lay a model's trainable parameters side by side in one tensor; they become views of it.

    Their gradients become views of its gradient, which is zero at first: clear it in place.
    The model goes on working as before, and may be flattened again.

    Parameters
    ----------
    model : torch.nn.Module
        Its trainable parameters share one dtype and device, or are moved to those of the first.

    Returns
    -------
    weights : torch.nn.Parameter
        1-D, in the order of ``model.parameters()``.
    gradient : torch.Tensor
        ``weights.grad``.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    flat = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
    flat.grad = gradient = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = flat.data[start:stop].view_as(parameter)
        parameter.grad = gradient[start:stop].view_as(parameter)
        start = stop
    return flat, gradient


def clip_norm(gradient: torch.Tensor, largest: float) -> None:
    """Scale a gradient in place so that its L2 norm is at most ``largest``.

    As ``torch.nn.utils.clip_grad_norm_`` does, without looking at the norm: nothing waits.
    """
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((largest / (norm + 1e-6)).clamp_(max=1.0))
