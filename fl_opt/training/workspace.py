"""What training a model needs beside it, kept from round to round.

The buffers of a large model take longer to get from the system than to fill; clients that take
turns in one process share one model, and with it these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.training.flat import flatten_parameters
from fl_opt.training.optimizer import build_optimizer

Hyperparameters: TypeAlias = tuple[str, float, float, float]


@dataclass(frozen=True)
class Workspace:
    """A model's parameters and gradient as one tensor each, and their optimizer.

    Attributes
    ----------
    weights : torch.nn.Parameter
        1-D; the parameters of the model are views of it.
    gradient : torch.Tensor
        ``weights.grad``; the gradients of the model's parameters are views of it.
    optimizer : torch.optim.Optimizer
        Of ``weights``, as if it were new.
    settings : tuple
        What the optimizer was built with.
    """

    weights: nn.Parameter
    gradient: torch.Tensor
    optimizer: torch.optim.Optimizer
    settings: Hyperparameters


def workspace_of(model: nn.Module, settings: TrainSettings) -> Workspace:
    """Return the workspace of a model, its optimizer without a past.

    What was there for another kind of optimizer, or before the model was moved or taken
    apart, is made anew.
    """
    chosen = (
        settings.optimizer,
        settings.learning_rate,
        settings.momentum,
        settings.weight_decay,
    )
    found = _workspaces.get(model)
    if found is not None and found.settings == chosen and _belongs(found, model):
        _reset(found.optimizer)
        return found
    weights, gradient = flatten_parameters(model)
    made = Workspace(weights, gradient, build_optimizer([weights], settings), chosen)
    _workspaces[model] = made
    return made


_workspaces: WeakKeyDictionary[nn.Module, Workspace] = WeakKeyDictionary()


def _belongs(workspace: Workspace, model: nn.Module) -> bool:
    """Whether the model's parameters and gradients are still views of the workspace's."""
    weights, gradient = workspace.weights, workspace.gradient
    start = 0
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        slot = parameter.grad
        if slot is None or parameter.device != weights.device:
            return False
        if parameter.data_ptr() != weights.data_ptr() + start * weights.element_size():
            return False
        if slot.data_ptr() != gradient.data_ptr() + start * gradient.element_size():
            return False
        start += parameter.numel()
    return start == weights.numel() and weights.grad is gradient


def _reset(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer forget; momentum and moments of zero are as good as none."""
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                value.zero_()
