"""Entropy-coded scalar quantization: the rate is met, and the distortion is what it buys."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, decode
from fl_opt.codecs.ecsq import Ecsq, Multiples
from fl_opt.errors import ConfigError, PayloadError
from fl_opt.wire import Reader
from tests.codecs.test_entropy import rows_of_unequal_size

SIZE = 100_000


def draw(kind: str, size: int = SIZE) -> NDArray[np.float32]:
    generator = np.random.default_rng(8)
    match kind:
        case "normal":
            values = generator.standard_normal(size)
        case "laplace":
            values = generator.laplace(size=size)
        case "student":
            values = generator.standard_t(4, size)
        case "rows":
            return rows_of_unequal_size(size)
        case "spike":
            values = generator.standard_normal(size)
            values[7] = 1e6
        case "ties":
            values = generator.choice([-1.0, 1.0], size)
        case _:
            values = generator.integers(-3, 4, size).astype(np.float64)
    return (values * 1e-3).astype(np.float32)


def nmse(vector: NDArray[np.float32], decoded: NDArray[np.float32]) -> float:
    exact = vector.astype(np.float64)
    error = exact - decoded
    return float(error @ error) / float(exact @ exact)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("kind", ["normal", "laplace", "student", "rows"])
def test_the_rate_is_met_within_two_percent_and_never_exceeded(kind: str, rate: float) -> None:
    payload = build_codec(f"ecsq({rate})").encode(draw(kind))
    assert 0.98 <= 8 * len(payload) / (rate * SIZE) <= 1.0


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["spike", "ties", "integers"])
def test_the_rate_is_never_exceeded_where_values_are_too_alike_to_meet_it(
    kind: str, rate: float
) -> None:
    vector = draw(kind)
    payload = build_codec(f"ecsq({rate})").encode(vector)
    assert 8 * len(payload) <= rate * SIZE
    decoded = decode(payload, size=SIZE).to_dense()
    assert nmse(vector, decoded) < 1.0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(1000, 5000),
    rate=st.floats(0.5, 8.0),
    spread=st.floats(0.0, 4.0),
)
def test_no_vector_exceeds_its_rate(seed: int, size: int, rate: float, spread: float) -> None:
    generator = np.random.default_rng(seed)
    vector = (generator.standard_normal(size) * generator.lognormal(0, spread, size)).astype(
        np.float32
    )
    assert 8 * len(build_codec(f"ecsq({rate})").encode(vector)) <= rate * size


@pytest.mark.parametrize(
    ("kind", "rate", "bound"),
    [
        # Gaussian: the limit is 2^(-2R), and no scalar quantizer comes closer than 0.255 bit
        # at high rates; some more is allowed here.
        ("normal", 2.0, 2 ** (-2 * (2.0 - 0.305))),
        ("normal", 4.0, 2 ** (-2 * (4.0 - 0.34))),
        # At 1 bit the best have 4.64 dB (normal) and 5.76 dB (Laplace).
        ("normal", 1.0, 0.344 * 1.06),
        ("laplace", 1.0, 0.265 * 1.03),
        ("student", 1.0, 0.27),
        # Rows that differ in scale: the code finds out what a static one does not know.
        ("rows", 1.0, 0.035),
        ("rows", 0.25, 0.18),
    ],
)
def test_distortion_at_a_rate(kind: str, rate: float, bound: float) -> None:
    vector = draw(kind)
    decoded = decode(build_codec(f"ecsq({rate})").encode(vector), size=SIZE).to_dense()
    assert nmse(vector, decoded) <= bound


def test_bins_are_restored_at_their_means() -> None:
    """So that the error is orthogonal to what is sent."""
    vector = draw("laplace")
    decoded = decode(build_codec("ecsq(1.5)").encode(vector), size=SIZE).to_dense()
    error = vector.astype(np.float64) - decoded
    assert abs(float(error @ decoded)) < 0.005 * float(decoded.astype(np.float64) @ decoded)


def test_a_selection_goes_before_it() -> None:
    vector = draw("student")
    codec = build_codec("topk(0.05) | ecsq(3)")
    ternary = build_codec("topk(0.05) | ternary")
    payload, other = codec.encode(vector), ternary.encode(vector)
    assert len(payload) - len(other) <= 2 * 5000 / 8 + 20
    decoded = decode(payload, size=SIZE)
    assert decoded.count == 5000
    assert nmse(vector, decoded.to_dense()) < nmse(vector, decode(other, size=SIZE).to_dense())


def test_a_step_may_be_given() -> None:
    vector = draw("normal")
    codec = build_codec("ecsq(step=0.0005)")
    decoded = decode(codec.encode(vector), size=SIZE).to_dense()
    assert np.abs(decoded - vector).max() <= 0.0005
    assert np.unique(decoded).size > 10
    assert not decode(build_codec("ecsq(step=9)").encode(vector), size=SIZE).to_dense().any()


@pytest.mark.parametrize(
    "spec",
    ["ecsq", "ecsq(0)", "ecsq(-1)", "ecsq(17)", "ecsq(1, 0.1)", "ecsq(nan)", "ecsq(step=inf)"],
)
def test_rates_and_steps_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"ecsq|rate"):
        build_codec(spec)


@pytest.mark.parametrize("coder", ["raw", "pack"])
def test_only_the_entropy_coder_follows(coder: str) -> None:
    with pytest.raises(ConfigError, match=f"'ecsq' is entropy-coded, which '{coder}' is not"):
        build_codec(f"ecsq(1) | {coder}")
    assert build_codec("ecsq(1) | entropy").encode(draw("rows")) == build_codec(
        "ecsq(1)"
    ).encode(draw("rows"))


@pytest.mark.parametrize("rate", [0.25, 2.0])
def test_memory_stays_within_three_vectors(rate: float) -> None:
    vector = rows_of_unequal_size(2_000_000)
    codec = build_codec(f"ecsq({rate})")
    tracemalloc.start()
    try:
        payload = codec.encode(vector)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        decode(payload, size=vector.size)
        _, decode_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 3 * vector.nbytes
    assert decode_peak <= 3 * vector.nbytes


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x01", "codes of 1 bits"),
        (b"\x11", "codes of 17 bits"),
        (b"\x08" + np.float32(-1).tobytes(), "step -1.0"),
        (b"\x08" + np.float32(np.inf).tobytes(), "step inf"),
        (b"\x08" + np.float32(np.nan).tobytes(), "step nan"),
        (b"\x08" + np.float32(1).tobytes() + b"\0", "0 means"),
        (b"\x08" + np.float32(1).tobytes() + b"\x09", "9 means"),
        (b"\x08" + np.float32(1).tobytes() + b"\x02\0", "truncated"),
    ],
)
def test_wrong_levels_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        Multiples.read(Reader(memoryview(data)), 10)


def test_the_largest_step_restores_to_finite_values() -> None:
    levels = Multiples(16, np.float32(3e38), np.array([127], np.int8))
    values = levels.restore(np.array([0, 32766, 32767, 32768, 65535], np.uint16))
    assert np.isfinite(values).all()
    assert values[2] == 0.0


def test_a_vector_of_zeros_is_small() -> None:
    assert len(build_codec("ecsq(1)").encode(np.zeros(SIZE, np.float32))) < 40
    assert Ecsq(1.0).quantize(np.zeros(0, np.float32), 0)[0].size == 0
