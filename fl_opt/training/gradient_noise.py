"""How much gradients of single examples differ: a hint at the batch size that is worth it."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from fl_opt.data import AnyExamples
from fl_opt.training.loss import prediction_loss

_SMALL = 16
_PARTS = 16
_REPEATS = 8


def gradient_noise_scale(
    model: nn.Module,
    examples: AnyExamples,
    *,
    seed: int,
    small: int = _SMALL,
    parts: int = _PARTS,
    repeats: int = _REPEATS,
) -> float:
    """Estimate the simple noise scale of a model's gradient on some examples.

    Parameters
    ----------
    model : torch.nn.Module
        A copy is used, in training mode.
    examples : Examples or StreamedExamples
        At least one; batches are drawn from them with replacement.
    seed : int
        Of the batches, in [0, 2**63).
    small : int
        Examples of a small batch.
    parts : int
        How many of them make a large one, at least 2.
    repeats : int
        Large batches.

    Returns
    -------
    float
        In examples; infinite where the gradient is lost in the noise, NaN where it is not
        finite. Batches much smaller than this learn as much from each example as single
        examples would; of batches much larger most is wasted.

    Notes
    -----
    McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", equation 2.9 and
    appendix A.1: ``B_simple = tr(S) / |G|^2``, with S the covariance of the gradients of
    single examples and G their mean. From gradients at two batch sizes, without bias::

        |G|^2 = (B_big |G_big|^2 - B_small |G_small|^2) / (B_big - B_small)
        tr(S) = (|G_small|^2 - |G_big|^2) / (1 / B_small - 1 / B_big)

    Both are averaged over ``repeats`` before they are divided.
    """
    worked = copy.deepcopy(model).train()
    device = next(worked.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    big = small * parts
    signal = noise = 0.0
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=accelerators, device_type=device.type):
        torch.manual_seed(seed)  # what the model itself draws, put back afterwards
        for _ in range(repeats):
            gradients = []
            for _ in range(parts):
                rows = torch.randint(len(examples), (small,), generator=generator)
                batch = examples.subset(rows).to(device)
                gradients.append(_gradient(worked, batch.inputs, batch.targets))
            of_small = sum(float(g.square().sum()) for g in gradients) / parts
            of_big = float((torch.stack(gradients).sum(dim=0) / parts).square().sum())
            signal += (big * of_big - small * of_small) / (big - small)
            noise += (of_small - of_big) / (1 / small - 1 / big)
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return math.nan
    return max(noise, 0.0) / signal if signal > 0 else math.inf


def examples_for_same_progress(batch_size: int, noise_scale: float) -> float:
    """Return how many times as many examples a batch size takes as the smallest batches do.

    ``1 + B / B_noise``, equation 2.7 of the paper; 1 where the noise is infinite.
    """
    return 1 + batch_size / noise_scale if noise_scale else math.inf


def _gradient(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the mean loss as one float64 vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = prediction_loss(model(inputs), targets)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.double().flatten() for gradient in found])
