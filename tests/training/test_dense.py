"""Small networks without autograd: the same gradient, and no model that is not of that form."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fl_opt.training.dense import as_dense_network
from fl_opt.training.flat import flatten_parameters
from fl_opt.training.loss import prediction_loss


def network(*sizes: int, bias: bool = True, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    count=st.integers(1, 9),
    bias=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
    seed=st.integers(0, 1000),
)
def test_gradient_and_loss_are_those_of_autograd(
    sizes: list[int], count: int, bias: bool, scale: float, seed: int
) -> None:
    model = network(*sizes, bias=bias, seed=seed)
    inputs = torch.randn(count, sizes[0]) * scale
    targets = torch.randint(0, sizes[-1], (count,))
    expected = prediction_loss(model(inputs), targets)
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    _, gradient = flatten_parameters(model)
    dense = as_dense_network(model)
    assert dense is not None
    loss = dense(inputs, targets, 1.0)
    assert loss == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    flat = torch.cat([g.reshape(-1) for g in wanted])
    largest = float(flat.abs().max())
    torch.testing.assert_close(gradient, flat, rtol=1e-4, atol=2e-6 * max(largest, 1e-3))


def test_shares_are_added_up() -> None:
    model = network(6, 5, 3)
    inputs, targets = torch.randn(8, 6), torch.randint(0, 3, (8,))
    _, gradient = flatten_parameters(model)
    dense = as_dense_network(model)
    assert dense is not None
    whole = dense(inputs, targets, 1.0)
    at_once = gradient.clone()
    gradient.zero_()
    losses = [dense(inputs[part], targets[part], len(targets[part]) / 8) for part in PARTS]
    torch.testing.assert_close(gradient, at_once, rtol=1e-5, atol=1e-7)
    assert sum(n * v for n, v in zip((3, 5), losses, strict=True)) / 8 == pytest.approx(whole)


PARTS = (slice(0, 3), slice(3, 8))


def test_it_follows_the_models_weights() -> None:
    model = network(4, 3)
    weights, gradient = flatten_parameters(model)
    dense = as_dense_network(model)
    assert dense is not None
    inputs, targets = torch.randn(5, 4), torch.randint(0, 3, (5,))
    with torch.no_grad():
        weights.mul_(3.0)
    assert dense(inputs, targets, 1.0) == pytest.approx(
        prediction_loss(model(inputs), targets).item(), rel=1e-5
    )
    assert gradient.any()


class Doubled(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(inputs)


def hooked() -> nn.Sequential:
    model = network(4, 3)
    model[1].register_forward_hook(lambda *_: None)
    return model


def frozen() -> nn.Sequential:
    model = network(4, 3)
    model[1].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(0.5)),
        nn.Sequential(nn.Flatten(0), nn.Linear(4, 3)),
        nn.Sequential(nn.Conv2d(1, 1, 1)),
        nn.Sequential(),
        nn.Linear(4, 3),
        Doubled(4, 3),
        nn.Sequential(Doubled(4, 3)),
        nn.Sequential(nn.Linear(4, 3)).double(),
        network(400, 400),
        hooked(),
        frozen(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_anything_else_is_left_to_torch(model: nn.Module) -> None:
    model = copy.deepcopy(model)
    if any(parameter.requires_grad for parameter in model.parameters()):
        flatten_parameters(model)
    assert as_dense_network(model) is None
