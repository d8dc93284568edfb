"""Random positions: exact counts, evenly spread, and the same wherever they are drawn."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_opt.codecs import SparseUpdate, build_codec, decode
from fl_opt.codecs.code import PositionMethod
from fl_opt.codecs.draw import Draw
from fl_opt.codecs.select import RandK
from fl_opt.errors import ConfigError, PayloadError
from fl_opt.wire import FrameKind, Writer


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 500), data=st.data(), seed=st.integers(0, 2**64 - 1))
def test_exactly_so_many_positions_in_order(size: int, data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(0, size))
    positions = Draw(size, count, seed).positions()
    assert positions.size == count
    assert positions.dtype == np.int64
    assert (np.diff(positions) > 0).all()
    assert count == 0 or (positions[0] >= 0 and positions[-1] < size)


@pytest.mark.parametrize("count", [3, 7])
def test_the_rule_is_the_documented_one(count: int) -> None:
    """The first distinct remainders of raw Philox outputs, one after the other."""
    size, seed = 10, 1234567890123456789
    stream = np.random.Philox(key=seed)
    distinct: list[int] = []
    wanted = min(count, size - count)
    while len(distinct) < wanted:
        number = int(stream.random_raw()) % size
        if number not in distinct:
            distinct.append(number)
    expected = set(distinct) if count == wanted else set(range(size)) - set(distinct)
    assert set(Draw(size, count, seed).positions().tolist()) == expected


def test_positions_of_a_seed_never_change() -> None:
    assert Draw(1000, 5, 7).positions().tolist() == [30, 120, 522, 655, 692]
    assert Draw(6, 4, 7).positions().tolist() == [1, 2, 3, 4]
    assert Draw(1 << 20, 3, 2**64 - 1).positions().tolist() == [198359, 941051, 1043332]


def test_every_position_is_as_likely_as_any_other() -> None:
    size, count, draws = 50, 20, 4000
    hits = np.zeros(size)
    for seed in range(draws):
        hits[Draw(size, count, seed).positions()] += 1
    p = count / size
    deviation = np.sqrt(draws * p * (1 - p))
    assert np.abs(hits - draws * p).max() < 4.5 * deviation
    # Chi-squared with 49 degrees of freedom, less the spread that a fixed count takes away.
    assert ((hits - draws * p) ** 2).sum() / deviation**2 * (size - 1) / size < 90


def test_positions_cost_eight_bytes() -> None:
    vector = np.ones(100_000, np.float32)
    payload = build_codec("randk(0.1) | fp32").encode(vector, seed=3)
    assert len(payload) - 4 * 10_000 <= 32
    update = decode(payload, size=vector.size)
    assert isinstance(update, SparseUpdate)
    assert update.positions.tolist() == Draw(100_000, 10_000, 3).positions().tolist()


def test_values_are_sent_as_they_are_unless_asked_for_unbiased() -> None:
    vector = np.arange(1, 11, dtype=np.float32)
    plain = decode(build_codec("randk(0.3)").encode(vector, seed=1), size=10).to_dense()
    kept = plain != 0
    assert np.count_nonzero(kept) == 3
    assert plain[kept].tolist() == vector[kept].tolist()
    scaled = decode(build_codec("randk(0.3, unbiased)").encode(vector, seed=1), size=10)
    np.testing.assert_allclose(scaled.to_dense()[kept], vector[kept] * 10 / 3, rtol=1e-6)


def test_unbiased_scale_gives_the_vector_on_average() -> None:
    vector = np.linspace(-1, 1, 40).astype(np.float32)
    codec = build_codec("randk(0.25, unbiased)")
    draws = np.stack(
        [decode(codec.encode(vector, seed=seed), size=40).to_dense() for seed in range(4000)]
    )
    error = np.abs(draws.mean(axis=0) - vector)
    assert (error <= 4.5 * draws.std(axis=0) / np.sqrt(len(draws)) + 1e-7).all()


def test_other_seeds_draw_other_positions() -> None:
    first, second = (set(Draw(10_000, 100, seed).positions().tolist()) for seed in (1, 2))
    assert len(first & second) < 20


def test_scaling_stays_within_single_precision() -> None:
    vector = np.full(100, 3e38, np.float32)
    dense = decode(build_codec("randk(0.01, unbiased)").encode(vector), size=100).to_dense()
    assert dense.max() == pytest.approx(np.finfo(np.float32).max, rel=1e-6)


def body(count: int, *, size: int, seed: bytes = b"\0" * 8) -> bytes:
    writer = Writer()
    writer.varint(size)
    writer.byte(PositionMethod.SEED)
    writer.varint(count)
    writer.raw(seed)
    writer.raw(b"\x01\x00" + b"\0" * 40)
    return writer.to_frame(FrameKind.UPDATE)


def test_more_positions_than_entries_are_refused() -> None:
    with pytest.raises(PayloadError, match="11 where at most 10"):
        decode(body(11, size=10), size=10)


def test_nothing_is_drawn_for_values_that_are_missing() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match="truncated"):
            decode(body(1 << 39, size=1 << 40), size=1 << 40)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"density = 0\.0"):
        RandK(0.0)
    with pytest.raises(ConfigError, match="scale = 'big' is not 'one' or 'unbiased'"):
        RandK(0.1, "big")  # type: ignore[arg-type]
