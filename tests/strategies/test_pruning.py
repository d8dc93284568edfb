"""What is pruned goes by schedule and magnitude, and is never seen again."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedMedian
from torch.nn.utils import prune

from fl_opt.config import Settings, load_settings
from fl_opt.errors import CheckpointError, ConfigError
from fl_opt.params import ParamSpec
from fl_opt.simulation.faults import FaultPlan
from strategies import CompressedFedAvg, CompressedFedBuff
from strategies.pruning import Pruning
from strategies.pruning_rules import build_pruning
from strategies.registry import build_strategy
from strategies.wrapped import compressed
from tests.strategies.chain import MODEL, SPEC, run_chain
from tests.strategies.cutting import bits, cut_and_resumed, evaluate_until, facts
from tests.strategies.federation import run, weights
from tests.strategies.test_resume import FAULTS, OPTIONS, ROUNDS, WAYS

GRADUAL = "magnitude(0.75, begin=2, end=5, every=1)"


# --- the rules


def test_the_schedule_is_that_of_zhu_and_gupta() -> None:
    rule = build_pruning("magnitude(0.8, begin=5, end=21, every=4)")
    steps = [0] * 9 + [4] * 4 + [8] * 4 + [12] * 4 + [16] * 5
    expected = [0.8 * (1 - (1 - step / 16) ** 3) for step in steps]
    found = [rule.sparsity(t) for t in range(26)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_schedule_may_be_one_step_and_ends_where_it_says() -> None:
    at_once = build_pruning("magnitude(0.8, begin=3, end=3)")
    assert [at_once.sparsity(t) for t in range(5)] == [0, 0, 0, 0.8, 0.8]
    uneven = build_pruning("structured(0.5, begin=1, end=6, every=4)")
    assert uneven.sparsity(6) == 0.5
    assert 0 < uneven.sparsity(5) < 0.5


def test_magnitudes_are_those_of_torch() -> None:
    """As ``torch.nn.utils.prune.global_unstructured`` does it."""
    stays = build_pruning("magnitude(0.5)").stays(
        SPEC, SPEC.flatten(MODEL), np.ones(SPEC.size, np.bool_), 0.6
    )
    first, second = torch.nn.Linear(5, 8), torch.nn.Linear(8, 3)
    for layer, name in ((first, "hidden"), (second, "output")):
        layer.weight.data = torch.tensor(MODEL[name])
    both = [(first, "weight"), (second, "weight")]
    prune.global_unstructured(both, pruning_method=prune.L1Unstructured, amount=0.6)
    found = SPEC.unflatten(stays.astype(np.float32))
    np.testing.assert_array_equal(found["hidden"], first.weight_mask)
    np.testing.assert_array_equal(found["output"], second.weight_mask)
    assert found["bias"].all()


def test_rows_are_those_of_torch() -> None:
    """As ``torch.nn.utils.prune.ln_structured`` does it."""
    stays = build_pruning("structured(0.5)").stays(
        SPEC, SPEC.flatten(MODEL), np.ones(SPEC.size, np.bool_), 0.5
    )
    layer = torch.nn.Linear(5, 8)
    layer.weight.data = torch.tensor(MODEL["hidden"])
    prune.ln_structured(layer, "weight", amount=0.5, n=2, dim=0)  # type: ignore[no-untyped-call]
    found = SPEC.unflatten(stays.astype(np.float32))
    np.testing.assert_array_equal(found["hidden"], layer.weight_mask)
    assert found["output"].all()
    assert found["bias"].all()


@pytest.mark.parametrize("name", ["magnitude", "structured"])
def test_pruned_stays_pruned_and_equals_go_in_order(name: str) -> None:
    spec = ParamSpec.of({n: np.zeros((10, 2), np.float32) for n in "ab"})
    vector, alive = np.ones(40, np.float32), np.ones(40, np.bool_)
    vector[30:] = 0.0  # equal, and smaller than the others
    rule = build_pruning(f"{name}(0.5)")
    for sparsity in (0.1, 0.3, 0.6, 0.99):
        after = rule.stays(spec, vector, alive, sparsity)
        assert (after <= alive).all()
        alive = after
        vector[~alive] = 0.0
    assert alive.any()
    first = rule.stays(spec, np.ones(40, np.float32), np.ones(40, np.bool_), 0.1)
    count = 4 if name == "magnitude" else 2
    assert np.flatnonzero(~first).tolist() == list(range(count))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("magnitude(1.0)", "final = 1.0 is not between 0 and 1"),
        ("structured(nan)", "final = nan is not between 0 and 1"),
        ("magnitude(0.5, begin=0)", "begin = 0, end = 20: it must be 1 <= begin <= end"),
        ("magnitude(0.5, begin=30)", "begin = 30, end = 20"),
        ("magnitude(0.5, every=0)", "every = 0 is not at least 1"),
        ("random(0.5)", "unknown pruning 'random'; known are none, magnitude, structured"),
    ],
)
def test_a_wrong_spec_is_refused(spec: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_pruning(spec)


# --- on a server


def zeros_by_round(zeros: list[int]) -> Any:
    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        zeros.append(int((arrays["weight"].numpy() == 0).sum()))
        return MetricRecord({"loss": 0.0})

    return evaluate


@pytest.mark.parametrize("way", WAYS)
def test_the_model_is_zero_where_it_is_pruned_whatever_clients_do(way: str) -> None:
    """The toy's clients move every weight, momentum pulls, and the codecs round."""
    zeros: list[int] = []
    _, record = run(
        **{**OPTIONS, "downlink": WAYS[way]},
        pruning=GRADUAL,
        evaluate_fn=zeros_by_round(zeros),
    )
    shares = [build_pruning(GRADUAL).sparsity(t) for t in range(1, ROUNDS + 1)]
    expected = [round(40 * share) for share in shares]
    assert zeros[3:] == expected[2:]  # the toy's model begins with zeros
    assert expected[2:] == [21, 29, 30, 30, 30]
    assert sum(r.failures for r in record.rounds) == 0


