from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fl_opt.data import Examples
from fl_opt.training import EvaluationResult, evaluate
from tests.training.tasks import linear_model, separable


def test_batches_give_the_mean_over_all_examples() -> None:
    examples = separable(1300)  # two full batches and a smaller one
    model = linear_model()
    with torch.no_grad():
        next(model.parameters())[:, :3] = torch.eye(3) * 0.3
    logits = model(examples.inputs)
    result = evaluate(model, examples)
    loss = nn.functional.cross_entropy(logits, examples.targets).item()
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert result.accuracy == 1.0
    assert result.num_examples == 1300


def test_no_examples() -> None:
    empty = Examples(torch.empty(0, 8), torch.empty(0, dtype=torch.int64))
    assert evaluate(linear_model(), empty) == EvaluationResult(0.0, 0.0, 0)


@pytest.mark.parametrize("mode", [True, False])
def test_dropout_is_off_and_the_mode_stays(mode: bool) -> None:
    model = nn.Sequential(nn.Dropout(0.99), linear_model()).train(mode)
    with torch.no_grad():
        nn.utils.vector_to_parameters(torch.linspace(-1, 1, 27), model.parameters())
    assert evaluate(model, separable(100)) == evaluate(model, separable(100))
    assert model.training is mode


def test_a_diverged_model_is_not_hidden() -> None:
    model = linear_model()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    assert math.isnan(evaluate(model, separable(10)).loss)
