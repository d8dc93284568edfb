"""What every codec must do, driven by one table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fl_opt.codecs import CODERS, PRESETS, QUANTIZERS, SELECTIONS, build_codec, decode
from fl_opt.errors import CodecError

# Largest error of a value that was sent, relative to the largest magnitude of the vector.
SPECS = {
    "none": 0.0,
    "fp16": 2.0**-11,
    "bf16": 2.0**-8,
    "int8": 1 / 254,
    "int4": 1 / 14,
    "uniform(bits=2, block=3)": 1 / 2,
    "uniform(13, 100)": 1 / (2 * 4095),
    "uniform(16, 7, stochastic)": 1 / 32767,
    "topk(0.01)": 0.0,
    "topk(0.3) | fp32 | raw": 0.0,
    "topk(0.3) | fp32 | pack": 0.0,
    "topk(0.3) | fp16 | rice": 2.0**-11,
    "topk(1) | uniform(bits=3, block=5)": 1 / 6,
    "stc": 1.0,
    "topk(0.5) | ternary": 1.0,
    "topk(0.2, tensor) | fp32": 0.0,
    "randk(0.4) | fp32": 0.0,
    "randk(0.5, unbiased) | fp16": 2.0,
    "threshold(1e-37) | fp32": 0.0,
    "block_topk(0.2, 30) | fp32": 0.0,
    "fp8": 2.0**-4,
    "topk(0.3) | fp8(e5m2)": 2.0**-3,
    "qsgd(3, 16)": 4 / 3,
    "terngrad(20)": 1.0,
    "sign": 1.0,
    "lloyd_max(2)": 2.0,
    "lloyd_max(5, normal)": 2.0,
    "topk(0.3) | lloyd_max(3)": 2.0,
    "drive": 8.0,
    "eden(2)": 8.0,
    "eden(0.3)": 40.0,
    "topk(0.3) | eden(3, mmse)": 8.0,
    "randk(0.5) | eden(1)": 8.0,
    "topk(0.5) | ternary | entropy": 1.0,
    "topk(0.3) | fp32 | entropy": 0.0,
    "uniform(4, 64) | entropy": 1 / 14,
    "ecsq(1)": 1.0,
    "ecsq(6) | entropy": 1.0,
    "topk(0.3) | ecsq(2)": 1.0,
}

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, st.integers(0, 400), elements=finite)


def test_every_stage_and_preset_is_in_the_table() -> None:
    text = " ".join([*SPECS, *(PRESETS[name] for name in PRESETS if name in SPECS)])
    for name in [*SELECTIONS, *QUANTIZERS, *CODERS]:
        assert name in text or name == "auto", name
    assert set(PRESETS) <= set(SPECS)


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=60, deadline=None)
@given(vector=vectors, seed=st.integers(0, 2**63))
def test_decoded_values_are_close_and_finite(
    spec: str, vector: NDArray[np.float32], seed: int
) -> None:
    before = vector.copy()
    payload = build_codec(spec).encode(vector, seed=seed)
    update = decode(payload, size=vector.size)
    decoded = update.to_dense().astype(np.float64)
    np.testing.assert_array_equal(vector, before)
    assert np.isfinite(decoded).all()
    sent = decoded != 0
    largest = float(np.abs(vector).max(initial=0.0))
    error = np.abs(decoded[sent] - vector[sent])
    slack = 1e-6 * largest + 1e-33  # steps below the range of single precision become zero
    assert (error <= SPECS[spec] * largest + slack).all()


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=25, deadline=None)
@given(vector=vectors, seed=st.integers(0, 2**63))
def test_same_seed_gives_the_same_payload_and_no_global_state_is_touched(
    spec: str, vector: NDArray[np.float32], seed: int
) -> None:
    np.random.seed(0)  # noqa: NPY002
    codec = build_codec(spec)
    first = codec.encode(vector, seed=seed)
    assert codec.encode(vector, seed=seed) == first
    assert np.random.random() == 0.5488135039273248  # noqa: NPY002


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=25, deadline=None)
@given(vector=vectors, weight=st.sampled_from([1.0, -1.0, 0.0, 0.25, 37.0]))
def test_add_to_equals_adding_the_dense_update(
    spec: str, vector: NDArray[np.float32], weight: float
) -> None:
    vector = np.clip(vector, -1e20, 1e20)
    update = decode(build_codec(spec).encode(vector), size=vector.size)
    accumulator = np.linspace(-1, 1, vector.size)
    expected = accumulator + weight * update.to_dense().astype(np.float64)
    update.add_to(accumulator, weight)
    np.testing.assert_allclose(accumulator, expected, rtol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30, 3e38])
@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 70_000])
def test_extreme_sizes_and_scales(spec: str, scale: float, size: int) -> None:
    generator = np.random.default_rng(size)
    vector = (generator.uniform(-1, 1, size) * scale).astype(np.float32)
    update = decode(build_codec(spec).encode(vector), size=size)
    decoded = update.to_dense()
    assert decoded.shape == (size,)
    assert np.isfinite(decoded).all()
    if scale == 0.0:
        assert not decoded.any()
    elif size:
        # Something of the vector arrives: the update points the right way.
        assert float(decoded.astype(np.float64) @ vector.astype(np.float64)) > 0


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 65_536, 99_999])
def test_nan_and_infinity_are_refused_at_their_position(
    spec: str, bad: float, position: int
) -> None:
    vector = np.ones(100_000, np.float32)
    vector[position] = bad
    with pytest.raises(CodecError, match=f"entry {position} ") as caught:
        build_codec(spec).encode(vector)
    assert caught.value.position == position


@pytest.mark.parametrize(
    "vector", [np.zeros((2, 2), np.float32), np.zeros(3), np.zeros(3, int)]
)
def test_only_flat_float32_is_taken(vector: NDArray[np.float32]) -> None:
    with pytest.raises(CodecError, match="1-D float32"):
        build_codec("none").encode(vector)


def test_overhead_of_a_payload_is_at_most_32_bytes() -> None:
    vector = np.ones(70_000, np.float32)
    assert len(build_codec("none").encode(vector)) - vector.nbytes <= 32
    signs = build_codec("topk(1) | ternary | pack").encode(vector)
    assert len(signs) - 70_000 / 8 <= 32  # gaps of zero bits


def test_stochastic_rounding_is_unbiased() -> None:
    vector = np.linspace(-1, 1, 64).astype(np.float32)
    codec = build_codec("uniform(bits=2, block=64, rounding=stochastic) | pack")
    draws = np.stack(
        [decode(codec.encode(vector, seed=seed), size=64).to_dense() for seed in range(4000)]
    )
    standard_error = draws.std(axis=0) / np.sqrt(len(draws)) + 1e-7
    assert (np.abs(draws.mean(axis=0) - vector) <= 4.5 * standard_error).all()


def test_non_contiguous_vectors_are_encoded_by_value() -> None:
    vector = np.arange(20, dtype=np.float32)[::2]
    decoded = decode(build_codec("none").encode(vector), size=10).to_dense()
    np.testing.assert_array_equal(decoded, vector)


@pytest.mark.parametrize("spec", ["topk(0.5) | ternary", "topk(0.5) | ecsq(1.0)"])
def test_as_many_positions_as_a_payload_can_hold_are_read(spec: str) -> None:
    ones = np.ones(3_000_001, np.float32)
    payload = build_codec(spec).encode(ones, seed=1)
    assert len(payload) < 100  # over 15,000 positions a byte
    assert decode(payload, size=ones.size).count == 1_500_000
