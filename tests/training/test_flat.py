"""Parameters as one tensor: the model works as before, on shared memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fl_opt.training.flat import clip_norm, flatten_parameters


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def test_parameters_and_gradients_are_views_of_one_tensor() -> None:
    model = small_model()
    inputs = torch.randn(5, 3)
    before = model(inputs)
    expected = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    flat, gradient = flatten_parameters(model)
    torch.testing.assert_close(flat.detach(), expected)
    torch.testing.assert_close(model(inputs), before)
    model(inputs).square().sum().backward()
    parts = [p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(gradient, torch.cat(parts))
    assert flat.grad is gradient
    assert gradient.any()
    with torch.no_grad():
        flat.zero_()
    assert not any(p.any() for p in model.parameters())


def test_frozen_parameters_stay_out() -> None:
    model = small_model()
    frozen = next(model.parameters()).requires_grad_(False)
    address = frozen.data_ptr()
    flat, _ = flatten_parameters(model)
    assert flat.numel() == 4 + 4 + 4 + 8
    assert frozen.data_ptr() == address


def test_tied_parameters_are_laid_out_once() -> None:
    into, out = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
    out.weight = into.weight
    flat, _ = flatten_parameters(nn.ModuleList([into, out]))
    assert flat.numel() == 24
    with torch.no_grad():
        flat.fill_(2.0)
    torch.testing.assert_close(out.weight.detach(), torch.full((6, 4), 2.0))


def test_flattening_again_keeps_the_values() -> None:
    model = small_model()
    first = flatten_parameters(model)[0].detach().clone()
    torch.testing.assert_close(flatten_parameters(model)[0].detach(), first)


@pytest.mark.parametrize("largest", [1e-3, 1.0, 1e3])
def test_clipping_equals_torchs(largest: float) -> None:
    ours = torch.randn(50, generator=torch.Generator().manual_seed(1))
    theirs = nn.Parameter(torch.zeros(50))
    theirs.grad = ours.clone()
    clip_norm(ours, largest)
    nn.utils.clip_grad_norm_(theirs, largest)
    torch.testing.assert_close(ours, theirs.grad)
