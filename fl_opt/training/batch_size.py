"""The batch size that trains fastest here: a short search, remembered."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fl_opt.cache.remembered import remember
from fl_opt.config import TrainSettings
from fl_opt.data import AnyExamples
from fl_opt.training.plan import trial_plan
from fl_opt.training.trials import trial_key

_SMALLEST, LARGEST = 16, 512
_FEWEST_BATCHES = 2
"""Batches that a client's examples must make: one step an epoch is not training."""

_TURNS = 3
_SECONDS = 3.0
_SAMPLES = 256
_STEPS = (4, 16)
_HOPELESS = 0.7
_AS_GOOD = 0.95


def find_batch_size(
    model: nn.Module,
    examples: AnyExamples,
    settings: TrainSettings,
    *,
    fits: Callable[[int], bool],
    folder: Path,
) -> int:
    """Return the batch size with the most samples a second, of those that fit.

    16, 32, ... up to 512 are tried, and to half of the client's examples, for a few seconds
    altogether, in turns; what is found is remembered for the device and the model. Of sizes
    within 5% of the fastest the smallest is taken: it makes more steps of the same examples.
    The learning rate stays as it is set.

    Parameters
    ----------
    model : torch.nn.Module
        Copies of it are trained.
    examples : Examples or StreamedExamples
        At least one.
    settings : TrainSettings
    fits : callable
        Whether a batch of so many examples fits into memory; asked in rising order until it
        does not.
    folder : Path
        Of the cache.
    """
    sizes: list[int] = []
    for size in candidate_sizes(len(examples)):
        if sizes and not fits(size):
            break
        sizes.append(size)
    if len(sizes) == 1:
        return sizes[0]

    def find() -> dict[str, float]:
        speeds = measure_speeds(model, examples, settings, sizes)
        return {str(size): speed for size, speed in speeds.items()}

    key = {**trial_key(model, examples, settings), "sizes": sizes}
    key["micro_batch_size"] = settings.micro_batch_size
    found = remember(folder, "batch-size", key, find, usable=_are_speeds)
    return smallest_of_the_fastest({int(size): speed for size, speed in found.items()})


def candidate_sizes(num_examples: int) -> list[int]:
    """Return 16 and its doubles up to 512, as far as there are two batches; at least one."""
    most = max(1, min(LARGEST, num_examples // _FEWEST_BATCHES))
    doubles = math.floor(math.log2(LARGEST / _SMALLEST))
    sizes = [_SMALLEST * 2**power for power in range(doubles + 1)]
    return [size for size in sizes if size <= most] or [most]


def smallest_of_the_fastest(speeds: dict[int, float]) -> int:
    """Return the smallest size whose samples a second are within 5% of the best."""
    best = max(speeds.values())
    return min(size for size, speed in speeds.items() if speed >= _AS_GOOD * best)


def measure_speeds(
    model: nn.Module,
    examples: AnyExamples,
    settings: TrainSettings,
    sizes: Iterable[int],
    *,
    seconds: float = _SECONDS,
    hopeless: float = _HOPELESS,
) -> dict[int, float]:
    """Measure samples a second for batch sizes, in turns, the best turn of each.

    Parameters
    ----------
    model : torch.nn.Module
        Copies of it are trained.
    examples : Examples or StreamedExamples
    settings : TrainSettings
    sizes : iterable of int
        In rising order.
    seconds : float
        No size is begun later than this.
    hopeless : float
        The search ends at a size with less than this share of the best speed so far.

    Returns
    -------
    dict of int to float
        At least the first size is there.
    """
    end = time.perf_counter() + seconds
    speeds: dict[int, float] = {}
    for size in sizes:
        if speeds and time.perf_counter() > end:
            break
        speed_of(model, examples, settings, size, steps=1)  # what is set up once
        speeds[size] = speed_of(model, examples, settings, size)
        if speeds[size] < hopeless * max(speeds.values()):
            break
    for _ in range(_TURNS - 1):
        for size, best in speeds.items():
            if time.perf_counter() > end:
                return speeds
            speeds[size] = max(best, speed_of(model, examples, settings, size))
    return speeds


def speed_of(
    model: nn.Module,
    examples: AnyExamples,
    settings: TrainSettings,
    size: int,
    *,
    steps: int | None = None,
) -> float:
    """Train a copy of a model for some steps, and return samples a second."""
    from fl_opt.training.trainer import train  # which plans through this module

    steps = steps or min(max(_SAMPLES // size, _STEPS[0]), _STEPS[1])
    micro = min(settings.micro_batch_size or size, size)
    plan = trial_plan(settings, size)
    some = examples.batch(0, min(len(examples), steps * size))
    few = settings.model_copy(update={"local_steps": steps, "compile": False})
    plan = replace(plan, micro_batch_size=micro)
    result = train(copy.deepcopy(model), some, few, seed=0, plan=plan)
    return result.num_samples / result.seconds


def _are_speeds(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(size.isdecimal() and int(size) > 0 for size in value)
        and all(isinstance(speed, float) and speed > 0 for speed in value.values())
    )
