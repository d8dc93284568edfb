"""All trainable parameters of a model as one tensor.

Clipping, the proximal term and the optimizer then work on one tensor instead of dozens,
which for small models is most of the time of a step that is not the model's own.
"""

from __future__ import annotations

import torch
from torch import nn


def flatten_parameters(model: nn.Module) -> nn.Parameter:
    """Lay a model's trainable parameters side by side in one tensor; they become views of it.

    Their gradients become views of its gradient, which is zero at first: clear it with
    ``optimizer.zero_grad(set_to_none=False)``, and it stays in place. The model goes on
    working as before, and may be flattened again.

    Parameters
    ----------
    model : torch.nn.Module
        Its trainable parameters share one dtype and device, or are moved to those of the first.

    Returns
    -------
    torch.nn.Parameter
        1-D, in the order of ``model.parameters()``.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    flat = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = flat.data[start:stop].view_as(parameter)
        parameter.grad = flat.grad[start:stop].view_as(parameter)
        start = stop
    return flat
