"""Vectors of a part of the model: gathered before a codec sees them, scattered behind it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, decode
from fl_opt.errors import CodecError, PayloadError
from fl_opt.exchange.blob import decode_blob, decode_covered, encode_blob
from fl_opt.exchange.coverage import Coverage
from fl_opt.params import ParamSpec

MODEL = {
    "weight": np.zeros((6, 10), np.float32),
    "bias": np.zeros(6, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "steps": np.array(4),
}
SPEC = ParamSpec.of(MODEL)
EXACT = SPEC.exact_part(MODEL)
CODECS = [
    "none",
    "fp16",
    "int8",
    "sign",
    "qsgd",
    "eden",
    "ecsq(2.0)",
    "topk(0.2) | ternary",
    "threshold(0.5) | uniform(4)",
    "randk(0.3) | uniform(8)",
    "topk(0.3) | fp16; *bias: fp32",
]

masks = st.lists(st.booleans(), min_size=SPEC.size, max_size=SPEC.size).filter(any)


def vector(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, SPEC.size).astype(np.float32)


@given(masks)
def test_a_mask_is_kept_bit_by_bit(chosen: list[bool]) -> None:
    mask = np.array(chosen)
    covers = Coverage.of(mask)
    np.testing.assert_array_equal(covers.mask, mask)
    np.testing.assert_array_equal(covers.positions, np.flatnonzero(mask))
    assert covers == Coverage.at(np.flatnonzero(mask)[::-1], mask.size)
    assert covers == Coverage(mask.size, covers.bits)
    assert covers.count == mask.sum()
    np.testing.assert_array_equal(
        covers.clear_others(vector()), np.where(mask, vector(), np.float32(0))
    )
    sizes = [mask[:60].sum(), mask[60:].sum(), 0]
    assert covers.layout(SPEC) == tuple((size,) for size in sizes)


@given(masks, masks)
def test_the_intersection_is_what_both_cover(one: list[bool], other: list[bool]) -> None:
    both = Coverage.of(np.array(one)) & Coverage.of(np.array(other))
    np.testing.assert_array_equal(both.mask, np.array(one) & np.array(other))


@pytest.mark.parametrize("spec", CODECS)
@given(chosen=masks, seed=st.integers(0, 5))
def test_a_codec_sees_what_is_covered_and_nothing_else(
    spec: str, chosen: list[bool], seed: int
) -> None:
    covers, codec = Coverage.of(np.array(chosen)), build_codec(spec)
    short = covers.gather(vector(seed))
    blob = encode_blob(SPEC, codec, short, EXACT, seed=seed, covers=covers)
    alone = codec.encode(short, seed=seed, layout=covers.layout(SPEC), names=SPEC.names)
    assert blob.startswith(alone)
    expected = np.zeros(SPEC.size, np.float32)
    expected[covers.positions] = decode(alone, size=covers.count).to_dense()
    update, exact = decode_blob(blob, SPEC, covers)
    np.testing.assert_array_equal(update.to_dense(), expected)
    assert exact["steps"] == 4
    total = np.ones(SPEC.size)
    update.add_to(total, 3.0)
    np.testing.assert_array_equal(total, 1 + np.float64(3) * expected)
    np.testing.assert_array_equal(
        decode_covered(blob, covers).to_dense(), expected[covers.positions]
    )


def test_what_cannot_be_sent_is_named_by_its_place_in_the_whole_model() -> None:
    covers = Coverage.at(np.array([3, 7, 62]), SPEC.size)
    short = np.array([1, 2, np.nan], np.float32)
    with pytest.raises(CodecError, match="array 'bias' holds nan") as caught:
        encode_blob(SPEC, build_codec("none"), short, EXACT, seed=0, covers=covers)
    assert caught.value.position == 62


def test_an_update_of_another_part_is_refused() -> None:
    ours, theirs = (Coverage.at(np.arange(n), SPEC.size) for n in (10, 11))
    blob = encode_blob(
        SPEC, build_codec("none"), np.zeros(10, np.float32), EXACT, seed=0, covers=ours
    )
    with pytest.raises(PayloadError, match="10 entries, expected 11"):
        decode_blob(blob, SPEC, theirs)
    with pytest.raises(PayloadError, match="10 entries, expected 66"):
        decode_blob(blob, SPEC)


def test_bits_of_another_length_are_refused() -> None:
    with pytest.raises(PayloadError, match="a mask of 9 entries has 1 bytes"):
        Coverage(9, b"\0")
