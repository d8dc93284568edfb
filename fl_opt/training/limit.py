"""Keeping to ``train.memory-limit-mb``: smaller passes, checkpoints, or a clear refusal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import psutil
import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import AnyExamples, StreamedExamples
from fl_opt.errors import ConfigError
from fl_opt.profiling.memory import resident_bytes, return_freed_memory
from fl_opt.training.loader import _AHEAD, _BLOCK_BYTES
from fl_opt.training.memory import (
    MEGA,
    MemoryCost,
    first_examples,
    needed_bytes,
    one_step,
)
from fl_opt.training.plan import Plan, trial_plan
from fl_opt.training.segments import segment_choices

CostFn: TypeAlias = Callable[[Plan], MemoryCost]
"""Measures what training by a plan takes; batch sizes of the plan are not looked at."""

# A model of time per example, good enough to put choices in order. Computing activations
# again adds a forward pass to what is about three of them. A pass over few examples costs as
# much as one over this many more.
_RECOMPUTE = 4 / 3
_PASS_EXAMPLES = 2.0
# Batch normalisation sees each pass by itself, so that smaller ones change the result.
_CHANGED_RESULT = 100.0
_FEW = 4


@dataclass(frozen=True)
class Budget:
    """Memory that training may use.

    Attributes
    ----------
    limit : int
        Of the whole process, in bytes.
    used : int
        By the process before training.
    data_bytes : int
        Of the batches that are being read.
    """

    limit: int
    used: int
    data_bytes: int

    def needs(self, cost: MemoryCost, model: nn.Module, num_examples: int) -> int:
        """Return what the whole process needs for passes of so many examples, in bytes."""
        return self.used + needed_bytes(cost, model, self.data_bytes, num_examples)

    def fits(self, cost: MemoryCost, model: nn.Module, num_examples: int) -> bool:
        """Whether that is within the limit."""
        return self.needs(cost, model, num_examples) <= self.limit


def limit_budget(
    model: nn.Module, examples: AnyExamples, settings: TrainSettings, batch_size: int
) -> Budget:
    """Return the budget of ``train.memory-limit-mb``.

    On the CPU the limit is of the process' resident memory. On CUDA it is of what torch
    allocates on the device, where activations are.
    """
    device = next(model.parameters()).device
    # The first step brings in much of the libraries that compute it, for as long as the
    # process lives.
    one_step(model, first_examples(examples, _FEW), settings, trial_plan(settings, _FEW))
    used = _used_bytes(device)
    data_bytes = _loaded_bytes(examples, device, batch_size)
    return Budget(settings.memory_limit_mb * MEGA, used, data_bytes)


def free_budget(model: nn.Module, examples: AnyExamples, batch_size: int) -> Budget:
    """Return half of the memory that is free on the device now, as a budget."""
    device = next(model.parameters()).device
    used = _used_bytes(device)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    return Budget(used + free // 2, used, _loaded_bytes(examples, device, batch_size))


def _used_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return_freed_memory()  # what the heap keeps is there to be used again
    return resident_bytes()


def _loaded_bytes(examples: AnyExamples, device: torch.device, batch_size: int) -> int:
    """Return what blocks of batches take, the next one beside the last; see ``loader``."""
    block = max(_BLOCK_BYTES, batch_size * examples.batch(0, 1).nbytes)
    if isinstance(examples, StreamedExamples):
        return (_AHEAD + 2) * block
    return 2 * block + (examples.nbytes if device.type == "cuda" else 0)


def fit_plan(
    model: nn.Module, settings: TrainSettings, plan: Plan, budget: Budget, cost_of: CostFn
) -> Plan:
    """Return the plan that is likely the fastest within the budget, for the same batch size.

    The whole batch in one pass is tried first. Smaller passes cost little time until they are
    very small; checkpoints, if ``train.checkpoint-modules`` is ``auto``, cost about a third.
    For a model with batch normalisation passes are made smaller only where nothing else fits.

    Parameters
    ----------
    model : torch.nn.Module
    settings : TrainSettings
    plan : Plan
        What is wanted.
    budget : Budget
    cost_of : callable

    Raises
    ------
    ConfigError
        If no choice fits; the message says what the smallest one needs.
    """
    cost = cost_of(plan)
    if budget.fits(cost, model, plan.micro_batch_size):
        return plan
    choices = list(_smaller_passes(plan, cost))
    if settings.checkpoint_modules == "auto":
        choices += _checkpoint_choices(model, plan, cost_of)
    fitting = [c for c in choices if budget.fits(c.cost, model, c.plan.micro_batch_size)]
    if not fitting:
        raise ConfigError(_refusal(model, settings, budget, choices))
    slow = _CHANGED_RESULT if _normalises_batches(model) else 1.0
    return min(fitting, key=lambda c: c.time(plan.micro_batch_size, slow)).plan


@dataclass(frozen=True)
class _Choice:
    plan: Plan
    cost: MemoryCost
    recomputes: bool = False

    def time(self, wanted: int, slow: float) -> float:
        """Relative time of an example."""
        micro = self.plan.micro_batch_size
        factor = (_RECOMPUTE if self.recomputes else 1.0) * (slow if micro < wanted else 1.0)
        return factor * (1 + _PASS_EXAMPLES / micro)


def _smaller_passes(
    plan: Plan, cost: MemoryCost, recomputes: bool = False
) -> Iterator[_Choice]:
    """Yield the plan with the batch in 1, 2, 3, ... passes of nearly equal size."""
    sizes = {math.ceil(plan.batch_size / passes) for passes in range(1, plan.batch_size + 1)}
    for size in sorted(sizes, reverse=True):
        if size <= plan.micro_batch_size:
            yield _Choice(replace(plan, micro_batch_size=size), cost, recomputes)


def _checkpoint_choices(model: nn.Module, plan: Plan, cost_of: CostFn) -> Iterator[_Choice]:
    for modules in segment_choices(model):
        other = replace(plan, checkpoint_modules=modules)
        yield from _smaller_passes(other, cost_of(other), recomputes=True)


def _normalises_batches(model: nn.Module) -> bool:
    kinds = nn.modules.batchnorm._BatchNorm
    return any(isinstance(module, kinds) for module in model.modules())


def _refusal(
    model: nn.Module, settings: TrainSettings, budget: Budget, choices: list[_Choice]
) -> str:
    least = min(budget.needs(c.cost, model, c.plan.micro_batch_size) for c in choices)
    hint = "" if settings.checkpoint_modules else "; train.checkpoint-modules = 'auto' may help"
    return (
        f"train.memory-limit-mb = {settings.memory_limit_mb} cannot be kept: the process takes "
        f"{_mb(budget.used)} MB before it trains, and would need {_mb(least)} MB to train with "
        f"passes of one example{hint}"
    )


def _mb(count: int) -> int:
    return math.ceil(count / MEGA)
