"""The rotation, and what EDEN makes of it: errors as in the papers, and no bias."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, decode
from fl_opt.codecs.eden import Eden
from fl_opt.codecs.gaussian import normal_centroids
from fl_opt.codecs.rotate import Rotation, window_for
from fl_opt.errors import ConfigError, PayloadError
from fl_opt.wire import FrameKind, Reader, Writer, read_frame
from tests.fixtures.make_payloads import PATH, SIZE

Vector = NDArray[np.float32]

GOLDEN = json.loads(PATH.read_text())


def rotated(vector: Vector, seed: int = 0) -> Vector:
    out = vector.copy()
    Rotation(vector.size, seed).forward(out)
    return out


def energy(vector: NDArray[np.floating]) -> float:
    return float(np.square(vector, dtype=np.float64).sum())


def draws_of(spec: str, vector: Vector, count: int) -> NDArray[np.float32]:
    codec = build_codec(f"{spec} | pack")
    return np.stack(
        [
            decode(codec.encode(vector, seed=seed), size=vector.size).to_dense()
            for seed in range(count)
        ]
    )


def vectors(size: int) -> dict[str, Vector]:
    generator = np.random.default_rng(11)
    normal = generator.standard_normal(size)
    spikes = np.zeros(size)
    spikes[[3, size // 2, size - 2]] = [1.0, 0.5, -0.2]
    made = {
        "normal": normal,
        "laplace": generator.laplace(size=size),
        "student": generator.standard_t(4, size),
        "layers": normal * np.repeat([1e-3, 1.0, 10.0, 0.01, 5.0], -(-size // 5))[:size],
        "constant": np.ones(size),
        "spikes": spikes,
    }
    return {name: vector.astype(np.float32) for name, vector in made.items()}


@pytest.mark.parametrize(
    ("count", "window"),
    [
        (0, 1),
        (1, 1),
        (3, 1),
        (4, 4),
        (15, 4),
        (16, 16),
        (4095, 1024),
        (4096, 4096),
        (9**9, 4096),
    ],
)
def test_windows_are_powers_of_four(count: int, window: int) -> None:
    assert window_for(count) == window


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 9000), seed=st.integers(0, 2**64 - 1))
def test_rotation_keeps_the_norm_and_can_be_undone(size: int, seed: int) -> None:
    vector = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    rotation = Rotation(size, seed)
    out = vector.copy()
    rotation.forward(out)
    assert energy(out) == pytest.approx(energy(vector), rel=1e-4)
    rotation.inverse(out)
    assert energy(out - vector) <= 2e-6 * energy(vector)


@pytest.mark.parametrize("size", [5, 37, 300])
def test_rotation_is_linear_and_orthogonal(size: int) -> None:
    """The matrix of it, column by column."""
    matrix = np.stack([rotated(column) for column in np.eye(size, dtype=np.float32)], axis=1)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(size), atol=1e-5)
    vector = np.linspace(-1, 1, size).astype(np.float32)
    np.testing.assert_allclose(rotated(vector), matrix @ vector, atol=1e-3)


def test_one_pass_is_the_hadamard_matrix_with_signs() -> None:
    """Against a plain construction, for the window of sixteen entries."""
    scipy_linalg = pytest.importorskip("scipy.linalg")
    hadamard = scipy_linalg.hadamard(16) / 4
    words = np.random.Philox(key=9 + 2**64).random_raw(1)
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").reshape(4, 16)
    vector = np.arange(16, dtype=np.float32)
    expected = vector.astype(np.float64)
    for signs in 1.0 - 2.0 * bits:
        expected = hadamard @ (signs * expected)
    np.testing.assert_allclose(rotated(vector, 9), expected, atol=1e-3)


def test_results_do_not_depend_on_the_order_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in double precision, added up in another order, give the same bits."""
    vector = np.random.default_rng(0).standard_t(3, 70_001).astype(np.float32)
    expected = rotated(vector)

    def product(left: Any, right: Any, out: Any) -> None:
        out[...] = np.einsum("...ij,...jk->...ik", left.astype(float), right.astype(float))

    monkeypatch.setattr(np, "matmul", product)
    np.testing.assert_array_equal(rotated(vector), expected)


