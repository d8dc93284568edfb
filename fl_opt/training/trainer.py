"""Local training: one client's share of a round."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import Examples
from fl_opt.training.flat import clip_norm, flatten_parameters
from fl_opt.training.loss import prediction_loss
from fl_opt.training.optimizer import build_optimizer
from fl_opt.training.plan import Plan, fixed_plan


@dataclass(frozen=True)
class TrainResult:
    """What a client reports of its training.

    Attributes
    ----------
    loss : float
        Mean over all samples processed, without the proximal term. NaN or infinite where
        training diverged.
    num_examples : int
        Examples the client trained on.
    num_samples : int
        Examples processed, each counted as often as it was used.
    num_steps : int
        Optimizer steps.
    seconds : float
        Wall time.
    """

    loss: float
    num_examples: int
    num_samples: int
    num_steps: int
    seconds: float


def train(
    model: nn.Module,
    examples: Examples,
    settings: TrainSettings,
    *,
    seed: int,
    reference: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    plan: Plan | None = None,
) -> TrainResult:
    """Train a model in place.

    Parameters
    ----------
    model : torch.nn.Module
        Trained on the device it is on.
    examples : Examples
        At least one.
    settings : TrainSettings
        With ``local_steps`` above 0 that many steps, else ``local_epochs`` epochs. The last
        batch of an epoch may be smaller.
    seed : int
        Of the order of examples and of whatever the model draws (dropout), in [0, 2**63).
        Torch's global random state is left as it was.
    reference : torch.Tensor, optional
        Where the proximal term pulls to: all trainable parameters, flat, in the order of
        ``model.parameters()``. If not given, the parameters as they are at the start.
    mask : torch.Tensor, optional
        1 where a parameter is trained and 0 where it stays as it is, in the same order.
    plan : Plan, optional
        What the settings leave open; needed where something in them is ``auto``.

    Returns
    -------
    TrainResult

    Raises
    ------
    ConfigError
        If something is ``auto`` and there is no plan.

    Notes
    -----
    The proximal term of FedProx (Li et al. 2020) adds ``mu / 2 * ||w - reference||^2`` to the
    loss. Its gradient, ``mu * (w - reference)``, is added to the loss's before clipping.
    """
    start = time.perf_counter()
    plan = plan or fixed_plan(settings)
    weights, gradient = flatten_parameters(model)
    if reference is None and settings.proximal_mu:
        reference = weights.detach().clone()
    device = weights.device
    examples = examples.to(device)
    optimizer = build_optimizer([weights], settings)
    total_loss = torch.zeros((), device=device)
    num_samples = num_steps = 0

    model.train()
    with _seeded(seed, device):
        for inputs, targets in _batches(examples, settings, plan.batch_size, seed):
            loss = prediction_loss(model(inputs), targets)
            gradient.zero_()
            loss.backward()  # type: ignore[no-untyped-call]
            if reference is not None and settings.proximal_mu:
                gradient.add_(weights.detach() - reference, alpha=settings.proximal_mu)
            if mask is not None:
                gradient.mul_(mask)
            if settings.clip_norm:
                clip_norm(gradient, settings.clip_norm)
            optimizer.step()
            # Summed on the device: to read the value here would be to wait at every step.
            total_loss += loss.detach() * len(targets)
            num_samples += len(targets)
            num_steps += 1

    mean_loss = float(total_loss) / num_samples
    seconds = time.perf_counter() - start
    return TrainResult(mean_loss, len(examples), num_samples, num_steps, seconds)


def _batches(
    examples: Examples, settings: TrainSettings, size: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield shuffled batches: one gather an epoch, of which batches are views."""
    generator = torch.Generator().manual_seed(seed)
    count = len(examples)
    steps = settings.local_steps or settings.local_epochs * -(-count // size)
    while steps:
        order = torch.randperm(count, generator=generator).to(examples.inputs.device)
        shuffled = examples.subset(order)
        for start in range(0, count, size):
            yield shuffled.inputs[start : start + size], shuffled.targets[start : start + size]
            steps -= 1
            if not steps:
                return


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what layers draw from, and put the global random state back afterwards."""
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=accelerators, device_type=device.type):
        torch.default_generator.manual_seed(seed)
        if accelerators:
            torch.get_device_module(device).manual_seed(seed)
        yield
