"""FedNova: clients that do more work do not pull harder for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_opt.errors import ConfigError, ExchangeError
from strategies import CompressedFedAvg, CompressedFedNova
from tests.strategies.federation import run, weights
from tests.strategies.stepping import learned, stepping_app

PLAIN: dict[str, Any] = {"feedback": "none", "evaluate_every": 0}
FIRST_NODE = 1000


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_equal_steps_it_is_fedavg(momentum: float) -> None:
    options: dict[str, Any] = {**PLAIN, "app": stepping_app(lambda _: 4), "num_rounds": 2}
    nova, _ = run(**options, strategy=CompressedFedNova, local_momentum=momentum)
    average, _ = run(**options, strategy=CompressedFedAvg)
    np.testing.assert_allclose(weights(nova.arrays), weights(average.arrays), atol=1e-6)


def test_with_unequal_steps_it_is_the_mean_of_normalised_updates() -> None:
    """``tau_eff sum_i p_i delta_i / tau_i``, worked out for plain gradient descent."""
    steps = [2, 5, 1, 9]
    result, _ = run(
        **PLAIN, app=stepping_app(lambda i: steps[i]), strategy=CompressedFedNova, num_rounds=2
    )
    shares = np.array([1, 2, 3, 4]) / 10  # clients have 1 + partition examples
    model = np.zeros(40)
    for _ in range(2):
        rates = [learned(i, steps[i], model) / steps[i] for i in range(4)]
        model = model + shares @ steps * (shares @ np.array(rates))
    np.testing.assert_allclose(weights(result.arrays), model, atol=1e-5)


def test_much_work_pulls_less_hard_than_in_fedavg() -> None:
    app = stepping_app(lambda i: 30 if i == 0 else 2)
    nova, _ = run(**PLAIN, app=app, strategy=CompressedFedNova)
    average, _ = run(**PLAIN, app=app)

    def pull(vector: Any) -> float:
        own = learned(0, 30, np.zeros(40))
        return float(vector @ own / np.linalg.norm(vector) / np.linalg.norm(own))

    assert pull(weights(nova.arrays)) < pull(weights(average.arrays)) - 0.1


@given(st.integers(1, 40), st.floats(0.0, 0.99), st.integers(0, 5))
@settings(max_examples=40)
def test_tau_is_what_the_steps_add_up_to(steps: int, momentum: float, staleness: int) -> None:
    """The k-th gradient is in the velocity of its own step and of all after it."""
    a = [sum(momentum**later for later in range(steps - k)) for k in range(steps)]
    strategy = CompressedFedNova(local_momentum=momentum, staleness="polynomial(1)")
    scale = strategy.scale(MetricRecord({"num-steps": float(steps)}), staleness)
    assert scale == pytest.approx(1.0 / sum(a) / (1 + staleness), rel=1e-9)


@pytest.mark.parametrize("steps", [None, 0, -3, 0.5, 1e300, float("inf"), float("nan"), [4]])
def test_a_client_that_tells_no_sensible_number_of_steps_is_refused_alone(steps: Any) -> None:
    def tamper(message: Message, context: Context, app: ClientApp) -> Message:
        reply = app(message, context)
        if context.node_id == FIRST_NODE + 1:
            metrics = reply.content.metric_records["metrics"]
            del metrics["num-steps"]
            if steps is not None:
                metrics["num-steps"] = steps
        return reply

    result, recorder = run(
        tamper, **PLAIN, app=stepping_app(lambda i: 1 + i), strategy=CompressedFedNova
    )
    record = recorder.rounds[1]
    assert (record.participants, record.failures) == (3, 1)
    errors = {client.node_id: client.error for client in record.clients if client.error}
    assert list(errors) == [FIRST_NODE + 1]
    assert "num-steps" in errors[FIRST_NODE + 1]
    shares = np.array([1, 3, 4]) / 8
    taus = np.array([1, 3, 4])
    rates = [learned(i, 1 + i, np.zeros(40)) / (1 + i) for i in (0, 2, 3)]
    expected = shares @ taus * (shares @ np.array(rates))
    np.testing.assert_allclose(weights(result.arrays), expected, atol=1e-5)


def test_the_largest_number_of_steps_overflows_nothing() -> None:
    strategy = CompressedFedNova(local_momentum=0.9)
    assert strategy.scale(MetricRecord({"num-steps": 1e9}), 0) == pytest.approx(1e-10)
    with pytest.raises(
        ExchangeError, match=r"num-steps = 2000000000\.0 is not a number from 1"
    ):
        strategy.scale(MetricRecord({"num-steps": 2e9}), 0)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_a_wrong_momentum_is_refused(momentum: float) -> None:
    with pytest.raises(ConfigError, match=rf"local_momentum = {momentum} is not in \[0, 1\)"):
        CompressedFedNova(local_momentum=momentum)
