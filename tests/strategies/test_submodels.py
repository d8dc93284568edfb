"""Cohorts of several widths: each weight is the mean of those who have trained it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.serverapp.strategy import FedMedian
from numpy.typing import NDArray

from fl_opt.config import Settings
from fl_opt.errors import ConfigError
from fl_opt.exchange import records
from fl_opt.exchange.submodels import build_submodels, cut, width_of
from strategies import CompressedFedAvg, CompressedFedBuff
from strategies.fednova import CompressedFedNova
from strategies.registry import build_strategy
from strategies.wrapped import compressed
from tests.strategies.chain import APP, MODEL, SPEC, run_chain
from tests.strategies.federation import run

SEED = 3
CLIENTS = 5


def by_hand(spec: str, rounds: int) -> NDArray[np.float64]:
    """Work the model out, entry by entry."""
    rule = build_submodels(spec)
    vector = SPEC.flatten(MODEL).astype(np.float64)
    for version in range(rounds):
        total, weights = np.zeros(SPEC.size), np.zeros(SPEC.size)
        for client in range(CLIENTS):
            width = width_of(rule, client, seed=SEED)
            mask = np.ones(SPEC.size, np.bool_)
            if width < 1.0:
                mask = cut(SPEC, spec, width, version).covers.mask
            total[mask] += (1.0 + client) * (1 + client)
            weights[mask] += 1 + client
        vector += np.divide(total, weights, out=np.zeros(SPEC.size), where=weights > 0)
    return vector


@pytest.mark.parametrize(
    "spec",
    ["rolling(0.5)", "static(0.5)", "rolling(0.25, share=0.6)", "static(0.5, share=0.4)"],
)
def test_each_weight_is_the_mean_of_those_who_cover_it(spec: str) -> None:
    strategy = partial(CompressedFedAvg, submodels=spec, seed=SEED, evaluate_every=1)
    vector, recorder = run_chain(strategy, num_clients=CLIENTS, num_rounds=3)
    np.testing.assert_allclose(vector, by_hand(spec, 3), rtol=1e-5)
    assert [r.failures for r in recorder.rounds] == [0] * 4
    assert [r.participants for r in recorder.rounds[1:]] == [CLIENTS] * 3


def test_what_nobody_trains_stays() -> None:
    strategy = partial(CompressedFedAvg, submodels="static(0.5)", seed=SEED)
    vector, _ = run_chain(strategy, num_clients=2, num_rounds=2)
    outside = ~cut(SPEC, "static(0.5)", 0.5, 0).covers.mask
    np.testing.assert_array_equal(vector[outside], SPEC.flatten(MODEL)[outside])
    assert (vector[~outside] > SPEC.flatten(MODEL)[~outside]).all()


def test_bytes_are_those_of_the_part() -> None:
    sizes = {}
    for spec in ("none", "rolling(0.5)"):
        strategy = partial(CompressedFedAvg, submodels=spec, seed=SEED)
        _, recorder = run_chain(strategy, num_clients=1)
        sizes[spec] = recorder.rounds[1].bytes_up
    part = cut(SPEC, "rolling(0.5)", 0.5, 0).covers.count
    assert 0 <= sizes["none"] - sizes["rolling(0.5)"] - 4 * (SPEC.size - part) <= 2


def test_asynchronous_clients_are_read_by_the_window_they_were_asked_for() -> None:
    strategy = partial(
        CompressedFedBuff,
        submodels="rolling(0.5)",
        buffer_size=2,
        max_concurrency=5,
        seed=SEED,
        staleness="constant",
    )
    vector, recorder = run_chain(strategy, num_clients=CLIENTS, num_rounds=6)
    assert sum(r.stale for r in recorder.rounds)
    assert sum(r.failures for r in recorder.rounds) == 0
    # Clients add whole numbers to what they cover, and nothing to the rest.
    moved = vector - SPEC.flatten(MODEL)
    assert (moved > -1e-5).all()


def test_a_node_that_knows_its_width_decides() -> None:
    def tamper(message: Message, context: Context) -> Message:
        context.node_config["model-width"] = 0.25
        return APP(message, context)

    strategy = partial(CompressedFedAvg, submodels="static(0.5, share=0.01)", seed=SEED)
    vector, recorder = run_chain(strategy, num_clients=1, app=tamper)
    covered = cut(SPEC, "static(0.5)", 0.25, 0).covers.mask
    np.testing.assert_array_equal(vector != SPEC.flatten(MODEL), covered)
    assert recorder.rounds[1].failures == 0


@pytest.mark.parametrize(
    ("claim", "reason"),
    [(0.25, "entries, expected"), (7.0, "width = 7.0 of a sub-model"), ("x", "is not float")],
)
def test_a_claim_that_does_not_hold_is_refused(claim: Any, reason: str) -> None:
    def tamper(message: Message, context: Context) -> Message:
        reply = APP(message, context)
        if context.node_config["partition-id"] == 0:
            reply.content.config_records[records.META]["width"] = claim
        return reply

    strategy = partial(CompressedFedAvg, submodels="static(0.5)", seed=SEED, evaluate_every=0)
    _, recorder = run_chain(strategy, num_clients=2, app=tamper)
    assert [c.error for c in recorder.rounds[1].clients if c.error] != []
    assert any(reason in (c.error or "") for c in recorder.rounds[1].clients)
    assert recorder.rounds[1].participants == 1


def test_a_sub_model_that_nobody_asked_for_is_refused() -> None:
    def tamper(message: Message, context: Context) -> Message:
        reply = APP(message, context)
        reply.content.config_records[records.META]["width"] = 0.5
        return reply

    strategy = partial(CompressedFedAvg, evaluate_every=0)
    _, recorder = run_chain(strategy, num_clients=1, app=tamper)
    assert "update of a sub-model of width 0.5: there are none" in str(
        recorder.rounds[1].clients[0].error
    )


@pytest.mark.parametrize(
    "build",
    [
        partial(CompressedFedNova, "none"),
        lambda **options: compressed(FedMedian(), "none", **options),
    ],
)
def test_strategies_that_need_whole_models_refuse(build: Any) -> None:
    with pytest.raises(ConfigError, match="this strategy needs updates of the whole model"):
        build(submodels="rolling(0.5)")


def test_a_model_that_cannot_be_cut_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match=r"chain of layers, .* array 'steps' travels"):
        run(submodels="rolling(0.5)")


def test_the_run_config_names_it() -> None:
    with pytest.raises(ConfigError, match="unknown submodels 'thin'"):
        build_strategy(Settings(submodels="thin(0.5)"))
    with pytest.raises(ConfigError, match="whole model"):
        build_strategy(Settings(submodels="rolling(0.5)", strategy="fednova"))
    build_strategy(Settings(submodels="rolling(0.5, share=0.3)", strategy="fedprox"))
