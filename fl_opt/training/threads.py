"""How many threads torch uses within one operation."""

from __future__ import annotations

import torch
from torch import nn

SMALL_MODEL = 100_000
"""Parameters below which handing work to other threads costs more than it saves."""


def choose_threads(model: nn.Module) -> int:
    """Set torch's threads in this process to what suits a model, and return their number.

    One for small models, else as many as torch or ``OMP_NUM_THREADS`` would have it.
    """
    if sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL:
        torch.set_num_threads(1)
    return torch.get_num_threads()
