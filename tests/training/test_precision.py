"""Fewer bits: near the results of float32, and used only where they are faster."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import Examples
from fl_opt.training import evaluate, train
from fl_opt.training import precision as module
from fl_opt.training.plan import Plan, Precision
from fl_opt.training.precision import fastest_precision
from tests.training.tasks import separable

SETTINGS = TrainSettings(local_epochs=4, batch_size=16, learning_rate=0.2, momentum=0.0)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def small() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 3))


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def trained(precision: Precision, model: nn.Module, examples: Examples) -> nn.Module:
    model = copy.deepcopy(model)
    train(model, examples, SETTINGS, seed=1, plan=Plan(16, 16, precision))
    return model


def found(model: nn.Module, folder: Path) -> Precision:
    return fastest_precision(model, separable(32), SETTINGS, batch_size=16, folder=folder)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_products_are_rounded_and_weights_are_not(precision: Precision) -> None:
    seen: list[torch.dtype] = []
    model, examples = small(), separable(200)
    model[2].register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    rounded = trained(precision, model, examples)
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert {p.dtype for p in rounded.parameters()} == {torch.float32}
    full = trained("fp32", model, examples)
    a, b = (evaluate(m, examples) for m in (rounded, full))
    assert a.loss == pytest.approx(b.loss, abs=0.02)
    assert a.accuracy > 0.8


def test_a_gradient_that_vanishes_in_fp16_is_kept_by_scaling() -> None:
    """Gradients of 1e-9 are 0 in float16, whose smallest number is 6e-8."""
    examples = Examples(separable(64).inputs * 1e-6, separable(64).targets)
    model = small()
    settings = SETTINGS.model_copy(update={"local_steps": 1, "learning_rate": 1e3})
    steps = []
    kinds: tuple[Precision, ...] = ("fp32", "fp16")
    for precision in kinds:
        moved = copy.deepcopy(model)
        train(moved, examples, settings, seed=1, plan=Plan(64, 64, precision))
        steps.append(weights(moved)[:256] - weights(model)[:256])
    assert steps[0].any()
    torch.testing.assert_close(
        steps[1], steps[0], rtol=0.1, atol=float(steps[0].abs().max()) / 20
    )


def test_a_step_that_overflows_in_fp16_is_left_out() -> None:
    examples = Examples(separable(64).inputs * 1e6, separable(64).targets)
    model = small()
    before = copy.deepcopy(model.state_dict())
    settings = SETTINGS.model_copy(update={"local_steps": 1})
    train(model, examples, settings, seed=1, plan=Plan(64, 64, "fp16"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"fp32": 1.0, "bf16": 0.9}, "bf16"),
        ({"fp32": 1.0, "bf16": 0.97}, "fp32"),
        ({"fp32": 1.0, "bf16": 3.0}, "fp32"),
        ({"fp32": 1.0, "bf16": float("inf")}, "fp32"),
    ],
)
def test_fewer_bits_have_to_be_worth_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: dict[str, float], expected: str
) -> None:
    monkeypatch.setattr(module, "_trial", lambda *arguments: seconds[arguments[-1]])
    assert found(small(), tmp_path) == expected


def test_a_trial_is_made_once_for_a_device_and_a_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_trial", lambda *a: 0.1 if a[-1] == "bf16" else 1.0)
    assert found(small(), tmp_path) == "bf16"
    monkeypatch.setattr(module, "_trial", lambda *a: 0.1 if a[-1] == "fp32" else 1.0)
    assert found(small(), tmp_path) == "bf16"
    assert found(nn.Sequential(nn.Linear(8, 3)), tmp_path) == "fp32"
    assert found(small(), tmp_path / "another") == "fp32"


def test_the_trial_is_real_and_leaves_the_model_alone(tmp_path: Path) -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    assert found(model, tmp_path) in {"fp32", "bf16"}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_cuda_device(precision: Precision) -> None:
    examples = separable(200)
    model = trained(precision, small().to("cuda"), examples)
    assert evaluate(model, examples).accuracy > 0.8
