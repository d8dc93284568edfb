"""Sums on the lattice come out the same on every path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fl_opt.codecs import DenseUpdate, build_codec, decode
from fl_opt.codecs.ecsq import MAX_MULTIPLE
from fl_opt.exchange.lattice import choose_step, encode_exactly, fits, snap
from fl_opt.exchange.reference import Reference

Vector = NDArray[np.float32]
SIZE = 12
STEP = 2.0**-20

weights = arrays(np.float32, SIZE, elements=st.floats(-1.0, 1.0, width=32))
multiples = arrays(
    np.int64, SIZE, elements=st.just(0) | st.integers(-40, 40) | st.integers(-(2**23), 2**23)
)


def on_lattice(numbers: NDArray[np.int64], step: float = STEP) -> Vector:
    return (numbers * step).astype(np.float32)


@given(first=weights, moves=st.lists(weights, min_size=1, max_size=7), data=st.data())
def test_every_path_leads_to_the_same_bits(
    first: Vector, moves: list[Vector], data: st.DataObject
) -> None:
    """One by one, in any portions, or in another order."""
    start = Reference(snap(first.copy(), STEP), {})
    one_by_one = start.moved([DenseUpdate(move) for move in moves], {}, STEP)
    assert fits(one_by_one.vector, STEP)

    cut = data.draw(st.integers(0, len(moves)))
    in_portions = start
    for part in (moves[:cut], moves[cut:]):
        total = np.zeros(SIZE, np.float32)
        for move in reversed(part):
            total += snap(move.copy(), STEP)
        payload = min(encode_exactly(total, STEP), key=len)
        in_portions = in_portions.moved([decode(payload, size=SIZE)], {}, STEP)

    order = data.draw(st.permutations(moves))
    reordered = start.moved([DenseUpdate(move) for move in order], {}, STEP)
    assert one_by_one.fingerprint == in_portions.fingerprint == reordered.fingerprint


@given(multiples)
def test_exact_codes_lose_nothing(numbers: NDArray[np.int64]) -> None:
    difference = on_lattice(numbers)
    payloads = encode_exactly(difference, STEP)
    assert payloads
    for payload in payloads:
        assert decode(payload, size=SIZE).to_dense().tobytes() == difference.tobytes()


@pytest.mark.parametrize("largest", [1, MAX_MULTIPLE, MAX_MULTIPLE + 1, 2**24])
@pytest.mark.parametrize("step", [2.0**-30, 2.0**-20, 0.25])
def test_exact_codes_of_large_and_of_odd_multiples(largest: int, step: float) -> None:
    numbers = np.arange(-50, 50)
    numbers[7] = largest
    difference = on_lattice(numbers, step)
    for payload in encode_exactly(difference, step):
        assert decode(payload, size=100).to_dense().tobytes() == difference.tobytes()


def test_exact_codes_take_few_bytes() -> None:
    generator = np.random.default_rng(0)
    coarse = 2.0**-10 * generator.integers(-2, 3, 10_000)
    best = min(encode_exactly(coarse.astype(np.float32), STEP), key=len)
    assert len(best) < 10_000 * 2.4 / 8  # five values: log2(5) = 2.32 bits
    few = np.where(generator.random(10_000) < 0.01, coarse, 0.0).astype(np.float32)
    assert len(min(encode_exactly(few, STEP), key=len)) < 250
    for size in (0, 1, 10_000):
        nothing = np.zeros(size, np.float32)
        assert all(len(payload) < 60 for payload in encode_exactly(nothing, STEP))


@given(weights)
def test_snapped_entries_are_the_nearest_multiples(vector: Vector) -> None:
    snapped = snap(vector.copy(), STEP)
    assert np.abs(snapped.astype(np.float64) - vector).max() <= STEP / 2
    assert not (snapped / STEP % 1).any()
    assert snap(snapped.copy(), STEP).tobytes() == snapped.tobytes()
    assert not np.signbit(snapped[snapped == 0]).any()  # or sums would depend on the path


def test_without_a_step_nothing_is_rounded() -> None:
    vector = np.array([0.1, -3e38, 1e-40], np.float32)
    assert snap(vector.copy(), 0.0).tobytes() == vector.tobytes()


@given(st.floats(-100.0, 100.0))
def test_the_step_suits_the_model(exponent: float) -> None:
    largest = 2.0**exponent
    vector = np.array([0.0, -largest], np.float32)
    step = choose_step(vector)
    assert np.frexp(step)[0] == 0.5  # a power of two
    assert fits(8 * vector, step)
    assert step <= max(largest, 1.0) * 2.0**-19
    assert not fits(np.array([8.0 * max(largest, 1.0) * 2.01], np.float32), step)


def test_a_step_for_models_of_nothing() -> None:
    assert choose_step(np.empty(0, np.float32)) == STEP
    assert choose_step(np.zeros(3, np.float32)) == STEP
    assert fits(np.empty(0, np.float32), STEP)


def test_values_beyond_the_lattice_stay() -> None:
    vector = np.array([2.0**24, 2.0**24 + 2, -(2.0**40)], np.float32)
    assert snap(vector.copy(), 1.0).tobytes() == vector.tobytes()
    assert not fits(vector, 1.0)


def test_an_uncoded_step_decodes_to_itself() -> None:
    """What a codec leaves of a step is rounded once more, by both ends alike."""
    move = np.linspace(-0.01, 0.01, 50).astype(np.float32)
    decoded = decode(build_codec("int8").encode(move), size=50)
    start = Reference(np.zeros(50, np.float32), {})
    moved = start.moved([decoded], {}, STEP)
    assert moved.vector.tobytes() == snap(decoded.to_dense(), STEP).tobytes()
