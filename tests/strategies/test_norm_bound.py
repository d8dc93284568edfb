"""Updates that are too large: refused, said so, and without effect on the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context
from flwr.client import NumPyClient
from numpy.typing import NDArray

from fl_opt.client import numpy_client_app
from fl_opt.errors import CheckpointError, ConfigError, ExchangeError
from strategies.norm_bound import NormBound
from tests.strategies.cutting import bits, cut_and_resumed, evaluate_until
from tests.strategies.federation import run, weights
from tests.toy import PullClient, first_arrays, pull_client_fn

OPTIONS: dict[str, Any] = {
    "codec": "none",
    "feedback": "none",
    "num_clients": 6,
    "num_rounds": 4,
    "evaluate_every": 0,
}
HOSTILE = 3  # partition


def test_many_times_the_median_is_too_much_once_enough_is_known() -> None:
    bound = NormBound("auto(factor=4)")
    bound.check(1e30)
    for norm in (1.0, 2.0, 3.0, 2.0):
        bound.accepted(norm)
    bound.check(1e30)
    bound.accepted(100.0)
    bound.check(8.0)
    with pytest.raises(ExchangeError, match=r"norm of 8\.1 is above 8 \(round.max-update-norm"):
        bound.check(8.1)


def test_old_norms_are_forgotten() -> None:
    bound = NormBound("auto(factor=2)")
    for norm in [100.0] * 100 + [1.0] * 51:
        bound.accepted(norm)
    with pytest.raises(ExchangeError):
        bound.check(3.0)


def test_updates_of_nothing_teach_nothing() -> None:
    bound = NormBound("auto")
    for _ in range(20):
        bound.accepted(0.0)
    bound.check(1e30)


def test_a_fixed_bound() -> None:
    bound = NormBound("fixed(2.5)")
    bound.check(2.5)
    for norm in (2.6, float("inf"), float("nan")):
        with pytest.raises(ExchangeError):
            bound.check(norm)


def test_it_goes_on_from_its_state() -> None:
    first, second = NormBound("auto"), NormBound("auto")
    for norm in range(1, 8):
        first.accepted(float(norm))
    second.restore(json.loads(json.dumps(first.state())))
    with pytest.raises(ExchangeError, match="above 40"):
        second.check(41.0)
    with pytest.raises(CheckpointError, match="norm bound is damaged"):
        second.restore(["x"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fixed(0)", r"norm = 0\.0 is not above 0"),
        ("auto(1)", r"factor = 1\.0 is not above 1"),
        ("fixed", "'norm' must be given"),
        ("most", "unknown update norm 'most'; known are none, auto, fixed"),
    ],
)
def test_wrong_specs_say_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NormBound(spec)


class Exploding(PullClient):
    """From the second round on its weights are a million times too large."""

    def fit(
        self, parameters: list[NDArray[Any]], config: dict[str, Any]
    ) -> tuple[list[NDArray[Any]], int, dict[str, Any]]:
        arrays, weight, metrics = super().fit(parameters, config)
        huge = 1e6 if config["server-round"] > 1 else 1.0
        return [arrays[0] * np.float32(huge), arrays[1]], weight, metrics


def client_fn(context: Context) -> NumPyClient:
    partition = int(context.node_config["partition-id"])
    return Exploding(partition) if partition == HOSTILE else pull_client_fn(context)


def test_a_client_that_explodes_is_refused_and_the_rest_learns() -> None:
    app = numpy_client_app(client_fn, first_arrays)
    result, recorder = run(**OPTIONS, app=app)
    assert np.abs(weights(result.arrays)).max() < 10.0
    for record in recorder.rounds[2:]:
        assert (record.participants, record.failures) == (5, 1)
        (reason,) = (client.error for client in record.clients if client.error)
        assert "round.max-update-norm" in reason
    unbounded, _ = run(**OPTIONS, app=app, max_update_norm="none")
    assert np.abs(weights(unbounded.arrays)).max() > 1e4


def test_honest_clients_notice_nothing() -> None:
    bounded, unbounded = (
        run(**OPTIONS, max_update_norm=spec)[0].arrays for spec in ("auto", "none")
    )
    assert bits(bounded) == bits(unbounded)


def test_a_resumed_run_measures_by_the_same_norms(tmp_path: Path) -> None:
    options = {**OPTIONS, "num_rounds": 5, "app": numpy_client_app(client_fn, first_arrays)}
    whole, _ = run(**options, evaluate_fn=evaluate_until(5))
    result, _ = cut_and_resumed(options, (2, 5), tmp_path)
    assert bits(result.arrays) == bits(whole.arrays)
