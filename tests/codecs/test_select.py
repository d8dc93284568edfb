"""Selections: exact counts, the right entries, ties settled by position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, decode
from fl_opt.codecs.select import BlockTopK, Threshold, TopK
from fl_opt.errors import CodecError, ConfigError

Vector = NDArray[np.float32]


def reference(vector: Vector, count: int) -> NDArray[np.int64]:
    """Sort by magnitude, then by position: slow and plain."""
    order = np.lexsort((np.arange(vector.size), -np.abs(vector)))
    kept = order[:count]
    return np.sort(kept[vector[kept] != 0])


def count_of(density: float, size: int) -> int:
    return max(1, round(density * size))


def parts_of(vector: Vector, sizes: list[int]) -> list[tuple[int, Vector]]:
    starts = np.cumsum([0, *sizes])
    return [
        (int(start), vector[start : start + size])
        for start, size in zip(starts[:-1], sizes, strict=True)
    ]


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(-4, 4), min_size=1, max_size=300),
    density=st.floats(1e-6, 1.0),
)
def test_topk_agrees_with_sorting(values: list[int], density: float) -> None:
    vector = np.array(values, np.float32)
    found = TopK(density).select(vector, 0, (vector.shape,))
    np.testing.assert_array_equal(found, reference(vector, count_of(density, vector.size)))


@pytest.mark.parametrize("density", [1e-7, 1e-4, 0.01, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("kind", ["normal", "ties", "sparse", "sorted", "spikes on a stride"])
def test_topk_agrees_with_sorting_where_the_cut_is_sampled(kind: str, density: float) -> None:
    generator = np.random.default_rng(5)
    size = 200_003
    vector = generator.standard_normal(size).astype(np.float32)
    if kind == "ties":
        vector = np.round(vector)
    elif kind == "sparse":
        vector[generator.random(size) < 0.999] = 0.0
    elif kind == "sorted":
        vector = np.sort(vector)
    elif kind == "spikes on a stride":
        vector[::3] *= 1000.0
    found = TopK(density).select(vector, 0, (vector.shape,))
    np.testing.assert_array_equal(found, reference(vector, count_of(density, size)))


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.integers(-4, 4), max_size=200),
    cuts=st.lists(st.integers(0, 200), max_size=5),
    density=st.floats(1e-6, 1.0),
)
def test_topk_by_tensor_is_topk_of_each_array(
    values: list[int], cuts: list[int], density: float
) -> None:
    vector = np.array(values, np.float32)
    edges = sorted(min(cut, vector.size) for cut in cuts)
    sizes = np.diff([0, *edges, vector.size]).tolist()
    layout = tuple((1, size) for size in sizes)
    expected = [
        reference(part, count_of(density, part.size)) + start
        for start, part in parts_of(vector, sizes)
        if part.size
    ]
    found = TopK(density, "tensor").select(vector, 0, layout)
    np.testing.assert_array_equal(found, np.concatenate([np.empty(0, np.int64), *expected]))


def test_topk_by_tensor_sends_something_of_small_arrays() -> None:
    vector = np.array([100.0] * 1000 + [1e-3, 2e-3], np.float32)
    layout = ((10, 100), (0,), (2,))
    payload = build_codec("topk(0.01, tensor) | fp32").encode(vector, layout=layout)
    dense = decode(payload, size=vector.size).to_dense()
    assert np.count_nonzero(dense[:1000]) == 10
    np.testing.assert_array_equal(dense[1000:], vector[1000:] * [0, 1])


def test_a_layout_of_another_size_is_refused() -> None:
    with pytest.raises(CodecError, match="layout of 5 entries for a vector of 6"):
        TopK(0.5, "tensor").select(np.ones(6, np.float32), 0, ((5,),))


def test_positions_of_bad_entries_count_from_the_start_of_the_vector() -> None:
    vector = np.ones(10, np.float32)
    vector[7] = np.nan
    with pytest.raises(CodecError, match="entry 7 "):
        TopK(0.5, "tensor").select(vector, 0, ((5,), (5,)))


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), max_size=300),
    density=st.floats(1e-6, 1.0),
    block=st.integers(2, 50),
)
def test_block_topk_is_topk_of_each_block(
    values: list[int], density: float, block: int
) -> None:
    vector = np.array(values, np.float32)
    expected = [
        reference(
            vector[start : start + block], count_of(density, min(block, vector.size - start))
        )
        + start
        for start in range(0, vector.size, block)
    ]
    found = BlockTopK(density, block).select(vector, 0, (vector.shape,))
    np.testing.assert_array_equal(found, np.concatenate([np.empty(0, np.int64), *expected]))


def test_block_topk_of_many_chunks() -> None:
    vector = np.random.default_rng(0).standard_normal(300_001).astype(np.float32)
    found = BlockTopK(0.01, 1000).select(vector, 0, (vector.shape,))
    counts = np.bincount(found // 1000, minlength=301)
    assert counts[:300].tolist() == [10] * 300
    assert counts[300] == 1
    np.testing.assert_array_equal(
        found[-11:-1] - 299_000, reference(vector[299_000:300_000], 10)
    )


def test_threshold_keeps_what_reaches_it() -> None:
    vector = np.array([0.5, -0.5, 0.4999999, 0.0, -3.0, 0.1], np.float32)
    assert Threshold(0.5).select(vector, 0, (vector.shape,)).tolist() == [0, 1, 4]
    # 0.1 is no single-precision number: the threshold is rounded as the entries are.
    assert Threshold(0.1).select(vector, 0, (vector.shape,)).tolist() == [0, 1, 2, 4, 5]
    assert Threshold(9.0).select(vector, 0, (vector.shape,)).size == 0


def test_threshold_that_nothing_reaches_gives_an_empty_update() -> None:
    codec = build_codec("threshold(1) | ternary")
    payload = codec.encode(np.zeros(100_000, np.float32))
    assert len(payload) < 32
    assert not decode(payload, size=100_000).to_dense().any()


@pytest.mark.parametrize("density", [0.0, -0.1, 1.0001, float("nan")])
@pytest.mark.parametrize("kind", [TopK, BlockTopK])
def test_density_out_of_range_is_refused(kind: type, density: float) -> None:
    with pytest.raises(ConfigError, match=r"not in \(0, 1\]"):
        kind(density)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e-45])
def test_threshold_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"value = .* is not between"):
        Threshold(value)


@pytest.mark.parametrize("block", [0, 1, 1 << 21])
def test_block_out_of_range_is_refused(block: int) -> None:
    with pytest.raises(ConfigError, match=r"block = .* is not between 2"):
        BlockTopK(0.1, block)


def test_scope_that_is_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match="scope = 'layer' is not 'model' or 'tensor'"):
        TopK(0.1, "layer")  # type: ignore[arg-type]
