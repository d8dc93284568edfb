from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors.numpy import load, save

from fl_opt.checkpoint import pack_state, unpack_state
from fl_opt.errors import CheckpointError

VALUES = {"round": 7, "node": 2**64 - 1, "name": "é", "nested": {"a": [1.5, None, True]}}
ARRAYS = {"m": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(3)}

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=5,
)
kinds = hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes(endianness="=")
arrays = hnp.arrays(kinds, hnp.array_shapes(min_dims=0, min_side=0))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), plain), st.dictionaries(st.text(), arrays, max_size=3))
def test_unpack_returns_what_was_packed(
    values: dict[str, Any], named: dict[str, NDArray[Any]]
) -> None:
    found_values, found = unpack_state(pack_state(values, named))
    assert found_values == values
    assert list(found) == list(named)
    for name, array in named.items():
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_numbers_that_are_not_finite() -> None:
    values = {"best": -math.inf, "loss": math.nan}
    found, arrays = unpack_state(pack_state(values, {"x": np.array([math.nan, math.inf])}))
    assert found["best"] == -math.inf
    assert math.isnan(found["loss"])
    np.testing.assert_array_equal(arrays["x"], [math.nan, math.inf])


def test_any_layout_in_memory_gives_the_same_bytes() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    packed = pack_state({}, {"x": matrix})
    assert pack_state({}, {"x": np.asfortranarray(matrix)}) == packed
    assert pack_state({}, {"x": matrix.astype(">f4")}) == packed
    assert pack_state({}, {"x": np.repeat(matrix, 2, axis=1)[:, ::2]}) == packed
    assert packed.endswith(matrix.tobytes())


def test_arrays_can_be_written_and_share_nothing() -> None:
    packed = pack_state({}, ARRAYS)
    first, second = unpack_state(packed)[1], unpack_state(packed)[1]
    first["m"] += 1
    np.testing.assert_array_equal(second["m"], ARRAYS["m"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nodes": {7: "a"}}, "key 7 is not text"),
        ({"list": [{None: 1}]}, "key None is not text"),
        ({"x": object()}, "Object of type object is not JSON serializable"),
        ({"x": np.float32(1)}, "Object of type float32 is not JSON serializable"),
    ],
)
def test_values_that_json_would_lose_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"state cannot be packed: {message}"):
        pack_state(values, {})


@pytest.mark.parametrize(
    "array", [np.array([None]), np.array(["a"]), np.array(1, "M8[s]"), np.array(1j)]
)
def test_arrays_of_other_kinds_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(CheckpointError, match=r"array 'x': dtype .* cannot be packed"):
        pack_state({}, {"x": array})


def test_any_shorter_or_longer_state_is_refused() -> None:
    packed = pack_state(VALUES, ARRAYS)
    for size in range(len(packed)):
        with pytest.raises(CheckpointError, match="damaged state"):
            unpack_state(packed[:size])
    with pytest.raises(CheckpointError, match="damaged state"):
        unpack_state(packed + b"\0")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pickle.dumps(VALUES)])
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="damaged state"):
        unpack_state(data)


@pytest.mark.parametrize("metadata", [None, {}, {"fl-opt state 3": "{}"}])
def test_tensors_of_others_are_refused(metadata: dict[str, str] | None) -> None:
    with pytest.raises(CheckpointError, match="not a packed state of a known version"):
        unpack_state(save(ARRAYS, metadata))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"values": 1, "arrays": ["m", "steps"]}',
        '{"values": {}}',
        '{"values": {}, "arrays": ["m"]}',
        '{"values": {}, "arrays": ["m", "m", "steps"]}',
        '{"values": {}, "arrays": ["m", "steps", "other"]}',
        '{"values": {}, "arrays": [["m"], "steps"]}',
    ],
)
def test_a_state_that_does_not_fit_its_arrays_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="damaged state"):
        unpack_state(save(ARRAYS, {"fl-opt state 2": text}))


def test_others_can_read_the_arrays() -> None:
    found = load(pack_state(VALUES, ARRAYS))
    assert found.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(found["m"], ARRAYS["m"])


def test_empty() -> None:
    assert unpack_state(pack_state({}, {})) == ({}, {})
