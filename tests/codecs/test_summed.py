"""Codes that add up: sums modulo a power of two decode exactly, masked or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_opt.codecs.summed import Codes, SumCodec
from fl_opt.codecs.update import Vector
from fl_opt.errors import CodecError, ConfigError, PayloadError

CODEC = SumCodec(size=500, density=0.1, step=0.01, bits=16, num_clients=10)


def updates(count: int, seed: int = 0, scale: float = 0.1) -> list[Vector]:
    draws = np.random.default_rng(seed).normal(0, scale, (count, CODEC.size)).astype(np.float32)
    return list(draws)


def modular_sum(codec: SumCodec, codes: list[Codes]) -> Codes:
    total: NDArray[np.uint64] = np.sum(np.stack(codes).astype(np.uint64), axis=0)
    return (total % np.uint64(codec.modulus)).astype(np.uint32)


@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 10),
    bits=st.integers(5, 32),
    density=st.sampled_from([0.002, 0.1, 0.7, 1.0]),
    scale=st.sampled_from([1e-3, 0.1, 1e3]),
)
def test_the_sum_of_codes_is_the_code_of_the_sum(
    seed: int, clients: int, bits: int, density: float, scale: float
) -> None:
    codec = replace(CODEC, bits=bits, density=density)
    codes = [
        codec.encode(update, shared_seed=seed, seed=index)
        for index, update in enumerate(updates(clients, seed, scale))
    ]
    one_by_one = np.sum([codec.signed(code) for code in codes], axis=0)
    decoded = codec.decode(modular_sum(codec, codes), shared_seed=seed)
    np.testing.assert_array_equal(
        decoded.values, (one_by_one * np.float64(codec.step)).astype(np.float32)
    )
    np.testing.assert_array_equal(decoded.positions, codec.positions(seed))


@given(seed=st.integers(0, 2**32))
def test_masks_that_cancel_change_nothing_and_hide_everything(seed: int) -> None:
    count = 5
    codes = [
        CODEC.encode(update, shared_seed=seed, seed=index)
        for index, update in enumerate(updates(count, seed))
    ]
    masks = np.random.default_rng(seed).integers(0, CODEC.modulus, (count, count, CODEC.count))
    masked = [
        (
            codes[i].astype(np.int64)
            + sum(masks[i, j] for j in range(count) if j > i)
            - sum(masks[j, i] for j in range(count) if j < i)
        )
        % CODEC.modulus
        for i in range(count)
    ]
    total = np.sum(masked, axis=0) % CODEC.modulus
    np.testing.assert_array_equal(total, modular_sum(CODEC, codes))
    for plain, hidden in zip(codes, masked, strict=True):
        assert np.mean(plain == hidden) < 0.2  # by chance alone


def test_every_entry_is_within_a_step_and_right_on_average() -> None:
    codec = replace(CODEC, density=1.0)
    [update] = updates(1)
    decoded = [
        codec.decode(codec.encode(update, shared_seed=1, seed=seed), shared_seed=1).to_dense()
        for seed in range(400)
    ]
    errors = np.array(decoded, np.float64) - update
    assert np.abs(errors).max() < codec.step * 1.0001
    # The spread of a mean of 400 roundings is at most step / 40; five of these, 500 entries.
    assert np.abs(errors.mean(0)).max() < 5 * codec.step / 40


def test_what_is_too_large_is_cut_and_does_not_wrap() -> None:
    huge = np.full(CODEC.size, 1e30, np.float32)
    codes = [
        CODEC.encode(sign * huge, shared_seed=1, seed=seed)
        for seed, sign in enumerate([1.0] * CODEC.num_clients)
    ]
    decoded = CODEC.decode(modular_sum(CODEC, codes), shared_seed=1)
    np.testing.assert_allclose(decoded.values, CODEC.largest * CODEC.num_clients, rtol=1e-6)
    low = CODEC.decode(CODEC.encode(-huge, shared_seed=1, seed=1), shared_seed=1)
    np.testing.assert_allclose(low.values, -CODEC.largest, rtol=1e-6)


def test_all_clients_of_a_round_send_the_same_positions_and_other_rounds_others() -> None:
    first, again, second = (CODEC.positions(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert first.size == CODEC.count == 50


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"size": 0}, "size"),
        ({"density": 0.0}, "density"),
        ({"density": 1.5}, "density"),
        ({"step": 0.0}, "step"),
        ({"step": float("nan")}, "step"),
        ({"step": float("inf")}, "step"),
        ({"bits": 1}, "bits"),
        ({"bits": 33}, "bits"),
        ({"num_clients": 0}, "num_clients"),
        ({"bits": 4}, "bits"),  # 7 levels for 10 clients
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        replace(CODEC, **changes)


@pytest.mark.parametrize("clients", [1, 2, 3, 4, 7, 8, 100, 1000])
def test_the_bits_that_the_error_names_are_enough(clients: int) -> None:
    needed = clients.bit_length() + 1
    assert replace(CODEC, bits=needed, num_clients=clients).largest_code == 1
    if needed > 2:
        with pytest.raises(ConfigError, match=f"{needed} or more do"):
            replace(CODEC, bits=needed - 1, num_clients=clients)


def test_bad_updates_are_refused() -> None:
    good = updates(1)[0]
    bads: list[NDArray[Any]] = [good[:-1], good.astype(np.float64), good.reshape(5, -1)]
    for bad in bads:
        with pytest.raises(CodecError, match="float32"):
            CODEC.encode(bad, shared_seed=1, seed=1)
    for value in (np.nan, np.inf):
        spoilt = good.copy()
        spoilt[3] = value
        with pytest.raises(CodecError, match=r"entry 3 of the update is .* must be finite"):
            CODEC.encode(spoilt, shared_seed=1, seed=1)


def test_bad_sums_are_refused() -> None:
    good = CODEC.encode(updates(1)[0], shared_seed=1, seed=1)
    bads: list[NDArray[Any]] = [good[:-1], good.astype(np.float32), good.reshape(5, -1)]
    for bad in bads:
        with pytest.raises(PayloadError, match="integers of shape"):
            CODEC.decode(bad, shared_seed=1)
    for value in (-1, CODEC.modulus):
        spoilt = good.astype(np.int64)
        spoilt[0] = value
        with pytest.raises(PayloadError, match="outside"):
            CODEC.decode(spoilt, shared_seed=1)
    spoilt = good.astype(np.int64)
    spoilt[0] = CODEC.modulus // 2
    with pytest.raises(PayloadError, match="more than num_clients"):
        CODEC.decode(spoilt, shared_seed=1)
