"""Parameters as one tensor: the model works as before, on shared memory."""

from __future__ import annotations

import torch
from torch import nn

from fl_opt.training.flat import flatten_parameters
from fl_opt.training.threads import choose_threads


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def test_parameters_and_gradients_are_views_of_one_tensor() -> None:
    model = small_model()
    inputs = torch.randn(5, 3)
    before = model(inputs)
    expected = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    flat = flatten_parameters(model)
    torch.testing.assert_close(flat.detach(), expected)
    torch.testing.assert_close(model(inputs), before)
    model(inputs).square().sum().backward()
    gradients = torch.cat(
        [p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]
    )
    assert flat.grad is not None
    torch.testing.assert_close(flat.grad, gradients)
    assert flat.grad.any()
    with torch.no_grad():
        flat.zero_()
    assert not any(p.any() for p in model.parameters())


def test_frozen_parameters_stay_out() -> None:
    model = small_model()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.data_ptr()
    assert flatten_parameters(model).numel() == 4 + 4 + 4 + 8
    assert model[0].weight.data_ptr() == frozen


def test_tied_parameters_are_laid_out_once() -> None:
    model = nn.ModuleDict({"into": nn.Embedding(6, 4), "out": nn.Linear(4, 6, bias=False)})
    model["out"].weight = model["into"].weight
    flat = flatten_parameters(model)
    assert flat.numel() == 24
    with torch.no_grad():
        flat.fill_(2.0)
    assert (model["out"].weight == 2.0).all()


def test_flattening_again_keeps_the_values() -> None:
    model = small_model()
    first = flatten_parameters(model).detach().clone()
    torch.testing.assert_close(flatten_parameters(model).detach(), first)


def test_small_models_get_one_thread_and_large_ones_keep_theirs() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert choose_threads(nn.Linear(400, 400)) == 2
        assert choose_threads(small_model()) == 1
    finally:
        torch.set_num_threads(before)
