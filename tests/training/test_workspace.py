"""What is kept between rounds changes no result."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.training import train
from fl_opt.training.workspace import workspace_of
from tests.training.tasks import separable


def small() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def flat(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_an_optimizer_forgets_what_it_learned_in_another_round(optimizer: str) -> None:
    settings = TrainSettings(optimizer=optimizer, learning_rate=0.01, local_epochs=2)  # type: ignore[arg-type]
    start, examples = small(), separable(40)
    used = copy.deepcopy(start)
    train(used, examples, settings, seed=5)
    assert not torch.equal(flat(used), flat(start))
    kept = workspace_of(used, settings)
    used.load_state_dict(start.state_dict())
    train(used, examples, settings, seed=6)
    assert workspace_of(used, settings) is kept
    fresh = copy.deepcopy(start)
    train(fresh, examples, settings, seed=6)
    assert torch.equal(flat(used), flat(fresh))


def test_other_settings_get_another_optimizer() -> None:
    model = small()
    first = workspace_of(model, TrainSettings(learning_rate=0.1))
    second = workspace_of(model, TrainSettings(learning_rate=0.2))
    assert second is not first
    assert second.optimizer.param_groups[0]["lr"] == 0.2


def test_a_model_that_was_changed_gets_another() -> None:
    model, settings = small(), TrainSettings()
    first = workspace_of(model, settings)
    model[0] = nn.Linear(8, 6)
    second = workspace_of(model, settings)
    assert second is not first
    model[0].requires_grad_(False)
    assert workspace_of(model, settings).weights.numel() < second.weights.numel()
    model.zero_grad(set_to_none=True)
    assert workspace_of(model, settings) is not second


def test_a_copy_has_its_own() -> None:
    model, settings = small(), TrainSettings()
    first = workspace_of(model, settings)
    other = workspace_of(copy.deepcopy(model), settings)
    assert other.weights.data_ptr() != first.weights.data_ptr()


def test_models_are_not_kept_alive() -> None:
    model = small()
    train(model, separable(20), TrainSettings(local_epochs=1), seed=1)
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None
