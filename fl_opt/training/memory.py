"""How much memory training takes, found by measuring a few small steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import AnyExamples, Examples
from fl_opt.errors import ConfigError
from fl_opt.profiling.allocations import allocation_timeline
from fl_opt.training.plan import Plan

MEGA = 1_000_000

_SIZES = (8, 16)
"""Batches that are measured: large enough for the operators that real ones use."""

# What is taken beyond torch's allocations, as a share of them: gaps between blocks. In glibc's
# heap it was up to 0.9 where activations are a few hundred kilobytes to a few megabytes; the
# allocator of CUDA has larger blocks.
_GAPS = {"cpu": 1.2, "cuda": 0.2}
# What libraries beneath torch take for themselves while they compute.
_UNSEEN_BYTES = 24 * MEGA
# Copies of the model that a round needs beside training: the reference, the arrays that go in
# and out, the update and what encoding makes of it. They replace activations, not join them.
_MODEL_COPIES = 6


@dataclass(frozen=True)
class MemoryCost:
    """What a training step allocates, for any number of examples.

    Attributes
    ----------
    lines : tuple of (float, float)
        Bytes at a fixed cost and per example, for each moment that can be the peak; the peak
        is the highest of them, as each allocation grows in proportion to the examples or
        not at all.
    """

    lines: tuple[tuple[float, float], ...]

    def peak(self, num_examples: int) -> int:
        """Return the peak of torch's allocations beyond those before training, in bytes.

        Gradients, the state of the optimizer, activations and temporaries are in it.
        """
        return round(max(fixed + slope * num_examples for fixed, slope in self.lines))

    @property
    def bytes_per_example(self) -> float:
        """What another example adds to a large batch."""
        return max(slope for _, slope in self.lines)


def measure_memory(
    model: nn.Module,
    examples: AnyExamples,
    settings: TrainSettings,
    plan: Plan,
    *,
    sizes: tuple[int, int] = _SIZES,
) -> MemoryCost:
    """Measure what training takes, by one step with each of two small batches.

    The two steps allocate the same things in the same order, so that each point in time gives
    a line; where they do not, the cost is taken to be all in proportion to the examples.

    Parameters
    ----------
    model : torch.nn.Module
        On a CPU or CUDA device; a copy of it is trained.
    examples : Examples or StreamedExamples
        At least one; they are used again where a batch needs more.
    settings : TrainSettings
    plan : Plan
        Its precision and checkpoints are used; its batch sizes are not.
    sizes : (int, int)
        The batches, in increasing order.

    Raises
    ------
    ConfigError
        If the allocations of this type of device cannot be followed, or ``plan`` names modules
        that do not exist.
    """
    device = next(model.parameters()).device
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"memory of device {device.type!r} cannot be measured, only that of cpu and cuda; "
            "set train.memory-limit-mb to 0 and train.batch-size to a number"
        )

    def timeline(size: int) -> NDArray[np.int64]:
        batch = first_examples(examples, size)
        return allocation_timeline(lambda: one_step(model, batch, settings, plan), device)

    small, large = map(timeline, sizes)
    return MemoryCost(_highest(_lines(small, large, sizes)))


def needed_bytes(cost: MemoryCost, model: nn.Module, data_bytes: int, num_examples: int) -> int:
    """Return what training needs beyond what the process has, on the safe side.

    Parameters
    ----------
    cost : MemoryCost
    model : torch.nn.Module
    data_bytes : int
        Of the batches that are being read.
    num_examples : int
        Of one forward and backward pass.
    """
    gaps = _GAPS[next(model.parameters()).device.type]
    peak = cost.peak(num_examples) * (1 + gaps) + data_bytes
    return round(max(peak, _MODEL_COPIES * model_bytes(model)) + _UNSEEN_BYTES)


def model_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers."""
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def are_lines(value: Any) -> bool:
    """Whether a plain value can be the lines of a :class:`MemoryCost`."""

    def is_line(item: Any) -> bool:
        return (
            isinstance(item, list)
            and len(item) == 2
            and all(
                isinstance(number, int | float) and math.isfinite(number) for number in item
            )
        )

    return isinstance(value, list) and bool(value) and all(map(is_line, value))


def first_examples(examples: AnyExamples, count: int) -> Examples:
    """Return the first ``count`` examples, from the beginning again where there are fewer."""
    return examples.subset(torch.arange(count) % len(examples))


def one_step(model: nn.Module, batch: Examples, settings: TrainSettings, plan: Plan) -> None:
    """Train a copy of a model for one step, with the whole batch in one pass."""
    from fl_opt.training.trainer import train  # which plans through this module

    once = settings.model_copy(update={"local_steps": 1, "compile": False})
    alone = replace(plan, batch_size=len(batch), micro_batch_size=len(batch))
    duplicate = copy.deepcopy(model)
    # A hook keeps to the way through torch, whose allocations can be followed; it takes no
    # less memory than others.
    duplicate.register_forward_hook(_leave_as_it_is)
    train(duplicate, batch, once, seed=0, plan=alone)


def _leave_as_it_is(module: nn.Module, inputs: object, outputs: object) -> None:
    """Hook that does nothing."""


def _lines(
    small: NDArray[np.int64], large: NDArray[np.int64], sizes: tuple[int, int]
) -> list[tuple[float, float]]:
    few, many = sizes
    if len(small) != len(large):
        return [(float(large.max()), 0.0), (0.0, float(large.max()) / many)]
    slopes = (large - small) / (many - few)
    fixed = large - slopes * many
    return list(zip(fixed.tolist(), slopes.tolist(), strict=True))


def _highest(lines: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Leave out lines that are nowhere the highest, from one example on."""
    upper: list[tuple[float, float]] = []
    best = -np.inf
    # By falling height at one example: later lines matter if they rise faster.
    for fixed, slope in sorted(lines, key=lambda line: (-sum(line), -line[1])):
        if slope > best:
            upper.append((fixed, slope))
            best = slope
    return tuple(upper)
