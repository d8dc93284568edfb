"""Optimizers by name, and the device that training runs on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.errors import ConfigError


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: TrainSettings
) -> torch.optim.Optimizer:
    """Build a fresh optimizer: clients keep no momentum from round to round.

    All are fused: one call updates all parameters, also on the CPU.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, rate, momentum=settings.momentum, weight_decay=decay, fused=True
        )
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay, fused=True)


def find_device(name: str) -> torch.device:
    """Return the device of the setting ``train.device``.

    Parameters
    ----------
    name : str
        As torch names it, or ``auto``: ``cuda`` where it can be used, else ``cpu``.

    Raises
    ------
    ConfigError
        If torch does not know the device or cannot use it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"train.device = {name!r} cannot be used: {reason}") from None
    return device
