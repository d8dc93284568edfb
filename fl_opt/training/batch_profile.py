"""Batch sizes side by side: speed, memory, and what a larger batch is worth."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import AnyExamples
from fl_opt.profiling.allocations import allocation_timeline
from fl_opt.profiling.memory import return_freed_memory
from fl_opt.profiling.phases import phase_memory
from fl_opt.training.batch_size import LARGEST, measure_speeds, speed_of
from fl_opt.training.gradient_noise import examples_for_same_progress, gradient_noise_scale
from fl_opt.training.memory import first_examples, one_step
from fl_opt.training.plan import trial_plan
from fl_opt.training.trainer import train

_STEPS = 4


@dataclass(frozen=True)
class BatchRow:
    """One batch size.

    Attributes
    ----------
    batch_size : int
    samples_per_second : float
        Of local training, the best of a few turns.
    peak_bytes : int
        Resident memory of the whole process while it trained.
    training_bytes : int
        What torch allocated for a step at most: gradient, optimizer, activations; 0 where
        that cannot be measured.
    examples_needed : float
        For the same progress, relative to the smallest batches.
    time_needed : float
        For the same progress, relative to the best row: 1 is best.
    """

    batch_size: int
    samples_per_second: float
    peak_bytes: int
    training_bytes: int
    examples_needed: float
    time_needed: float


@dataclass(frozen=True)
class BatchProfile:
    """A model on one client's examples and this machine.

    Attributes
    ----------
    num_examples : int
        The client's.
    noise_scale_before, noise_scale_after : float
        Simple noise scale of the gradient, in examples, of the model as given and after a
        round of local training; see
        :func:`~fl_opt.training.gradient_noise.gradient_noise_scale`.
    rows : tuple of BatchRow
        In rising order of batch size.
    """

    num_examples: int
    noise_scale_before: float
    noise_scale_after: float
    rows: tuple[BatchRow, ...]


def profile_batch_sizes(
    model: nn.Module,
    examples: AnyExamples,
    settings: TrainSettings,
    sizes: Sequence[int],
    *,
    seed: int,
) -> BatchProfile:
    """Train copies of a model with batches of several sizes, and measure.

    Parameters
    ----------
    model : torch.nn.Module
    examples : Examples or StreamedExamples
        One client's, at least one. They are used again where a batch needs more.
    settings : TrainSettings
        Its batch size is not used; where the precision is ``auto``, float32 is.
    sizes : sequence of int
        At least one, each at least 1.
    seed : int
        In [0, 2**63).

    Notes
    -----
    Progress is weighed with the noise scale after local training: it grows as a model gets
    better, and most rounds are later ones. That the learning rate is right for each size is
    taken for granted.
    """
    ordered = sorted(set(sizes))
    pool = first_examples(examples, max(len(examples), _STEPS * ordered[-1]))
    before = gradient_noise_scale(model, examples, seed=seed)
    after = gradient_noise_scale(_trained(model, examples, settings, seed), examples, seed=seed)
    peaks = {size: _peaks(model, pool, settings, size) for size in ordered}
    speeds = measure_speeds(model, pool, settings, ordered, seconds=math.inf, hopeless=0.0)
    needed = {size: examples_for_same_progress(size, after) for size in ordered}
    times = {size: needed[size] / speeds[size] for size in ordered}
    best = min(times.values())
    rows = (
        BatchRow(size, speeds[size], *peaks[size], needed[size], times[size] / best)
        for size in ordered
    )
    return BatchProfile(len(examples), before, after, tuple(rows))


def _trained(
    model: nn.Module, examples: AnyExamples, settings: TrainSettings, seed: int
) -> nn.Module:
    """Return a copy after the local training of a round."""
    size = 32 if settings.batch_size == "auto" else settings.batch_size
    plan = replace(trial_plan(settings, size), micro_batch_size=min(size, LARGEST))
    trained = copy.deepcopy(model)
    train(trained, examples, settings, seed=seed, plan=plan)
    return trained


def _peaks(
    model: nn.Module, pool: AnyExamples, settings: TrainSettings, size: int
) -> tuple[int, int]:
    """Return the peak of the process while it trains, and of torch's allocations for a step."""
    device = next(model.parameters()).device
    return_freed_memory()
    with phase_memory(f"batches of {size}", device) as phase:
        speed_of(model, pool, settings, size, steps=2)
    return phase.resident_bytes, _allocated(model, pool, settings, size, device)


def _allocated(
    model: nn.Module,
    pool: AnyExamples,
    settings: TrainSettings,
    size: int,
    device: torch.device,
) -> int:
    if device.type not in ("cpu", "cuda"):
        return 0
    batch = first_examples(pool, min(settings.micro_batch_size or size, size))
    plan = trial_plan(settings, size)
    timeline = allocation_timeline(lambda: one_step(model, batch, settings, plan), device)
    return int(timeline.max())
