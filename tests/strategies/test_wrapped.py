"""Flower's own strategies behind codecs do what they do without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)

from fl_opt.client import numpy_client_app
from fl_opt.errors import ConfigError
from fl_opt.exchange.downlink import DownlinkOptions
from strategies import compressed
from tests.strategies.federation import Recorder, weights
from tests.toy import first_arrays, initial_arrays, message_app, pull_client_fn, toy_grid

CLIENTS, ROUNDS = 7, 4
COMMON: dict[str, Any] = {
    "min_train_nodes": CLIENTS,
    "min_evaluate_nodes": CLIENTS,
    "min_available_nodes": CLIENTS,
}
MAKERS: dict[str, Callable[[], Strategy]] = {
    "fedavg": lambda: FedAvg(**COMMON),
    "fedavgm": lambda: FedAvgM(**COMMON, server_momentum=0.6),
    "fedadagrad": lambda: FedAdagrad(**COMMON),
    "fedadam": lambda: FedAdam(**COMMON),
    "fedyogi": lambda: FedYogi(**COMMON),
    "krum": lambda: Krum(**COMMON, num_malicious_nodes=1),
    "multi-krum": lambda: MultiKrum(**COMMON, num_malicious_nodes=1, num_nodes_to_select=3),
    "bulyan": lambda: Bulyan(**COMMON, num_malicious_nodes=1),
    "median": lambda: FedMedian(**COMMON),
    "trimmed": lambda: FedTrimmedAvg(**COMMON, beta=0.2),
    "qfedavg": lambda: QFedAvg(0.5, q=0.5, train_loss_key="train-loss", **COMMON),
}


def floats_only() -> ArrayRecord:
    """The toy model with a counter that Flower's own optimizers can deal with."""
    arrays = initial_arrays()
    return ArrayRecord({**arrays, "steps": Array(np.zeros((), np.float32))})


@pytest.mark.parametrize("name", MAKERS)
def test_uncoded_updates_give_what_the_bare_strategy_gives(name: str) -> None:
    bare = MAKERS[name]().start(toy_grid(message_app([]), CLIENTS), floats_only(), ROUNDS)
    wrapped = compressed(MAKERS[name](), "none", feedback="none").start(
        toy_grid(numpy_client_app(pull_client_fn), CLIENTS), floats_only(), ROUNDS
    )
    # The server adds the update to the model, which rounds where the bare one does not; in the
    # first step of adaptive optimizers that is divided by very small numbers.
    rtol, atol = (2e-3, 2e-4) if name in {"fedadagrad", "fedadam", "fedyogi"} else (0.0, 2e-6)
    np.testing.assert_allclose(
        weights(wrapped.arrays), weights(bare.arrays), rtol=rtol, atol=atol
    )
    for ours, theirs in (
        (wrapped.train_metrics_clientapp[1], bare.train_metrics_clientapp[1]),
        (wrapped.evaluate_metrics_clientapp[4], bare.evaluate_metrics_clientapp[4]),
    ):
        assert {key: ours[key] for key in theirs} == pytest.approx(dict(theirs), rel=1e-3)


def test_with_codecs_it_comes_near() -> None:
    recorder = Recorder()
    strategy = compressed(
        FedMedian(**COMMON),
        "uniform(6)",
        downlink=DownlinkOptions("auto", "ecsq(step=0.01)", "seed"),
        observers=[recorder],
    )
    app = numpy_client_app(pull_client_fn, first_arrays)
    coded = strategy.start(toy_grid(app, CLIENTS), initial_arrays(), 12)
    bare = MAKERS["median"]().start(toy_grid(message_app([]), CLIENTS), initial_arrays(), 12)
    assert np.abs(weights(coded.arrays) - weights(bare.arrays)).mean() < 0.15
    last = recorder.rounds[-1]
    assert last.participants == CLIENTS
    assert last.bytes_up < last.dense_bytes_up


def test_a_client_that_lies_does_not_move_the_median() -> None:
    app = numpy_client_app(pull_client_fn)

    def liar(message: Message, context: Any) -> Message:
        reply = app(message, context)
        if message.metadata.message_type == "train" and context.node_id == 1003:
            reply.content.metric_records["metrics"]["num-examples"] = 10**8
        return reply

    def final(strategy: Strategy, handle: Any) -> Any:
        return weights(strategy.start(toy_grid(handle, CLIENTS), initial_arrays(), 2).arrays)

    options: dict[str, Any] = {"codec": "none", "feedback": "none"}
    honest = final(compressed(MAKERS["median"](), **options), app)
    np.testing.assert_array_equal(
        final(compressed(MAKERS["median"](), **options), liar), honest
    )
    moved = final(compressed(MAKERS["fedavg"](), **options), liar)
    assert np.abs(moved - honest).max() > 0.1


def test_differential_privacy_clips_what_was_decoded() -> None:
    clipped = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(**COMMON), noise_multiplier=0.0, clipping_norm=0.01, num_sampled_clients=CLIENTS
    )
    strategy = compressed(clipped, "none", feedback="none")
    app = numpy_client_app(pull_client_fn)
    result = strategy.start(toy_grid(app, CLIENTS), initial_arrays(), 1)
    assert 0.0 < np.linalg.norm(weights(result.arrays)) <= 0.011


def test_the_inner_strategy_sees_the_chosen_clients_and_its_config_travels() -> None:
    seen: list[Any] = []

    class Own(FedAvg):
        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> list[Message]:
            seen.append(sorted(grid.get_node_ids()))
            config["rate"] = 0.1 * server_round
            messages = list(super().configure_train(server_round, arrays, config, grid))
            first = messages[0]
            first.content = type(first.content)(dict(first.content))
            first.content["config"] = ConfigRecord({**config, "own": True})
            return messages

    app = numpy_client_app(pull_client_fn)

    def note(message: Message, context: Any) -> Message:
        if message.metadata.message_type == "train":
            seen.append(dict(message.content.config_records["config"]))
        return app(message, context)

    strategy = compressed(
        Own(min_train_nodes=1, min_available_nodes=1),
        "none",
        clients_per_round=3,
        selection="round-robin",
        evaluate_every=0,
    )
    strategy.start(toy_grid(note, CLIENTS), initial_arrays(), 2)  # type: ignore[arg-type]
    assert [len(seen[0]), len(seen[4])] == [3, 3]
    assert not set(seen[0]) & set(seen[4])
    assert [config["rate"] for config in seen[1:4]] == [0.1] * 3
    assert [bool(config.get("own")) for config in seen[1:4]] == [True, False, False]


def test_an_inner_strategy_that_refuses_gives_the_updates_back() -> None:
    class Refusing(FedAvg):
        def aggregate_train(
            self, server_round: int, replies: Any
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            return (None, None) if server_round == 1 else super().aggregate_train(2, replies)

    recorder = Recorder()
    strategy = compressed(Refusing(**COMMON), "topk(0.5)", observers=[recorder])
    app = numpy_client_app(pull_client_fn)
    result = strategy.start(toy_grid(app, CLIENTS), initial_arrays(), 2)
    assert recorder.rounds[2].returned == CLIENTS
    assert np.any(weights(result.arrays))


def test_a_wrong_codec_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown stage"):
        compressed(FedAvg(), "topkk(0.5)")