@pytest.mark.parametrize("kind", ["normal", "layers", "constant"])
def test_rotated_entries_look_normal(kind: str) -> None:
    vector = vectors(50_000)[kind]
    out = rotated(vector)
    head = 50_000 % 4096
    for window in out[head:].reshape(-1, 4096):
        scaled = window / np.sqrt(energy(window) / window.size)
        below = [np.mean(scaled < border) for border in (-1.0, 0.0, 1.0)]
        np.testing.assert_allclose(below, [0.1587, 0.5, 0.8413], atol=0.035)


@pytest.mark.parametrize(
    ("bits", "distortion"),
    [(1, 0.36338), (2, 0.11748), (3, 0.034548), (4, 0.0094977), (5, 0.0024998)],
)
def test_normal_levels_have_the_least_distortion_known(bits: int, distortion: float) -> None:
    """Max 1960. The error of best levels is 1 minus the energy of the levels."""
    table = normal_centroids(bits)
    values = np.linspace(-8, 8, 400_001)
    weights = np.exp(-(values**2) / 2)
    cells = np.searchsorted((table[1:] + table[:-1]) / 2, values)
    found = (weights * (values - table[cells]) ** 2).sum() / weights.sum()
    assert found == pytest.approx(distortion, rel=2e-3)


def test_levels_at_one_and_two_bits_are_those_of_the_papers() -> None:
    np.testing.assert_allclose(normal_centroids(1), [-0.79788, 0.79788], atol=1e-5)
    np.testing.assert_allclose(normal_centroids(2)[2:], [0.45278, 1.51042], atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["normal", "laplace", "student", "layers", "constant", "spikes"]
)
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("eden(1)", 0.5708),
        ("eden(2)", 0.1331),
        ("eden(3)", 0.03578),
        ("eden(1, mmse)", 0.3634),
        ("eden(2, mmse)", 0.1175),
        ("eden(0.5)", np.pi / (2 * 0.5) - 1),
        ("eden(0.1, mmse)", 1 - 0.1 * 2 / np.pi),
    ],
)
def test_squared_error_is_that_of_the_papers(kind: str, spec: str, expected: float) -> None:
    vector = vectors(20_000)[kind]
    errors = [energy(sent - vector) for sent in draws_of(spec, vector, 30)]
    assert np.mean(errors) / energy(vector) == pytest.approx(expected, rel=0.02)


def test_sparsifying_first_has_the_same_error_as_part_of_the_rotation() -> None:
    vector = vectors(20_000)["normal"]
    first = draws_of("randk(0.5, unbiased) | eden(1)", vector, 30)
    part = draws_of("eden(0.5)", vector, 30)
    errors = [np.mean([energy(sent - vector) for sent in sends]) for sends in (first, part)]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("normal", "eden(1)"),
        ("student", "eden(2)"),
        ("student", "eden(3)"),
        ("spikes", "eden(1)"),
        ("spikes", "eden(0.25)"),
    ],
)
def test_mean_of_a_thousand_draws_is_the_vector(kind: str, spec: str) -> None:
    vector = vectors(600)[kind]
    draws = draws_of(spec, vector, 1000).astype(np.float64)
    deviations = (draws.mean(axis=0) - vector) / (draws.std(axis=0) / np.sqrt(1000))
    # Of 600 normal numbers, one beyond 4 is to be expected in one of 26 such tests.
    assert np.count_nonzero(np.abs(deviations) > 4.0) <= 1
    assert np.mean(deviations**2) == pytest.approx(1.0, abs=0.3)
    along = draws @ vector / energy(vector)
    np.testing.assert_allclose(along.mean(), 1.0, atol=0.03 if spec == "eden(0.25)" else 1e-5)


