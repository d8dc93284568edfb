"""Quantizers against their formulas: scales, levels, and no bias where none is promised."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, decode
from fl_opt.codecs.blocks import Qsgd, TernGrad, Uniform
from fl_opt.codecs.fp8 import Fp8
from fl_opt.codecs.levels import Signs
from fl_opt.codecs.levels import Uniform as UniformLevels
from fl_opt.codecs.lloyd import Lloyd, LloydMax
from fl_opt.codecs.quantize import Sign, Ternary
from fl_opt.errors import ConfigError, PayloadError
from fl_opt.wire import FrameKind, Writer, read_frame

Vector = NDArray[np.float32]

moderate = st.floats(-1e6, 1e6, width=32)
vectors = hnp.arrays(np.float32, st.integers(1, 300), elements=moderate)


def decoded(spec: str, vector: Vector, seed: int = 0) -> Vector:
    return decode(build_codec(spec).encode(vector, seed=seed), size=vector.size).to_dense()


def draws_of(spec: str, vector: Vector, count: int) -> NDArray[np.float64]:
    codec = build_codec(f"{spec} | pack")
    draws = [
        decode(codec.encode(vector, seed=seed), size=vector.size).to_dense()
        for seed in range(count)
    ]
    return np.stack(draws).astype(np.float64)


def nmse(sent: Vector, vector: Vector) -> float:
    error = sent.astype(np.float64) - vector
    return float(error @ error / (vector.astype(np.float64) @ vector))


# Signs


@given(vector=vectors)
def test_sign_is_the_mean_magnitude_times_the_sign(vector: Vector) -> None:
    codes, levels = Sign().quantize(vector, 0)
    assert isinstance(levels, Signs)
    assert float(levels.scale) == pytest.approx(
        float(np.abs(vector).astype(np.float64).sum()) / vector.size, rel=1e-6, abs=1e-40
    )
    expected = np.where(np.signbit(vector), -levels.scale, levels.scale)
    np.testing.assert_array_equal(levels.restore(codes), expected)


def test_sign_takes_one_bit_and_every_entry() -> None:
    vector = np.array([1.0, -2.0, 0.0, -0.0, 5.0], np.float32)
    assert (
        decoded("sign", vector).tolist()
        == np.float32(1.6 * np.array([1, -1, 1, -1, 1])).tolist()
    )
    assert len(build_codec("sign | pack").encode(np.ones(8000, np.float32))) <= 1000 + 32


def test_ternary_scales_by_the_mean_of_the_kept_not_of_all() -> None:
    vector = np.zeros(1000, np.float32)
    vector[[5, 500, 900]] = [3.0, -1.0, 2.0]
    sent = decoded("topk(0.003) | ternary", vector)
    assert sent[[5, 500, 900]].tolist() == [2.0, -2.0, 2.0]
    assert np.count_nonzero(sent) == 3


def test_sign_of_kept_entries_is_ternary() -> None:
    values = np.array([4.0, -1.0, 1.0], np.float32)
    for first, second in zip(
        Sign().quantize(values, 0), Ternary().quantize(values, 0), strict=True
    ):
        np.testing.assert_equal(first, second)


# Steps shared by a block


def test_qsgd_rounds_to_multiples_of_the_norm_over_the_levels() -> None:
    vector = np.array([3.0, -4.0, 0.0, 1.0], np.float32)
    draws = draws_of("qsgd(5, block=2)", vector, 200)
    steps = draws[:, :2] / (5.0 / 5)  # norm of the first block: 5
    np.testing.assert_allclose(steps, np.tile([3.0, -4.0], (200, 1)), rtol=1e-6)
    assert (draws[:, 2] == 0).all()
    np.testing.assert_allclose(draws[:, 3], 1.0, rtol=1e-6)


def test_qsgd_takes_the_two_neighbours_with_the_right_odds() -> None:
    """||v|| = 1, s = 1: an entry becomes sign(v) with probability |v|, else zero."""
    vector = np.array([0.6, -0.8], np.float32)
    draws = draws_of("qsgd(1, block=2)", vector, 5000)
    assert set(np.round(np.unique(draws), 5)) == {-1.0, 0.0, 1.0}
    assert np.mean(draws[:, 0] == draws[:, 0].max()) == pytest.approx(0.6, abs=0.03)
    assert np.mean(draws[:, 1] == draws[:, 1].min()) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    ("levels", "bits"), [(1, 2), (3, 3), (4, 4), (7, 4), (127, 8), (128, 9)]
)
def test_qsgd_uses_the_fewest_bits_that_hold_its_levels(levels: int, bits: int) -> None:
    _, found = Qsgd(levels, 8).quantize(np.ones(20, np.float32), 0)
    assert isinstance(found, UniformLevels)
    assert found.bits == bits


@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize("levels", [1, 4, 30])
def test_error_of_qsgd_is_within_the_papers_bound(size: int, levels: int) -> None:
    vector = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    draws = draws_of(f"qsgd({levels}, {size})", vector, 200)
    error = np.square(draws - vector).sum(axis=1).mean() / np.square(vector).sum()
    assert error <= min(size / levels**2, np.sqrt(size) / levels)


def test_terngrad_is_the_largest_magnitude_times_a_coin() -> None:
    vector = np.array([1.0, -2.0, 0.5, 0.0, 0.25, -0.5], np.float32)
    draws = draws_of("terngrad(block=3)", vector, 5000)
    assert set(np.unique(draws[:, :3])) == {-2.0, 0.0, 2.0}
    assert set(np.unique(draws[:, 3:])) == {-0.5, 0.0, 0.5}
    odds = np.abs(draws).astype(bool).mean(axis=0)
    np.testing.assert_allclose(odds, [0.5, 1.0, 0.25, 0.0, 0.5, 1.0], atol=0.03)


@pytest.mark.parametrize(
    "spec", ["qsgd(3, 16)", "qsgd(7)", "terngrad(8)", "uniform(4, 16, stochastic)"]
)
def test_stochastic_rounding_has_no_bias(spec: str) -> None:
    vector = np.random.default_rng(1).laplace(size=64).astype(np.float32)
    draws = draws_of(spec, vector, 4000)
    error = np.abs(draws.mean(axis=0) - vector)
    assert (error <= 4.5 * draws.std(axis=0) / np.sqrt(len(draws)) + 1e-6).all()


def test_norms_beyond_single_precision_are_no_obstacle() -> None:
    vector = np.full(600, -3e38, np.float32)
    draws = draws_of("qsgd(3, 600)", vector, 50)
    assert np.isfinite(draws).all()
    assert draws.mean() == pytest.approx(-3e38, rel=0.05)


@pytest.mark.parametrize("bits", [2, 5, 8, 11, 16])
def test_uniform_rounds_to_the_nearest_even_step(bits: int) -> None:
    top = 2 ** (bits - 1) - 1
    vector = np.array([top, 0.5, -0.5, 1.5, -1.5, 0.49, -1.51], np.float32)
    vector = np.clip(vector, -top, top)
    expected = np.clip(np.rint(vector), -top, top)
    np.testing.assert_array_equal(decoded(f"uniform({bits}, 7)", vector), expected)


# Eight-bit floating point


@settings(max_examples=200, deadline=None)
@given(vector=vectors)
@pytest.mark.parametrize(
    ("name", "dtype", "top"),
    [("e4m3", ml_dtypes.float8_e4m3fn, 8), ("e5m2", ml_dtypes.float8_e5m2, 15)],
)
def test_fp8_rounds_as_ml_dtypes_does(vector: Vector, name: str, dtype: type, top: int) -> None:
    largest = np.abs(vector).max()
    exponent = int(np.frexp(largest)[1]) - top if largest else 0
    limit = 240.0 if name == "e4m3" else 28672.0
    scaled = np.ldexp(vector, -exponent)
    expected = np.ldexp(
        np.clip(scaled, -limit, limit).astype(dtype).astype(np.float32), exponent
    )
    np.testing.assert_array_equal(decoded(f"fp8({name})", vector), expected)


def test_fp8_takes_ties_to_even_and_keeps_small_numbers() -> None:
    vector = np.array([128, 136, 152, 2.0**-9, 1.5 * 2.0**-9, 2.0**-11], np.float32)
    # e4m3 has steps of 16 from 128 on, and of 2**-9 at the lower end; largest below 2**8.
    assert decoded("fp8", vector).tolist() == [128, 128, 160, 2.0**-9, 2.0**-8, 0.0]


def test_fp8_codes_without_a_value_are_refused() -> None:
    payload = build_codec("fp8(e5m2) | raw").encode(np.ones(3, np.float32))
    body = bytes(read_frame(payload, FrameKind.UPDATE).raw(10))
    for infinity in (b"\x7c", b"\xfc", b"\x7f"):
        writer = Writer()
        writer.raw(body[:-1] + infinity)
        with pytest.raises(PayloadError, match="not finite"):
            decode(writer.to_frame(FrameKind.UPDATE), size=3)


# Lloyd-Max


@pytest.mark.parametrize(
    ("bits", "distortion"), [(1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497)]
)
@pytest.mark.parametrize("fit", ["data", "normal"])
def test_lloyd_max_reaches_the_known_distortion_of_normal_values(
    fit: str, bits: int, distortion: float
) -> None:
    vector = np.random.default_rng(2).standard_normal(300_000).astype(np.float32)
    assert nmse(decoded(f"lloyd_max({bits}, {fit})", vector), vector) == pytest.approx(
        distortion, rel=0.02
    )


@pytest.mark.parametrize(("bits", "distortion"), [(1, 0.5), (2, 0.1762), (3, 0.0545)])
def test_lloyd_max_fits_laplacian_values(bits: int, distortion: float) -> None:
    """Known minimum for the Laplace distribution (Jayant and Noll 1984)."""
    vector = np.random.default_rng(3).laplace(size=300_000).astype(np.float32)
    assert nmse(decoded(f"lloyd_max({bits})", vector), vector) == pytest.approx(
        distortion, rel=0.03
    )


@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_are_the_means_of_their_values(bits: int) -> None:
    values = np.random.default_rng(4).standard_t(3, 5000).astype(np.float32)
    codes, levels = LloydMax(bits).quantize(values, 0)
    assert isinstance(levels, Lloyd)
    for code in np.unique(codes):
        mean = values[codes == code].astype(np.float64).mean()
        assert levels.table[code] == pytest.approx(mean, rel=1e-5, abs=1e-6)


def test_few_distinct_values_are_exact() -> None:
    values = np.random.default_rng(5).choice([-3.0, 0.5, 0.25, 8.0], 1000).astype(np.float32)
    np.testing.assert_allclose(decoded("lloyd_max(2)", values), values, rtol=1e-6)


@pytest.mark.parametrize("quantizer", ["lloyd_max(2)", "lloyd_max(3)", "uniform(4, 64)", "fp8"])
def test_more_levels_on_kept_entries_beat_their_signs(quantizer: str) -> None:
    vector = np.random.default_rng(6).standard_t(4, 20_000).astype(np.float32)
    ternary = nmse(decoded("topk(0.05) | ternary", vector), vector)
    exact = nmse(decoded("topk(0.05) | fp32", vector), vector)
    found = nmse(decoded(f"topk(0.05) | {quantizer}", vector), vector)
    assert exact < found < ternary
    assert (found - exact) / (ternary - exact) < 0.5


@pytest.mark.parametrize(
    "table", [[1.0, 0.0], [np.nan, 1.0], [0.0, np.inf]], ids=["falling", "nan", "infinite"]
)
def test_tables_that_are_not_finite_and_rising_are_refused(table: list[float]) -> None:
    writer = Writer()
    writer.byte(1)
    writer.array(np.array(table, np.float32))
    reader = read_frame(writer.to_frame(FrameKind.UPDATE), FrameKind.UPDATE)
    with pytest.raises(PayloadError, match="finite and in rising order"):
        Lloyd.read(reader, 10)


# Arguments and memory


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Qsgd(0), "levels = 0 is not between 1"),
        (lambda: Qsgd(1 << 15), "levels = 32768 is not between"),
        (lambda: Qsgd(3, 0), "block = 0 is not between"),
        (lambda: TernGrad(1 << 21), "block = 2097152 is not between"),
        (lambda: Uniform(8, 256, "up"), "rounding = 'up' is not"),  # type: ignore[arg-type]
        (lambda: LloydMax(0), "bits = 0 is not between 1 and 8"),
        (lambda: LloydMax(9), "bits = 9 is not between 1 and 8"),
        (lambda: LloydMax(2, "best"), "fit = 'best' is not"),  # type: ignore[arg-type]
        (lambda: Fp8("e3m4"), "format = 'e3m4' is not 'e4m3' or 'e5m2'"),  # type: ignore[arg-type]
    ],
)
def test_arguments_out_of_range_are_refused(build: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build()  # type: ignore[operator]


@pytest.mark.parametrize(
    "spec",
    [
        "none",
        "int8",
        "uniform(4) | pack",
        "fp8 | raw",
        "qsgd | pack",
        "sign | pack",
        "lloyd_max(3) | pack",
        "eden(1) | pack",
        "eden(4) | pack",
        "randk(0.1) | fp32 | pack",
        "randk(0.5) | eden(1) | pack",
        "topk(0.01) | ternary | rice",
        "topk(0.1, tensor) | lloyd_max(2) | rice",
        "block_topk(0.05) | fp32 | rice",
    ],
)
def test_encoding_takes_at_most_three_times_the_memory_of_the_vector(spec: str) -> None:
    vector = np.random.default_rng(7).standard_normal(2_000_000).astype(np.float32)
    codec = build_codec(spec)
    codec.encode(vector[:1000])  # tables that are kept
    tracemalloc.start()
    try:
        codec.encode(vector)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 3 * vector.nbytes
