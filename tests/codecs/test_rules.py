"""Rules: each array through its own codec, in one payload."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_opt.codecs import DenseUpdate, SparseUpdate, build_codec, decode
from fl_opt.codecs.rules import RULES_METHOD, write_ranges
from fl_opt.errors import CodecError, ConfigError, PayloadError
from fl_opt.wire import FrameKind, Writer

NAMES = ("embed.weight", "embed.bias", "head.weight", "head.bias")
LAYOUT = ((50, 40), (40,), (40, 30), (30,))
SIZE = 2000 + 40 + 1200 + 30


def vector() -> NDArray[np.float32]:
    return np.random.default_rng(6).standard_normal(SIZE).astype(np.float32)


def test_each_array_takes_its_own_codec() -> None:
    codec = build_codec("topk(0.05) | ternary; *bias: fp32; head*: int8; size<100: none")
    update = decode(codec.encode(vector(), layout=LAYOUT, names=NAMES), size=SIZE)
    decoded, original = update.to_dense(), vector()
    assert np.count_nonzero(decoded[:2000]) == 100
    np.testing.assert_array_equal(decoded[2000:2040], original[2000:2040])
    np.testing.assert_allclose(decoded[2040:3240], original[2040:3240], atol=0.02)
    assert (decoded[2040:3240] != original[2040:3240]).any()
    np.testing.assert_array_equal(decoded[3240:], original[3240:])
    assert isinstance(update, DenseUpdate)


def test_mostly_sparse_updates_stay_sparse() -> None:
    codec = build_codec("topk(0.02) | ternary; *bias: fp32")
    update = decode(codec.encode(vector(), layout=LAYOUT, names=NAMES), size=SIZE)
    assert isinstance(update, SparseUpdate)
    assert update.count == round(0.02 * 3200) + 70
    assert (np.diff(update.positions) > 0).all()
    np.testing.assert_array_equal(update.to_dense()[2000:2040], vector()[2000:2040])
    accumulator = np.ones(SIZE)
    update.add_to(accumulator, 2.0)
    np.testing.assert_allclose(accumulator, 1 + 2 * update.to_dense().astype(np.float64))


def test_one_codec_for_all_equals_the_codec_without_rules() -> None:
    plain = build_codec("topk(0.1) | ternary")
    ruled = build_codec("fp32; *: topk(0.1) | ternary")
    expected = decode(plain.encode(vector(), layout=LAYOUT), size=SIZE).to_dense()
    found = decode(ruled.encode(vector(), layout=LAYOUT, names=NAMES), size=SIZE).to_dense()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("condition", ["size<1200", "size <= 1199", "*bias", "head.bias"])
def test_conditions_on_size_and_name(condition: str) -> None:
    codec = build_codec(f"topk(0.001) | ternary; {condition}: fp32")
    decoded = decode(codec.encode(vector(), layout=LAYOUT, names=NAMES), size=SIZE).to_dense()
    np.testing.assert_array_equal(decoded[3240:], vector()[3240:])
    assert np.count_nonzero(decoded[2040:3240]) < 10


def test_rules_may_hold_a_transform() -> None:
    codec = build_codec("fp32; size>1000: powersgd(2)")
    decoded = decode(codec.encode(vector(), layout=LAYOUT, names=NAMES), size=SIZE).to_dense()
    np.testing.assert_array_equal(decoded[3240:], vector()[3240:])
    assert np.linalg.matrix_rank(decoded[:2000].reshape(50, 40)) == 2


def test_nan_is_traced_to_its_place_in_the_whole_vector() -> None:
    broken = vector()
    broken[3245] = np.inf
    with pytest.raises(CodecError, match="entry 3245") as caught:
        build_codec("fp32; *bias: topk").encode(broken, layout=LAYOUT, names=NAMES)
    assert caught.value.position == 3245


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("fp32; fp16", "codec rule 'fp16' is not 'condition: codec'"),
        ("fp32; : fp16", "is not 'condition: codec'"),
        ("fp32; a*: nothing", "unknown stage 'nothing'"),
        ("fp32; a*: bytes(100) | topk", "target size cannot be combined with rules"),
    ],
)
def test_malformed_rules_are_refused(spec: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_codec(spec)


@pytest.mark.parametrize(
    "ranges",
    [[(0, 4), (4, 9)], [(0, 4), (5, 10)], [(0, 4), (4, 11)], [(0, 10), (10, 10)]],
    ids=["short", "gap", "beyond", "empty"],
)
def test_groups_that_do_not_cover_the_model_are_refused(ranges: list[tuple[int, int]]) -> None:
    writer = Writer()
    writer.varint(10)
    writer.byte(RULES_METHOD)
    writer.varint(1)
    write_ranges(writer, ranges)
    build_codec("none").write(  # type: ignore[attr-defined]
        writer, np.ones(sum(b - a for a, b in ranges), np.float32), seed=0, layout=()
    )
    with pytest.raises(PayloadError, match=r"range of arrays|groups of arrays"):
        decode(writer.to_frame(FrameKind.UPDATE), size=10)


def test_groups_that_overlap_are_refused() -> None:
    writer = Writer()
    writer.varint(10)
    writer.byte(RULES_METHOD)
    writer.varint(2)
    for ranges in ([(0, 6)], [(4, 10)]):
        write_ranges(writer, ranges)
        part = np.ones(6, np.float32)
        build_codec("none").write(writer, part, seed=0, layout=())  # type: ignore[attr-defined]
    with pytest.raises(PayloadError, match="overlap"):
        decode(writer.to_frame(FrameKind.UPDATE), size=10)
