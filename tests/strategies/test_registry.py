"""From settings to strategies: every name works, and what makes no sense is refused."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Context, Message
from flwr.serverapp.strategy import QFedAvg

from fl_opt.config import ConfigValue, load_settings
from fl_opt.errors import ConfigError
from strategies import STRATEGIES, CompressedFedNova, build_strategy
from strategies.base import CompressedStrategy
from strategies.wrapped import CompressedWrapper
from tests.strategies.federation import Recorder, weights
from tests.strategies.stepping import stepping_app
from tests.toy import initial_arrays, toy_grid

CLIENTS = 7
SPECS = {
    "fedavg": "fedavg",
    "fedprox": "fedprox(0.1)",
    "fednova": "fednova",
    "fedbuff": "fedbuff(buffer_size=3, max_concurrency=5)",
    "fedasync": "fedasync(max_concurrency=4)",
    "krum": "krum(malicious=2)",
    "multi-krum": "multi-krum(malicious=1, selected=3)",
    "bulyan": "bulyan(malicious=1)",
    "fedmedian": "fedmedian",
    "fedtrimmedavg": "fedtrimmedavg(beta=0.3)",
    "qfedavg": "qfedavg(q=0.2)",
}
OF_FLOWER = list(SPECS)[5:]


@pytest.fixture(autouse=True)
def _cheap_collections() -> Iterator[None]:
    """Some of Flower's strategies collect garbage for each reply: not all of ours again."""
    gc.freeze()
    yield
    gc.unfreeze()


def build(changes: Mapping[str, ConfigValue], *observers: Recorder) -> CompressedStrategy:
    config = {"uplink.codec": "topk(0.5)", "evaluate.federated-every": 0, **changes}
    return build_strategy(load_settings(config), observers)


def start(strategy: CompressedStrategy, num_clients: int = CLIENTS) -> Any:
    arrays = initial_arrays()
    if isinstance(strategy, CompressedWrapper) and isinstance(strategy.inner, QFedAvg):
        arrays["steps"] = Array(np.zeros((), np.float32))  # Flower's takes no integers
    grid = toy_grid(stepping_app(lambda i: 1 + i % 3), num_clients)
    return strategy.start(grid, arrays, 2)