def test_unbiased_scale_keeps_the_inner_product_of_each_draw() -> None:
    vector = vectors(5000)["laplace"]
    for sent in draws_of("eden(2)", vector, 5):
        assert float(sent.astype(np.float64) @ vector) == pytest.approx(
            energy(vector), rel=2e-5
        )


def test_mmse_scale_is_the_best_one() -> None:
    """What is left is orthogonal to what was sent."""
    vector = vectors(4096)["student"]
    for sent in draws_of("eden(1, mmse)", vector, 5).astype(np.float64):
        assert float(sent @ (vector - sent)) == pytest.approx(0.0, abs=1e-3 * energy(vector))


@pytest.mark.parametrize("size", [1, 5, 300, 4097, 100_003])
@pytest.mark.parametrize("bits", [0.1, 0.5, 1, 2, 4])
def test_payloads_are_not_padded(size: int, bits: float) -> None:
    payload = build_codec(f"eden({bits}) | pack").encode(np.ones(size, np.float32))
    scales = 4 * (size // window_for(size) + 1)
    table = 4 * 2 ** (max(1, bits) - 1)
    rounding = 1 + size // window_for(size) / 8  # up to one entry more in each window
    assert len(payload) <= size * bits / 8 + scales + table + rounding + 32


def test_small_pieces_that_stand_before_the_first_window_are_sent_too() -> None:
    vector = np.zeros(5000, np.float32)
    vector[:10] = 1.0
    for spec in ("eden(4)", "eden(0.25)"):
        mean = draws_of(spec, vector, 400).mean(axis=0)
        assert mean[:10].mean() == pytest.approx(1.0, abs=0.3 if spec == "eden(0.25)" else 0.02)


def test_seeds_give_other_rotations() -> None:
    first, second = draws_of("eden(1)", vectors(3000)["normal"], 2)
    assert np.corrcoef(first, second)[0, 1] < 0.8


@pytest.mark.parametrize("bits", [0.0, 0.01, 1.5, 7.0, -1.0, float("nan")])
def test_bits_out_of_range_are_refused(bits: float) -> None:
    with pytest.raises(ConfigError, match=r"bits = .* is not 1, 2, ..., 6 or between"):
        Eden(bits)


def test_scale_that_is_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match="scale = 'least' is not 'unbiased' or 'mmse'"):
        Eden(1, "least")  # type: ignore[arg-type]


def reader_of(payload: bytes) -> Reader:
    return read_frame(payload, FrameKind.UPDATE)


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, b"\x00", "0 bits where 1 to 6"),
        (0, b"\x07", "7 bits where 1 to 6"),
        (1, b"\x00", "no code in a window"),
        (1, b"\x05", "5 where at most 4 is allowed"),
        (2, b"\xff\x00", "exponent 255 is out of range"),
        (12, b"\x00\x00\xc0\x7f", "a scale or level is negative, NaN or too large"),
        (12, b"\x00\x00\x80\xbf", "a scale or level is negative"),
        (16, b"\x00\x00\x80\x7f", "a scale or level is negative, NaN or too large"),
        (16, b"\x00\x00\x80\x60", "too large"),
    ],
)
def test_wrong_levels_are_refused(at: int, value: bytes, reason: str) -> None:
    body = bytes(reader_of(build_codec("eden(1)").encode(np.ones(9, np.float32))).raw(34))
    start = 3  # size, position method, kind of levels
    changed = body[: start + at] + value + body[start + at + len(value) :]
    writer = Writer()
    writer.raw(changed)
    with pytest.raises(PayloadError, match=reason):
        decode(writer.to_frame(FrameKind.UPDATE), size=9)


def test_decoded_values_of_a_payload_never_change() -> None:
    """Server and clients on other machines must hold the same bits."""
    payload = bytes.fromhex(GOLDEN["all | eden(3, mmse) | pack"])
    dense = decode(payload, size=SIZE).to_dense().astype("<f4")
    assert f"{zlib.crc32(dense.tobytes()):08x}" == "a5e7b78a"
