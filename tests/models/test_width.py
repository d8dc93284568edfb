"""Narrow models compute what the whole one does with the other hidden units switched off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_opt.data import TaskInfo
from fl_opt.errors import ModelError
from fl_opt.exchange.submodels import cut
from fl_opt.models import build_model
from fl_opt.models.width import is_narrower, narrowed, shapes_of
from fl_opt.params import ParamSpec
from fl_opt.training import get_arrays, set_arrays

INFO = {
    "mlp": TaskInfo("tabular", (12,), 4),
    "cnn": TaskInfo("image", (1, 8, 8), 4),
}


def narrow_of(model: nn.Module, spec_text: str, width: float) -> tuple[nn.Module, list[Tensor]]:
    """A sub-model with the whole one's weights, and the share of each layer's units."""
    arrays = get_arrays(model)
    spec = ParamSpec.of(arrays)
    part = cut(spec, spec_text, width, version=3)
    vector = part.covers.gather(spec.flatten(arrays))
    own = part.spec.unflatten(vector)
    narrow = narrowed(model, tuple(a.shape for a in part.spec.arrays))
    set_arrays(narrow, dict(zip(narrow.state_dict(), own.values(), strict=True)))
    units = spec.unflatten(part.covers.mask.astype(np.float32))
    kept = [torch.tensor(u) for u in units.values() if u.ndim == 1]
    return narrow, kept


@pytest.mark.parametrize("width", [0.5, 0.25])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_narrow_model_is_the_whole_one_with_units_dropped(name: str, width: float) -> None:
    model = build_model(name, INFO[name], seed=1)
    narrow, kept = narrow_of(model, "rolling(0.5)", width)
    inputs = torch.randn(5, *INFO[name].input_shape, generator=torch.Generator().manual_seed(0))
    # By hand: outputs of units that are left out are zero, the others are scaled up, as
    # dropout does it.
    values = inputs
    layers = [layer for layer in model.children() if layer.state_dict()]
    for layer in model.children():
        values = layer(values)
        if layer.state_dict() and layer is not layers[-1]:
            units = kept[layers.index(layer)]
            shape = (1, -1, *[1] * (values.ndim - 2))
            values = values * units.reshape(shape) / units.mean()
    torch.testing.assert_close(narrow(inputs), values)


def test_its_gradient_is_that_of_the_whole_one() -> None:
    model = build_model("mlp", INFO["mlp"], seed=1)
    narrow, _ = narrow_of(model, "static(0.5)", 0.5)
    narrow(torch.ones(3, 12)).sum().backward()
    assert [p.grad is not None and p.grad.shape for p in narrow.parameters()] == [
        *((64, 12), (64,), (64, 64), (64,), (4, 64), (4,))
    ]
    assert all(p.grad is None for p in model.parameters())


def test_it_shares_no_weights_and_is_built_once() -> None:
    model = build_model("cnn", INFO["cnn"], seed=1)
    narrow, _ = narrow_of(model, "static(0.5)", 0.5)
    again, _ = narrow_of(model, "static(0.5)", 0.5)
    assert narrow is again
    assert type(narrow) is type(model)
    theirs = {p.data_ptr() for p in model.parameters()}
    assert not theirs & {p.data_ptr() for p in narrow.parameters()}
    state = torch.get_rng_state()
    narrow_of(model, "static(0.75)", 0.75)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_narrower() -> None:
    whole = shapes_of(build_model("mlp", INFO["mlp"], seed=0))
    assert not is_narrower(whole, whole)
    assert is_narrower(((64, 12), *whole[1:]), whole)
    assert not is_narrower(((129, 12), *whole[1:]), whole)
    assert not is_narrower(whole[1:], whole)
    assert not is_narrower(((128,), *whole[1:]), whole)


@pytest.mark.parametrize(
    ("model", "shapes", "reason"),
    [
        (nn.Linear(3, 2), ((1, 3), (1,)), "Linear cannot be made narrower"),
        (nn.Sequential(nn.GRU(3, 2)), ((3, 3),) * 4, "layer '0', a GRU, cannot be narrowed"),
        (nn.Sequential(nn.LayerNorm(3)), ((2,), (2,)), "a LayerNorm, cannot be narrowed to"),
        (nn.Sequential(nn.Linear(3, 2)), ((1, 3), (2,)), "are no narrower Sequential"),
    ],
)
def test_what_cannot_be_narrowed_is_refused(
    model: nn.Module, shapes: tuple[tuple[int, ...], ...], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        narrowed(model, shapes)
