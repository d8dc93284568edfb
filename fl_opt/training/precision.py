"""Numbers of fewer bits where products are computed, if that is faster here.

Weights, gradients and sums stay float32. bfloat16 has the range of float32 and needs nothing
else; with float16 small gradients would vanish, so the loss is scaled up before the backward
pass and the gradient down again (Micikevicius et al. 2018, "Mixed Precision Training"). On
CPUs without instructions for it either is slower than float32, often by a lot.
"""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn

from fl_opt.cache.remembered import remember
from fl_opt.config import TrainSettings
from fl_opt.data import AnyExamples
from fl_opt.training.plan import Plan, Precision, trial_plan
from fl_opt.training.trials import trial_key

_FIRST_SCALE = 2.0**12
"""Of the loss in fp16. Torch's own first scale overflows for some steps, of which clients have
few in a round."""
_STEPS, _TURNS = 3, 3
_WORTH = 0.95
"""What time must fall to before fewer bits are used."""


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return a context in which products are computed with a precision."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype)


def build_scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler:
    """Build what scales the loss for fp16; for others it does nothing.

    A step whose gradient is not finite is left out, and the scale halved.
    """
    return torch.amp.GradScaler(
        device.type, init_scale=_FIRST_SCALE, enabled=precision == "fp16"
    )


def fastest_precision(
    model: nn.Module,
    examples: AnyExamples,
    settings: TrainSettings,
    *,
    batch_size: int,
    folder: Path,
) -> Precision:
    """Find the precision in which a few steps take the least time.

    Fewer bits have to save at least a twentieth of the time, and to keep the loss finite. What
    is found is remembered for the device and the model.

    Parameters
    ----------
    model : torch.nn.Module
        On the device to train on; copies of it are trained.
    examples : Examples or StreamedExamples
        At least one.
    settings : TrainSettings
    batch_size : int
        At least 1.
    folder : Path
        Of the cache; see :func:`~fl_opt.cache.cache_folder`.
    """
    kinds = _kinds(next(model.parameters()).device)
    key = {**trial_key(model, examples, settings), "batch_size": batch_size}
    found: Precision = remember(
        folder,
        "precision",
        key,
        lambda: _search(model, examples, settings, kinds, batch_size),
        usable=lambda value: value in kinds,
    )
    return found


def _kinds(device: torch.device) -> tuple[Precision, ...]:
    return ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")


def _search(
    model: nn.Module,
    examples: AnyExamples,
    settings: TrainSettings,
    kinds: tuple[Precision, ...],
    batch_size: int,
) -> Precision:
    plan = trial_plan(settings, batch_size)
    seconds = dict.fromkeys(kinds, float("inf"))
    for _ in range(_TURNS):  # in turns: what else the machine does is then alike for all
        for kind in kinds:
            seconds[kind] = min(seconds[kind], _trial(model, examples, settings, plan, kind))
    best = min(kinds, key=seconds.__getitem__)
    return best if seconds[best] < _WORTH * seconds["fp32"] else "fp32"


def _trial(
    model: nn.Module,
    examples: AnyExamples,
    settings: TrainSettings,
    plan: Plan,
    precision: Precision,
) -> float:
    """Return the seconds that a few steps take, infinite if the loss is not finite."""
    from fl_opt.training.trainer import train  # which computes through this module

    plan = Plan(plan.batch_size, plan.batch_size, precision, plan.checkpoint_modules)
    once = settings.model_copy(update={"local_steps": _STEPS, "compile": False})
    duplicate = copy.deepcopy(model)
    train(duplicate, examples, once.model_copy(update={"local_steps": 1}), seed=0, plan=plan)
    begin = time.perf_counter()
    result = train(duplicate, examples, once, seed=0, plan=plan)  # reads the loss: waits
    seconds = time.perf_counter() - begin
    finite = result.loss == result.loss and abs(result.loss) != float("inf")
    return seconds if finite else float("inf")
