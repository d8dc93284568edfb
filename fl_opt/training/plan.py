"""How a client trains on this machine: what the settings leave to be found out."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import AnyExamples
from fl_opt.errors import ConfigError

if TYPE_CHECKING:
    from fl_opt.training.limit import Budget
    from fl_opt.training.memory import MemoryCost

_logger = logging.getLogger(__name__)
_MOST_PLANS = 1000

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Plan:
    """Sizes and kinds that are left to choose where settings say ``auto``.

    Attributes
    ----------
    batch_size : int
        Examples of an optimizer step.
    micro_batch_size : int
        Examples of a forward and backward pass, at most ``batch_size``.
    precision : {"fp32", "bf16", "fp16"}
        Of matrix products and convolutions; weights are float32.
    checkpoint_modules : str
        Modules whose activations are computed again: comma-separated patterns of names.
    """

    batch_size: int
    micro_batch_size: int
    precision: Precision = "fp32"
    checkpoint_modules: str = ""


def fixed_plan(settings: TrainSettings) -> Plan:
    """Return the plan of settings that leave nothing open.

    Raises
    ------
    ConfigError
        If something is ``auto``.
    """
    if settings.batch_size == "auto" or settings.precision == "auto":
        raise ConfigError("batch-size or precision is 'auto': it has to be found first")
    size = settings.batch_size
    micro = min(settings.micro_batch_size or size, size)
    patterns = "" if settings.checkpoint_modules == "auto" else settings.checkpoint_modules
    return Plan(size, micro, settings.precision, patterns)


def trial_plan(settings: TrainSettings, size: int) -> Plan:
    """Return a plan for batches of one size that leaves nothing open: float32 for ``auto``."""
    precision = "fp32" if settings.precision == "auto" else settings.precision
    modules = "" if settings.checkpoint_modules == "auto" else settings.checkpoint_modules
    return Plan(size, size, precision, modules)


def find_plan(
    model: nn.Module, examples: AnyExamples, settings: TrainSettings, *, folder: Path
) -> Plan:
    """Return how to train a model on this machine, by trials where the settings ask for them.

    What trials show is remembered on disk; the plan is kept while the process runs, so that a
    client trains alike in every round. A choice that was made is logged.

    Parameters
    ----------
    model : torch.nn.Module
        On the device that it is to be trained on. Left as it is: copies are trained.
    examples : Examples or StreamedExamples
        The client's, at least one.
    settings : TrainSettings
    folder : Path
        Of the cache; see :func:`~fl_opt.cache.cache_folder`.

    Raises
    ------
    ConfigError
        If ``memory_limit_mb`` cannot be kept, or ``checkpoint_modules`` names no module.

    Notes
    -----
    Without a limit, a batch size that is ``auto`` may use half of the memory that is free.
    """
    if not (
        settings.memory_limit_mb
        or settings.batch_size == "auto"
        or settings.precision == "auto"
    ):
        return fixed_plan(settings)
    from fl_opt.training.trials import trial_key

    place = {**trial_key(model, examples, settings), **settings.model_dump()}
    key = json.dumps({**place, "examples": len(examples)}, sort_keys=True)
    if key not in _plans:
        plan = _search(model, examples, settings, folder)
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[key] = plan
        _logger.info("training by %s", plan)
    return _plans[key]


_plans: dict[str, Plan] = {}


def _search(
    model: nn.Module, examples: AnyExamples, settings: TrainSettings, folder: Path
) -> Plan:
    """Choose batch size, precision, passes and checkpoints, in that order."""
    from fl_opt.training.batch_size import LARGEST, find_batch_size
    from fl_opt.training.limit import fit_plan, free_budget, limit_budget

    def cost_of(plan: Plan) -> MemoryCost:
        return _remembered_cost(model, examples, settings, plan, folder)

    size = settings.batch_size
    limited = bool(settings.memory_limit_mb)
    budget: Budget | None = None
    if limited or size == "auto":
        largest = LARGEST if size == "auto" else size
        budget = (
            limit_budget(model, examples, settings, largest)
            if limited
            else free_budget(model, examples, largest)
        )
    if size == "auto":
        assert budget is not None  # noqa: S101 -- made above
        fits = budget.fits
        at_once = trial_plan(settings, 1)
        size = find_batch_size(
            model,
            examples,
            settings,
            fits=lambda n: fits(
                cost_of(at_once), model, min(n, settings.micro_batch_size or n)
            ),
            folder=folder,
        )
    precision = settings.precision
    if precision == "auto":
        from fl_opt.training.precision import fastest_precision

        precision = fastest_precision(model, examples, settings, batch_size=size, folder=folder)
    known = settings.model_copy(update={"batch_size": size, "precision": precision})
    plan = fixed_plan(known)
    if limited and budget is not None:
        plan = fit_plan(model, settings, plan, budget, cost_of)
    return plan


def _remembered_cost(
    model: nn.Module, examples: AnyExamples, settings: TrainSettings, plan: Plan, folder: Path
) -> MemoryCost:
    from fl_opt.cache.remembered import remember
    from fl_opt.training.memory import MemoryCost, are_lines, measure_memory
    from fl_opt.training.trials import trial_key

    key: dict[str, Any] = {
        **trial_key(model, examples, settings),
        "precision": plan.precision,
        "checkpoint_modules": plan.checkpoint_modules,
    }
    lines = remember(
        folder,
        "memory",
        key,
        lambda: measure_memory(model, examples, settings, plan).lines,
        usable=are_lines,
    )
    return MemoryCost(tuple((float(fixed), float(slope)) for fixed, slope in lines))
