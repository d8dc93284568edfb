"""What is given up, and in which order, to keep a memory limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import StreamedExamples
from fl_opt.errors import ConfigError
from fl_opt.profiling.memory import resident_bytes
from fl_opt.training.limit import Budget, fit_plan, free_budget, limit_budget
from fl_opt.training.memory import MEGA, MemoryCost, needed_bytes
from fl_opt.training.plan import Plan
from tests.training.tasks import linear_model, separable

WANTED = Plan(64, 64)
USED = 100 * MEGA


def deep_model(*extra: nn.Module) -> nn.Module:
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(9)), *extra)


def cost_of(plan: Plan) -> MemoryCost:
    """Ten megabytes an example, one with checkpoints."""
    return MemoryCost(((0.0, 1e6 if plan.checkpoint_modules else 1e7),))


def budget_for(plan: Plan, model: nn.Module) -> Budget:
    """A budget that this plan just fits."""
    needs = needed_bytes(cost_of(plan), model, 0, plan.micro_batch_size)
    return Budget(USED + needs, USED, 0)


def fitted(just: Plan, model: nn.Module, wanted: Plan = WANTED, modules: str = "auto") -> Plan:
    settings = TrainSettings(checkpoint_modules=modules, memory_limit_mb=1)
    return fit_plan(model, settings, wanted, budget_for(just, model), cost_of)


def test_what_fits_is_not_changed() -> None:
    wanted = replace(WANTED, precision="bf16")
    assert fitted(wanted, deep_model(), wanted) == wanted


@pytest.mark.parametrize(
    ("room", "passes_of"), [(63, 32), (32, 32), (31, 22), (22, 22), (7, 7)]
)
def test_passes_get_smaller_and_equal(room: int, passes_of: int) -> None:
    plan = fitted(Plan(64, room), deep_model())
    assert plan == Plan(64, passes_of)


def test_passes_are_no_larger_than_asked_for() -> None:
    assert fitted(Plan(64, 20), deep_model(), Plan(64, 10)) == Plan(64, 10)
    assert fitted(Plan(64, 9), deep_model(), Plan(64, 10)) == Plan(64, 8)


def test_checkpoints_where_passes_would_be_very_small() -> None:
    plan = fitted(Plan(64, 3), deep_model())
    assert plan.checkpoint_modules
    assert plan.micro_batch_size == 22  # the largest of at most 30 that divides evenly


@pytest.mark.parametrize("modules", ["", "0, 1"])
def test_checkpoints_only_where_they_are_left_open(modules: str) -> None:
    wanted = replace(WANTED, checkpoint_modules=modules)
    just = replace(wanted, micro_batch_size=3)
    assert fitted(just, deep_model(), wanted, modules) == just


def test_batch_normalisation_sees_the_whole_batch_if_it_can() -> None:
    model = deep_model(nn.BatchNorm1d(8))
    plan = fitted(Plan(64, 32), model)
    assert plan.micro_batch_size == 64
    assert plan.checkpoint_modules
    assert fitted(Plan(64, 3), model).micro_batch_size < 64


def test_what_cannot_be_kept_is_refused_with_what_it_needs() -> None:
    model = linear_model()
    settings = TrainSettings(memory_limit_mb=123)
    needs = USED + needed_bytes(cost_of(WANTED), model, 0, 1)
    with pytest.raises(
        ConfigError,
        match=r"train.memory-limit-mb = 123 cannot be kept: the process takes 100 MB before "
        rf"it trains, and would need {-(-needs // MEGA)} MB to train with passes of one "
        "example; train.checkpoint-modules = 'auto' may help$",
    ):
        fit_plan(model, settings, WANTED, Budget(needs - 1, USED, 0), cost_of)
    assert fit_plan(model, settings, WANTED, Budget(needs, USED, 0), cost_of) == Plan(64, 1)


def test_the_limit_is_of_the_whole_process_and_covers_the_batches() -> None:
    examples = separable(50)
    settings = TrainSettings(memory_limit_mb=700)
    budget = limit_budget(linear_model(), examples, settings, batch_size=1_000_000)
    assert budget.limit == 700 * MEGA
    assert budget.used == pytest.approx(resident_bytes(), rel=0.1)
    assert budget.data_bytes == 2 * 1_000_000 * (8 * 4 + 8)
    streamed = StreamedExamples(examples, torch.arange(50))
    assert free_budget(linear_model(), streamed, 10**6).data_bytes == 2 * budget.data_bytes


def test_free_memory_leaves_half_of_it() -> None:
    budget = free_budget(linear_model(), separable(50), 32)
    assert budget.used < budget.limit
    cost = MemoryCost(((0.0, 1e12),))
    assert not budget.fits(cost, linear_model(), 1)
