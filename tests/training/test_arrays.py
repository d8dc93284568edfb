from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from fl_opt.errors import ModelError
from fl_opt.training import get_arrays, set_arrays


def make_model() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(2, 3, 3),
            norm=nn.BatchNorm2d(3),
            output=nn.Linear(3, 2, dtype=torch.float64),
        )
    )


def test_arrays_are_named_and_ordered_as_the_state_dict() -> None:
    model = make_model()
    arrays = get_arrays(model)
    assert list(arrays) == list(model.state_dict())
    assert arrays["norm.num_batches_tracked"].dtype == np.int64
    assert arrays["norm.num_batches_tracked"].shape == ()
    assert arrays["output.weight"].dtype == np.float64
    assert all(array.flags.c_contiguous for array in arrays.values())


def test_arrays_share_no_memory_with_the_model() -> None:
    model = make_model()
    arrays = get_arrays(model)
    before = {name: array.copy() for name, array in arrays.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for name, array in arrays.items():
        assert_array_equal(array, before[name])


def test_what_is_set_is_what_is_got_and_storage_stays() -> None:
    source, target = make_model(), make_model()
    storage = {name: t.data_ptr() for name, t in target.state_dict().items()}
    arrays = get_arrays(source)
    arrays["norm.num_batches_tracked"] = np.array(7)
    for array in arrays.values():
        array.flags.writeable = False
    set_arrays(target, dict(reversed(arrays.items())))
    for name, array in get_arrays(target).items():
        assert_array_equal(array, arrays[name])
    assert {name: t.data_ptr() for name, t in target.state_dict().items()} == storage
    assert all(p.requires_grad and p.grad is None for p in target.parameters())


def test_bfloat16_travels_as_float32() -> None:
    model = nn.Linear(2, 2, dtype=torch.bfloat16)
    arrays = get_arrays(model)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    set_arrays(model, arrays)
    assert_array_equal(get_arrays(model)["weight"], arrays["weight"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight": None}, "array 'weight' of the model is missing"),
        ({"extra": np.zeros(2)}, "array 'extra' is not one of the model's"),
        (
            {"weight": np.zeros((2, 3))},
            r"'weight' has shape \(2, 3\), the model needs \(3, 2\)",
        ),
        ({"bias": np.zeros(3, np.int64)}, "'bias' is int64, the model needs torch.float32"),
    ],
)
def test_nothing_is_set_if_anything_does_not_fit(
    change: dict[str, np.ndarray | None], reason: str
) -> None:
    model = nn.Linear(2, 3)
    before = get_arrays(model)
    arrays = {name: np.zeros_like(array) for name, array in before.items()} | change
    with pytest.raises(ModelError, match=reason):
        set_arrays(model, {name: a for name, a in arrays.items() if a is not None})
    for name, array in get_arrays(model).items():
        assert_array_equal(array, before[name])


def test_state_that_is_no_tensor_is_refused() -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> str:
            return "text"

    with pytest.raises(ModelError, match="'_extra_state' is a str, not a tensor"):
        get_arrays(Odd(1, 1))
