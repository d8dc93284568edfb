"""Local training: one client's share of a round."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import AnyExamples
from fl_opt.training.checkpointing import checkpointed
from fl_opt.training.dense import as_dense_network
from fl_opt.training.flat import clip_norm
from fl_opt.training.gradient import Autograd, GradientFn
from fl_opt.training.loader import batches
from fl_opt.training.plan import Plan, fixed_plan
from fl_opt.training.precision import build_scaler
from fl_opt.training.workspace import workspace_of


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
    examples: AnyExamples,
    settings: TrainSettings,
    *,
    seed: int,
    reference: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    plan: Plan | None = None,
    loader_workers: int = 0,
) -> TrainResult:
    """Train a model in place.

    Parameters
    ----------
    model : torch.nn.Module
        Trained on the device it is on.
    examples : Examples or StreamedExamples
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
    loader_workers : int, default 0
        Processes that read streamed examples ahead.

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

    The gradient of a batch that is computed in parts is the sum of theirs, each weighted by
    its share of the examples: the same as at once, but for layers that look at a whole batch,
    such as batch normalisation.
    """
    start = time.perf_counter()
    plan = plan or fixed_plan(settings)
    workspace = workspace_of(model, settings)
    weights, gradient, optimizer = workspace.weights, workspace.gradient, workspace.optimizer
    device = weights.device
    if reference is None and settings.proximal_mu:
        reference = weights.detach().clone()
    scaler = build_scaler(device, plan.precision)
    total_loss = torch.zeros((), device=device)
    num_samples = num_steps = 0

    model.train()
    with _seeded(seed, device), checkpointed(model, plan.checkpoint_modules):
        add_gradient = _gradient_fn(model, settings, plan, scaler)
        for inputs, targets in batches(
            examples,
            batch_size=plan.batch_size,
            num_steps=_count_steps(settings, len(examples), plan.batch_size),
            seed=seed,
            device=device,
            workers=loader_workers,
        ):
            gradient.zero_()
            for part in _parts(inputs, targets, plan.micro_batch_size):
                share = len(part[1]) / len(targets)
                # Summed on the device: to read the value here would be to wait at every step.
                total_loss += add_gradient(*part, share) * len(part[1])
            scaler.unscale_(optimizer)
            if reference is not None and settings.proximal_mu:
                gradient.add_(weights.detach() - reference, alpha=settings.proximal_mu)
            if mask is not None:
                gradient.mul_(mask)
            if settings.clip_norm:
                clip_norm(gradient, settings.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            num_samples += len(targets)
            num_steps += 1

    mean_loss = float(total_loss) / num_samples
    seconds = time.perf_counter() - start
    return TrainResult(mean_loss, len(examples), num_samples, num_steps, seconds)


def _count_steps(settings: TrainSettings, count: int, batch_size: int) -> int:
    return settings.local_steps or settings.local_epochs * -(-count // batch_size)


def _parts(
    inputs: torch.Tensor, targets: torch.Tensor, size: int
) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Cut a batch into the parts that are computed at once."""
    if len(targets) <= size:
        return [(inputs, targets)]
    return zip(torch.split(inputs, size), torch.split(targets, size), strict=True)


def _gradient_fn(
    model: nn.Module, settings: TrainSettings, plan: Plan, scaler: torch.amp.GradScaler
) -> GradientFn:
    """Return the fastest way to this model's gradient."""
    if plan.precision == "fp32" and not plan.checkpoint_modules:
        dense = as_dense_network(model)
        if dense is not None:
            return dense
    if settings.compile and model._compiled_call_impl is None:
        model.compile()
    return Autograd(
        model,
        precision=plan.precision,
        scaler=scaler,
        channels_last=settings.channels_last,
    )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what layers draw from, and put the global random state back afterwards."""
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=accelerators, device_type=device.type):
        torch.default_generator.manual_seed(seed)
        if accelerators:
            torch.get_device_module(device).manual_seed(seed)
        yield