def test_pruned_weights_are_not_sent() -> None:
    sizes = {}
    for pruning in ("none", "magnitude(0.75, begin=1, end=1)"):
        _, record = run(num_rounds=3, pruning=pruning, evaluate_every=0)
        last = record.rounds[-1]
        sizes[pruning] = (last.bytes_up, last.bytes_down)
    (up, down), (fewer_up, fewer_down) = sizes.values()
    floats = 4 * 4 * 30  # of four clients, 30 of 40 weights
    assert 0 <= up - fewer_up - floats <= 4 * 2  # lengths are shorter, too
    assert 0 < floats - (down - fewer_down) < 4 * 24  # a mask comes with the whole model


def test_clients_are_told() -> None:
    strategy = partial(CompressedFedAvg, pruning="magnitude(0.5, begin=2, end=2)")
    told: list[float] = []

    def read(replies: list[Any], key: str) -> MetricRecord:
        told.extend(float(r.metric_records["metrics"]["pruned"]) for r in replies)
        return MetricRecord()

    run_chain(partial(strategy, train_metrics_aggr_fn=read), num_clients=1, num_rounds=4)
    assert told == [0, 0, 1, 1]


def test_late_updates_of_what_has_been_pruned_since_do_not_bring_it_back() -> None:
    strategy = partial(
        CompressedFedBuff,
        pruning="magnitude(0.75, begin=1, end=6, every=1)",
        buffer_size=2,
        max_concurrency=4,
        seed=3,
    )
    vector, recorder = run_chain(strategy, num_clients=6, num_rounds=9)
    assert sum(r.stale for r in recorder.rounds[4:])
    assert sum(r.failures for r in recorder.rounds) == 0
    assert np.count_nonzero(vector == 0) == 48  # of 64; biases have moved


def test_strategies_of_flower_go_on_with_what_is_left() -> None:
    def build(codec: str, **options: Any) -> Any:
        return compressed(FedMedian(), codec, **options)

    result, record = run(strategy=build, num_rounds=3, pruning="magnitude(0.5, begin=1, end=1)")
    assert np.count_nonzero(weights(result.arrays)) == 20
    assert sum(r.failures for r in record.rounds) == 0


def test_a_round_that_was_refused_is_made_up_for() -> None:
    pruning = Pruning("magnitude(0.5, begin=2, end=2)")
    pruning.begin(SPEC)
    vector = SPEC.flatten(MODEL)
    pruning.prune(3, SPEC, vector, version=2)  # the second round changed nothing
    assert np.count_nonzero(vector) == 32
    assert pruning.at(1) is None
    assert pruning.at(2) == pruning.at(9) == pruning.alive


def test_what_was_pruned_stays_so_whatever_the_setting_is_now() -> None:
    before = Pruning("magnitude(0.5, begin=1, end=3, every=1)")
    before.begin(SPEC)
    for server_round in (1, 2, 3):
        before.prune(server_round, SPEC, SPEC.flatten(MODEL), version=server_round)
    after = Pruning("none")
    after.restore(before.state(), SPEC.size)
    assert [after.at(v) for v in range(5)] == [before.at(v) for v in range(5)]
    vector = SPEC.flatten(MODEL)
    after.prune(4, SPEC, vector, version=4)
    assert np.count_nonzero(vector) == 32
    with pytest.raises(CheckpointError, match="state of the pruning is damaged"):
        after.restore({"1": np.zeros(3, np.uint8)}, SPEC.size)


@pytest.mark.parametrize("faults", [None, FAULTS], ids=["quiet", "faulty"])
@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_ends_in_the_same_model(
    way: str, faults: FaultPlan | None, tmp_path: Path
) -> None:
    options = {**OPTIONS, "downlink": WAYS[way], "faults": faults, "pruning": GRADUAL}
    whole, record = run(**options, evaluate_fn=evaluate_until(ROUNDS))
    result, told = cut_and_resumed(options, (2, 3, ROUNDS), tmp_path)
    assert bits(result.arrays) == bits(whole.arrays)
    assert facts(told) == facts(record.rounds)


# --- what does not go together


def test_a_model_without_prunable_arrays_is_refused() -> None:
    with pytest.raises(ConfigError, match="fewer than 2 array"):
        run(pruning="structured(0.5)")  # the only array is the last one


@pytest.mark.parametrize(
    "codecs",
    [
        {"uplink.codec": "powersgd(2)"},
        {"uplink.codec": "topk(0.1) | ternary; size>100: powersgd(2)"},
        {"downlink.codec": "powersgd(2)"},
    ],
)
def test_low_rank_codecs_are_refused(codecs: dict[str, str]) -> None:
    settings = load_settings({"pruning": "magnitude(0.5)", **codecs})
    with pytest.raises(ConfigError, match="takes arrays for matrices"):
        build_strategy(settings)


def test_a_schedule_that_the_run_does_not_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match="up to round 20, and 'num-server-rounds' is 9"):
        build_strategy(Settings(pruning="magnitude(0.5)", num_server_rounds=9))
    build_strategy(Settings(pruning="magnitude(0.5)", num_server_rounds=20))
