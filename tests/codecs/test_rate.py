"""Rate control: never above the target, and close below it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, decode
from fl_opt.errors import CodecError, ConfigError


def laplace(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(4).laplace(size=size).astype(np.float32)


@pytest.mark.parametrize("bits", [0.02, 0.05, 0.3, 1.0])
@pytest.mark.parametrize(
    "rest",
    [
        "topk | ternary",
        "topk | ternary | rice",
        "topk | uniform(bits=4)",
        "topk | fp32",
        "randk | sign",
        "topk(scope=tensor) | fp16",
    ],
)
def test_real_payloads_meet_the_target(rest: str, bits: float) -> None:
    vector = laplace(100_000)
    payload = build_codec(f"bits_per_parameter({bits}) | {rest}").encode(vector, seed=3)
    limit = bits * vector.size / 8
    assert 0.98 * limit <= len(payload) <= limit
    assert decode(payload, size=vector.size).count > 0


def test_bytes_are_a_limit_on_the_whole_payload() -> None:
    payload = build_codec("bytes(5000) | topk | ternary").encode(laplace(300_000))
    assert 4900 <= len(payload) <= 5000


def test_a_generous_target_keeps_everything() -> None:
    vector = laplace(1000)
    payload = build_codec("bytes(1000000) | topk | fp32").encode(vector)
    np.testing.assert_array_equal(decode(payload, size=1000).to_dense(), vector)


def test_a_target_below_one_entry_is_refused() -> None:
    with pytest.raises(CodecError, match=r"1000 entries cannot be coded as .* in 20 bytes"):
        build_codec("bytes(20) | topk | ternary").encode(laplace(1000))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("bits_per_parameter(0) | topk", r"bits = 0.0 is not in \(0, 32\]"),
        ("bytes(0) | topk", "count = 0 is not at least 1"),
        ("bytes(100) | int8", "'int8' is a preset"),
        ("bytes(100) | uniform(8)", "a target size needs a stage that it can set"),
        ("bytes(100) | powersgd(2)", "cannot be combined with a transform"),
        ("topk | bytes(100)", "'bytes' cannot come here"),
    ],
)
def test_specs_without_meaning_are_refused(spec: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_codec(spec)
