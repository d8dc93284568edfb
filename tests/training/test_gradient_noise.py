"""The noise scale of gradients, against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fl_opt.data import Examples
from fl_opt.training.gradient_noise import examples_for_same_progress, gradient_noise_scale
from fl_opt.training.loss import prediction_loss
from tests.training.tasks import linear_model, separable


def exact_noise_scale(model: nn.Module, examples: Examples) -> float:
    """tr(S) / |G|^2, from the gradient of each example."""
    rows = []
    for row in range(len(examples)):
        one = examples.batch(row, row + 1)
        found = torch.autograd.grad(
            prediction_loss(model(one.inputs), one.targets), list(model.parameters())
        )
        rows.append(torch.cat([g.flatten() for g in found]).double())
    gradients = torch.stack(rows)
    mean = gradients.mean(dim=0)
    return float((gradients - mean).square().sum(dim=1).mean() / mean.square().sum())


@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_agrees_with_its_definition(spread: float) -> None:
    torch.manual_seed(0)
    examples = separable(60)
    model = linear_model()
    with torch.no_grad():
        next(model.parameters()).copy_(spread * torch.randn(3, 8))
    expected = exact_noise_scale(model, examples)
    found = gradient_noise_scale(model, examples, seed=1, small=4, parts=32, repeats=64)
    assert found == pytest.approx(expected, rel=0.15)
    assert gradient_noise_scale(model, examples, seed=1) == pytest.approx(expected, rel=0.5)


def test_examples_that_are_all_alike_have_no_noise() -> None:
    one = separable(1)
    examples = one.subset(torch.zeros(20, dtype=torch.int64))
    assert gradient_noise_scale(linear_model(), examples, seed=1) == pytest.approx(0, abs=1e-9)


def test_a_gradient_that_is_all_noise_is_said_to_be() -> None:
    """Where the loss is at its minimum the mean gradient is zero."""
    inputs = torch.ones(3, 8)
    examples = Examples(inputs, torch.arange(3))
    scales = [
        gradient_noise_scale(linear_model(), examples, seed=seed, small=3, parts=2, repeats=2)
        for seed in range(20)
    ]
    # The estimate of |G|^2 = 0 is without bias, so that it is often below 0.
    assert scales.count(math.inf) >= 5


def test_a_model_that_diverged_has_none() -> None:
    model = linear_model()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    assert math.isnan(gradient_noise_scale(model, separable(20), seed=1))


def test_depends_on_the_seed_alone_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    model[1].register_parameter("unused", nn.Parameter(torch.ones(2)))
    scales = []
    for seed in (1, 1, 2):
        torch.rand(1)
        state = torch.get_rng_state()
        scales.append(gradient_noise_scale(model, separable(50), seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
    assert scales[0] == scales[1] != scales[2]
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_what_a_batch_needs_for_the_same_progress() -> None:
    assert examples_for_same_progress(32, 64.0) == 1.5
    assert examples_for_same_progress(32, math.inf) == 1.0
    assert examples_for_same_progress(32, 0.0) == math.inf
