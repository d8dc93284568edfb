"""Flower's mods for differential privacy with coded updates: in the right order only."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import (
    LocalDpMod,
    adaptiveclipping_mod,
    arrays_size_mod,
    fixedclipping_mod,
)
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    FedAvg,
    Result,
)

from fl_opt.client import compression_mod
from fl_opt.errors import ConfigError
from strategies import CompressedFedAvg, compressed
from tests.toy import initial_arrays, message_app, toy_grid

CLIENTS = 4
NORM = 0.05
FEDAVG = FedAvg(
    fraction_evaluate=0.0,
    min_train_nodes=CLIENTS,
    min_available_nodes=CLIENTS,
    weighted_by_key="num-examples",
)
FIXED = DifferentialPrivacyClientSideFixedClipping(
    FEDAVG, noise_multiplier=0.0, clipping_norm=NORM, num_sampled_clients=CLIENTS
)


def local_dp(epsilon: float = 1e9) -> LocalDpMod:
    return LocalDpMod(clipping_norm=NORM, sensitivity=0.1, epsilon=epsilon, delta=1e-5)


def norm(result: Result) -> float:
    return float(np.linalg.norm(result.arrays["weight"].numpy()))


def plain(codec: str = "none") -> CompressedFedAvg:
    return CompressedFedAvg(codec, feedback="none", fraction_evaluate=0.0)


def test_local_noise_and_clipping_act_on_the_update_before_it_is_coded() -> None:
    grid = toy_grid(message_app([compression_mod(), local_dp()]), CLIENTS)
    clipped = plain().start(grid, initial_arrays(), 1)
    assert 0 < norm(clipped) <= NORM * 1.001
    grid = toy_grid(message_app([compression_mod(), local_dp(epsilon=0.5)]), CLIENTS)
    noisy = plain("int8").start(grid, initial_arrays(), 1)
    assert norm(noisy) > 10 * NORM


def test_clients_that_clip_for_central_privacy_do_so_before_it_is_coded() -> None:
    for codec in ("none", "randk(0.5, scale=unbiased) | uniform(bits=8)"):
        grid = toy_grid(message_app([compression_mod(), fixedclipping_mod]), CLIENTS)
        strategy = compressed(FIXED, codec, feedback="none", fraction_evaluate=0.0)
        assert 0 < norm(strategy.start(grid, initial_arrays(), 1)) <= NORM * 1.001


def test_adaptive_clipping_gets_its_norm_bits() -> None:
    adaptive = DifferentialPrivacyClientSideAdaptiveClipping(
        FEDAVG,
        noise_multiplier=0.0,
        num_sampled_clients=CLIENTS,
        initial_clipping_norm=NORM,
        clipped_count_stddev=0.0,
    )
    grid = toy_grid(message_app([compression_mod(), adaptiveclipping_mod]), CLIENTS)
    strategy = compressed(adaptive, "none", feedback="none", fraction_evaluate=0.0)
    result = strategy.start(grid, initial_arrays(), 2)
    assert 0 < norm(result) <= 2 * NORM * 1.001
    # All updates were cut, so all bits are one: exp(-0.2 * (1 - 0.5)) in each round.
    assert adaptive.clipping_norm == pytest.approx(NORM * np.exp(-0.2))


def test_a_lossy_codec_cannot_send_more_than_the_clipping_norm() -> None:
    """Whatever comes out of decoding: the noise was computed for the norm."""
    grid = toy_grid(message_app([compression_mod()]), CLIENTS)  # clients do not clip at all
    strategy = compressed(FIXED, "none", feedback="none", fraction_evaluate=0.0)
    assert 0 < norm(strategy.start(grid, initial_arrays(), 1)) <= NORM * 1.001


@pytest.mark.parametrize("feedback", ["residual", "dgc"])
def test_a_residual_on_top_of_a_clipped_update_is_refused(feedback: str) -> None:
    with pytest.raises(ConfigError, match=f"feedback = '{feedback}' adds to updates"):
        compressed(FIXED, "none", feedback=feedback)
    with pytest.raises(ConfigError, match="feedback = 'residual' adds to updates"):
        compressed(FIXED)


@pytest.mark.parametrize(
    ("mod", "name"),
    [
        (local_dp(), "LocalDpMod"),
        (fixedclipping_mod, "fixedclipping_mod"),
        (adaptiveclipping_mod, "adaptiveclipping_mod"),
    ],
)
def test_mods_that_would_change_coded_bytes_are_refused(mod: Any, name: str) -> None:
    # As an eager user would arrange it, so that nothing but the order is wrong.
    hidden: dict[str, ConfigRecord] = {}

    def hide(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        content = message.content
        for key in [key for key in content.config_records if key != "config"]:
            hidden[key] = content.config_records.pop(key)
        content["config"] = ConfigRecord({"clipping_norm": NORM})
        return call_next(message, context)

    def show(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        message.content.update(hidden)
        return call_next(message, context)

    app = message_app([hide, mod, show, compression_mod()])
    reasons: list[str] = []

    def listen(message: Message, context: Context) -> Message:
        try:
            return app(message, context)
        except ConfigError as error:
            reasons.append(str(error))
            raise

    plain().start(toy_grid(cast(ClientApp, listen), 2), initial_arrays(), 1)
    expected = f"{name} comes before compression_mod in the list of mods"
    assert [expected in reason for reason in reasons] == [True, True]


def test_mods_that_only_look_may_come_first() -> None:
    mods = [arrays_size_mod, compression_mod(), local_dp()]
    result = plain().start(toy_grid(message_app(mods), CLIENTS), initial_arrays(), 1)
    assert 0 < norm(result) <= NORM * 1.001


def test_records_of_the_app_are_as_the_mods_want_them() -> None:
    """One record of arrays, one of config: what Flower's mods insist on."""
    seen: list[RecordDict] = []

    def look(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        seen.append(message.content)
        return call_next(message, context)

    grid = toy_grid(message_app([compression_mod(), look]), 2)
    plain().start(grid, initial_arrays(), 1)
    assert [len(content.array_records) for content in seen] == [1, 1]
    assert [len(content.config_records) for content in seen] == [1, 1]
    assert isinstance(next(iter(seen[0].array_records.values())), ArrayRecord)