def test_every_strategy_is_tried_here() -> None:
    assert list(STRATEGIES) == list(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_every_strategy_is_built_from_its_spec_and_runs(name: str) -> None:
    assert STRATEGIES[name].name == name
    result = start(build({"strategy": SPECS[name]}, recorder := Recorder()))
    assert np.isfinite(weights(result.arrays)).all()
    assert np.linalg.norm(weights(result.arrays)) > 0.1
    expected = {"fedbuff": 3, "fedasync": 1}.get(name, CLIENTS)
    assert [record.participants for record in recorder.rounds[1:]] == [expected] * 2
    assert [record.failures for record in recorder.rounds] == [0] * 3


@pytest.mark.parametrize("name", SPECS)
def test_every_strategy_has_defaults(name: str) -> None:
    assert isinstance(build({"strategy": name}), CompressedStrategy)


def test_what_stands_in_the_spec_arrives() -> None:
    prox: Any = build({"strategy": "fedprox(proximal_mu=0.3)"})
    assert prox.proximal_mu == 0.3
    buff: Any = build({"strategy": "fedbuff(4, 9)"})
    assert (buff.pace.size, buff.pace.concurrency) == (4, 9)
    asynchronous: Any = build({"strategy": "fedasync(7)"})
    assert (asynchronous.pace.size, asynchronous.pace.concurrency) == (1, 7)
    selected: Any = build({"strategy": "multi-krum(2, 4)"})
    assert (selected.inner.num_malicious_nodes, selected.inner.num_nodes_to_select) == (2, 4)
    trimmed: Any = build({"strategy": "fedtrimmedavg(0.4)"})
    assert trimmed.inner.beta == 0.4
    fair: Any = build({"strategy": "qfedavg(2)", "train.learning-rate": 0.02})
    assert (fair.inner.q, fair.inner.client_learning_rate) == (2.0, 0.02)


@pytest.mark.parametrize(("optimizer", "momentum"), [("sgd", 0.7), ("adam", 0.0)])
def test_fednova_is_told_of_the_clients_momentum(optimizer: str, momentum: float) -> None:
    train: dict[str, ConfigValue] = {"train.optimizer": optimizer, "train.momentum": 0.7}
    strategy = build({"strategy": "fednova", **train})
    assert isinstance(strategy, CompressedFedNova)
    assert strategy.local_momentum == momentum


def test_settings_of_all_strategies_arrive() -> None:
    strategy: Any = build(
        {
            "round.clients": 4,
            "round.over-selection": 1.5,
            "round.staleness": "hinge(2, 1)",
            "round.ttl": 30.0,
            "server-optimizer": "yogi(0.05)",
            "server-schedule": "warmup(3)",
        }
    )
    assert strategy.clients_per_round == 4
    assert strategy.pace.to_ask(4, 0) == 6
    assert strategy.staleness.weight(2) == 1 / 3
    assert strategy.ttl == 30.0
    assert strategy.server_optimizer.eta == 0.05
    assert strategy.server_schedule.factor(1) == 1 / 3


WRONG: list[tuple[dict[str, ConfigValue], str]] = [
    ({"strategy": ""}, "strategy spec '', position 1: a name is expected: fedavg, fedprox"),
    ({"strategy": "fedavgg"}, "position 1: unknown strategy 'fedavgg'; known are fedavg"),
    ({"strategy": "fedavg | krum"}, "position 8: the end is expected"),
    ({"strategy": "fednova(1)"}, "position 9: too many arguments; 'fednova' takes no argum"),
    ({"strategy": "fedprox(mu=1)"}, "unknown argument 'mu'; 'fedprox' takes proximal_mu"),
    ({"strategy": "fedprox(-1)"}, r"proximal_mu = -1\.0 is not a number of at least 0"),
    ({"strategy": "fedbuff(0)"}, "buffer_size = 0 is not a number of at least 1"),
    ({"strategy": "fedbuff(5, 0)"}, "max_concurrency = 0 is not a number of at least 1"),
    ({"strategy": "fedbuff(2.5)"}, r"buffer_size = 2\.5 is not valid; 'fedbuff' takes buff"),
    ({"strategy": "fedasync(0)"}, "max_concurrency = 0 is not a number of at least 1"),
    ({"strategy": "krum(-1)"}, "malicious = -1 is not a number of at least 0"),
    ({"strategy": "multi-krum(1, 0)"}, "selected = 0 is not a number of at least 1"),
    ({"strategy": "multi-krum(-1)"}, "malicious = -1 is not a number of at least 0"),
    ({"strategy": "bulyan(-1)"}, "malicious = -1 is not a number of at least 0"),
    ({"strategy": "fedtrimmedavg(0.5)"}, r"beta = 0\.5 is not in \[0, 0\.5\)"),
    ({"strategy": "qfedavg(-1)"}, r"q = -1\.0 is not a number of at least 0"),
    ({"selection": "best"}, "unknown selection 'best'; known are uniform"),
    ({"balance": "equal"}, "unknown balance 'equal'; known are none, equal-time"),
    ({"server-optimizer": "adamm"}, "unknown server optimizer 'adamm'; known are sgd"),
    ({"server-schedule": "cosine"}, "'rounds' must be given; 'cosine' takes rounds"),
    ({"round.staleness": "poly"}, "unknown staleness 'poly'; known are constant"),
    (
        {"strategy": "fedbuff", "round.clients": 3},
        "setting 'round.clients' = 3: 'fedbuff' has no rounds; see its own settings",
    ),
    (
        {"strategy": "fedasync", "round.over-selection": 1.3},
        r"setting 'round.over-selection' = 1\.3: 'fedasync' has no rounds",
    ),
    (
        {"strategy": "fedbuff", "round.late-replies": "refuse"},
        "setting 'round.late-replies' = 'refuse': 'fedbuff' has no rounds",
    ),
    (
        {"strategy": "fedbuff(5)", "round.min-replies": 6},
        "setting 'round.min-replies' = 6: 'fedbuff' takes a step for every 5",
    ),
    (
        {"round.clients": 3, "round.min-replies": 4},
        "setting 'round.min-replies' = 4: no more replies than 'round.clients' = 3 are",
    ),
    (
        {"strategy": "fedprox", "train.proximal-mu": 0.5},
        r"setting 'train.proximal-mu' = 0\.5: 'fedprox' tells clients its own: proximal_mu = 0",
    ),
    (
        {"strategy": "krum(1)", "round.clients": 4},
        r"setting 'round.clients' = 4: Krum\(malicious=1\) needs 5",
    ),
    (
        {"strategy": "multi-krum(1, 8)", "round.clients": 7},
        r"setting 'round.clients' = 7: MultiKrum\(malicious=1, selected=8\) needs 8",
    ),
    (
        {"strategy": "bulyan(2)", "round.clients": 10},
        r"setting 'round.clients' = 10: Bulyan\(malicious=2\) needs 11",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_wrong_is_said_in_one_line(
    changes: dict[str, ConfigValue], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", OF_FLOWER)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server-optimizer", "adam"),
        ("server-schedule", "cosine(9)"),
        ("round.staleness", "constant"),
    ],
)
def test_settings_without_effect_on_flowers_strategies_are_refused(
    name: str, key: str, value: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build({"strategy": name, key: value})
    assert str(caught.value) == (
        f"setting {key!r} = {value!r}: {name!r} takes its steps itself"
    )


@pytest.mark.parametrize(("spec", "needed"), [("krum(2)", 7), ("bulyan(1)", 7)])
def test_robust_strategies_start_with_enough_clients_only(spec: str, needed: int) -> None:
    with pytest.raises(ConfigError, match=f"needs {needed} clients, but 6 are connected"):
        start(build({"strategy": spec}), num_clients=6)


@pytest.mark.parametrize("spec", ["krum(2)", "multi-krum(1, 6)", "bulyan(1)"])
def test_a_round_with_too_few_replies_for_a_robust_strategy_changes_nothing(spec: str) -> None:
    app = stepping_app(lambda _: 2)

    def two_fail_at_first(message: Message, context: Context) -> Message:
        first = message.content.config_records["config"]["server-round"] == 1
        if first and context.node_id in {1001, 1004}:
            raise RuntimeError("no battery")
        return app(message, context)

    strategy = build({"strategy": spec}, recorder := Recorder())
    path: list[Any] = []
    strategy.start(
        toy_grid(two_fail_at_first, CLIENTS),  # type: ignore[arg-type]
        initial_arrays(),
        2,
        evaluate_fn=lambda _, arrays: path.append(weights(arrays).any()),
    )
    assert path == [False, False, True]
    assert [record.participants for record in recorder.rounds[1:]] == [5, 7]
    assert recorder.rounds[2].returned == 5
