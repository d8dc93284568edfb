"""The average of the models of a run: worked out, resumed, and without effect on clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.errors import CheckpointError, ConfigError
from strategies.averaging import ModelAverage
from tests.strategies.cutting import bits, cut_and_resumed, evaluate_until, facts
from tests.strategies.federation import run

OPTIONS: dict[str, Any] = {
    "codec": "topk(0.2) | ternary",
    "server_optimizer": "sgd(eta=0.7, momentum=0.6)",
    "num_clients": 6,
    "clients_per_round": 3,
    "num_rounds": 5,
    "seed": 5,
}


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20), st.floats(0.0, 0.99))
def test_it_is_the_weighted_mean_of_all_models(values: list[float], decay: float) -> None:
    average = ModelAverage(f"ema({decay!r})" if decay >= 1e-4 else "ema(0)")
    decay = decay if decay >= 1e-4 else 0.0
    for value in values:
        average.add(np.full(3, value, np.float32))
    weights = decay ** np.arange(len(values) - 1, -1, -1.0)
    assert average.vector is not None
    assert average.vector == pytest.approx(
        [np.average(values, weights=weights)] * 3, rel=1e-3, abs=1e-2
    )


def test_what_is_handed_in_is_only_read() -> None:
    average, first = ModelAverage("ema"), np.ones(2, np.float32)
    average.add(first)
    average.add(np.zeros(2, np.float32))
    assert first.tolist() == [1.0, 1.0]


def test_without_it_nothing_is_kept() -> None:
    average = ModelAverage("none")
    average.add(np.ones(2, np.float32))
    assert average.vector is None
    assert average.state() == {}


def test_the_model_returned_and_evaluated_is_the_mean_of_the_rounds_models() -> None:
    models: list[np.ndarray[Any, Any]] = []
    means: list[np.ndarray[Any, Any]] = []
    for average, seen in (("none", models), ("ema(0.5)", means)):

        def evaluate(server_round: int, arrays: Any, seen: Any = seen) -> None:
            if server_round:
                seen.append(arrays["weight"].numpy())

        result, recorder = run(**OPTIONS, server_average=average, evaluate_fn=evaluate)
        assert np.array_equal(result.arrays["weight"].numpy(), seen[-1])
    for number in range(1, 6):
        weights = 0.5 ** np.arange(number - 1, -1, -1.0)
        expected = np.average(models[:number], axis=0, weights=weights)
        assert means[number - 1] == pytest.approx(expected, abs=1e-5)
    assert not np.array_equal(models[-1], means[-1])
    assert sum(record.bytes_down for record in recorder.rounds) > 0


def test_clients_are_sent_the_same_with_and_without_it() -> None:
    plain, averaged = (
        facts(run(**OPTIONS, server_average=spec)[1].rounds) for spec in ("none", "ema(0.9)")
    )
    assert plain == averaged


def test_a_resumed_run_goes_on_with_the_average(tmp_path: Path) -> None:
    options = {**OPTIONS, "server_average": "ema(0.8)"}
    whole, _ = run(**options, evaluate_fn=evaluate_until(5))
    result, _ = cut_and_resumed(options, (2, 3, 5), tmp_path)
    assert bits(result.arrays) == bits(whole.arrays)


@pytest.mark.parametrize(
    "arrays",
    [
        {"mean": np.zeros(3, np.float32)},
        {"mean": np.zeros(4, np.float32), "count": np.array([2])},
        {"mean": np.zeros(3, np.float32), "count": np.array([0])},
        {"mean": np.zeros(3, np.float32), "count": np.array([], np.int64)},
    ],
)
def test_a_damaged_state_is_refused(arrays: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="state of the average is damaged"):
        ModelAverage("ema").restore(arrays, 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ema(1.0)", r"decay = 1\.0 is not in \[0, 1\)"),
        ("ema(-0.1)", r"decay = -0\.1 is not in"),
        ("mean", "unknown server average 'mean'; known are none, ema"),
    ],
)
def test_wrong_specs_say_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelAverage(spec)
