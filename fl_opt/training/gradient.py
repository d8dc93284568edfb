"""Forward and backward: the gradient of the loss on some examples."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from fl_opt.training.loss import prediction_loss
from fl_opt.training.plan import Precision
from fl_opt.training.precision import autocast


class GradientFn(Protocol):
    """Adds a share of the gradient on some examples to the gradient so far."""

    def __call__(
        self, inputs: torch.Tensor, targets: torch.Tensor, share: float
    ) -> torch.Tensor | float:
        """Add ``share`` times the gradient of the mean loss; return the loss, unscaled.

        A tensor is on the model's device: to read its value there would be to wait.
        """


class Autograd:
    """The gradient of any model, by torch.

    Parameters
    ----------
    model : torch.nn.Module
        Gradients are added to the ``grad`` of its parameters.
    precision : {"fp32", "bf16", "fp16"}
        Of matrix products and convolutions, by autocast.
    scaler : torch.amp.GradScaler
        Multiplies the loss, if it is enabled, so that gradients in fp16 do not vanish.
    channels_last : bool
        Lay batches of images out with their channels last.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        precision: Precision,
        scaler: torch.amp.GradScaler,
        channels_last: bool = False,
    ) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._precision = precision
        self._scaler = scaler
        self._channels_last = channels_last

    def __call__(
        self, inputs: torch.Tensor, targets: torch.Tensor, share: float
    ) -> torch.Tensor:
        """Run the model forward and backward."""
        if self._channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with autocast(self._device, self._precision):
            loss = prediction_loss(self._model(inputs), targets)
        part = loss if share == 1.0 else loss * share
        self._scaler.scale(part).backward()  # type: ignore[no-untyped-call]
        return loss.detach()
