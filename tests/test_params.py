"""Named arrays to a vector and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fl_opt.errors import ModelError, PayloadError
from fl_opt.params import ParamSpec, name_arrays

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
float_arrays = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    shapes,
    elements=st.floats(-100, 100, width=16),
)
other_arrays = hnp.arrays(st.sampled_from([np.int64, np.uint8, np.bool_]), shapes)
models = st.lists(st.one_of(float_arrays, other_arrays), min_size=1, max_size=6).map(
    name_arrays
)


@settings(max_examples=200, deadline=None)
@given(models)
def test_unflatten_undoes_flatten(named: dict[str, NDArray[np.generic]]) -> None:
    spec = ParamSpec.of(named, exact=["2"])
    vector = spec.flatten(named)
    assert vector.dtype == np.float32
    assert vector.size == spec.size
    again = spec.unflatten(vector, spec.exact_part(named))
    assert list(again) == list(named)
    for name, array in named.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)


@settings(max_examples=200, deadline=None)
@given(models)
def test_description_survives_serialisation(named: dict[str, NDArray[np.generic]]) -> None:
    spec = ParamSpec.of(named, exact=["1"])
    again = ParamSpec.from_bytes(spec.to_bytes())
    assert again == spec
    assert again.fingerprint == spec.fingerprint


def test_patterns_and_integers_make_the_exact_part() -> None:
    named = {
        "conv.weight": np.ones((2, 2), np.float32),
        "bn.running_mean": np.ones(3, np.float32),
        "bn.num_batches_tracked": np.array(7),
    }
    spec = ParamSpec.of(named, exact=["*running_mean"])
    assert spec.size == 4
    assert [a.name for a in spec.exact_arrays] == ["bn.running_mean", "bn.num_batches_tracked"]


def test_fingerprint_depends_on_names_shapes_dtypes_and_order() -> None:
    a, b = np.ones((2, 3), np.float32), np.ones(6, np.float32)
    models: tuple[dict[str, NDArray[np.generic]], ...] = (
        {"a": a, "b": b},
        {"b": b, "a": a},
        {"a": a, "c": b},
        {"a": a.T, "b": b},
        {"a": a.astype(np.float64), "b": b},
    )
    prints = {ParamSpec.of(named).fingerprint for named in models}
    assert len(prints) == 5


def test_position_is_traced_to_its_array() -> None:
    spec = ParamSpec.of(
        {"a": np.ones(2), "n": np.ones(5, int), "empty": np.ones(0), "b": np.ones(3)}
    )
    assert [spec.name_at(i) for i in range(5)] == ["a", "a", "b", "b", "b"]
    with pytest.raises(IndexError):
        spec.name_at(5)


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ({"a": np.ones(2)}, "'b' is missing"),
        ({"a": np.ones(3), "b": np.ones(1)}, r"'a' has shape \(3,\), expected \(2,\)"),
        ({"a": np.ones(2), "b": np.ones(1), "c": np.ones(1)}, "'c' is not part of the model"),
    ],
)
def test_arrays_of_another_model_are_refused(
    named: dict[str, NDArray[np.generic]], reason: str
) -> None:
    spec = ParamSpec.of({"a": np.ones(2), "b": np.ones(1)})
    with pytest.raises(ModelError, match=reason):
        spec.flatten(named)


def test_dtypes_that_cannot_be_sent_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="array 'z' has dtype complex128"):
        ParamSpec.of({"z": np.ones(2, complex)})


@pytest.mark.parametrize(
    "rows",
    [
        [["a", [2], "float32"]],
        [["a", [-1], "float32", 0]],
        [["a", [2.0], "float32", 0]],
        [["a", [True], "float32", 0]],
        [["a", [1 << 60], "float32", 0]],
        [["a", [1] * 40, "float32", 0]],
        [["a", [2], "object", 0]],
        [["a", [2], "int64", 0]],
        [["a", [2], "float32", 2]],
        [[1, [2], "float32", 0]],
        [["a", [1 << 40], "float32", 0], ["b", [1], "float32", 0]],
        [["a", [2], "float32", 0], ["a", [2], "float32", 0]],
        {"a": 1},
        7,
    ],
)
def test_malformed_descriptions_are_refused(rows: object) -> None:
    with pytest.raises(PayloadError, match="malformed model description"):
        ParamSpec.from_bytes(json.dumps(rows).encode())


@pytest.mark.parametrize("data", [b"", b"[", b"\xff\xfe", b"[" * 100_000])
def test_broken_json_is_refused(data: bytes) -> None:
    with pytest.raises(PayloadError, match="malformed model description"):
        ParamSpec.from_bytes(data)
