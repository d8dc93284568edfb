"""FedProx: what the server tells clients, and what they do with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fl_opt.client.app import app as torch_app
from fl_opt.client.torch_client import build_torch_client, first_arrays
from fl_opt.config import ConfigValue, load_settings
from fl_opt.errors import ConfigError
from fl_opt.exchange.records import pack_arrays
from fl_opt.simulation import VirtualGrid, build_device_model
from strategies import CompressedFedProx, build_strategy
from tests.strategies.federation import run

CONFIG: dict[str, ConfigValue] = {
    "dataset": "synthetic",
    "data.partition": "iid",
    "train.device": "cpu",
    "train.local-steps": 12,
    "uplink.codec": "none",
    "evaluate.federated-every": 0,
}
PARTITIONS = 3


def test_the_weight_of_the_term_reaches_every_client_in_every_round() -> None:
    seen: list[tuple[Any, Any]] = []

    def note(message: Message, context: Context, app: ClientApp) -> Message:
        config = message.content.config_records["config"]
        seen.append((config["server-round"], config["proximal-mu"]))
        return app(message, context)

    run(note, strategy=CompressedFedProx, proximal_mu=0.25, num_rounds=2, evaluate_every=0)
    assert seen == [(1, 0.25)] * 4 + [(2, 0.25)] * 4


def fit(told: dict[str, Any], **changes: ConfigValue) -> tuple[list[NDArray[Any]], Any]:
    """What a torch client learns in round 1 if the server tells it something."""
    settings = load_settings({**CONFIG, **changes})
    client = build_torch_client(settings, 0, PARTITIONS)
    start = [array.copy() for array in client.get_parameters({})]
    rng = np.random.default_rng(3)
    start = [rng.normal(0, 0.1, array.shape).astype(array.dtype) for array in start]
    after, _, metrics = client.fit(start, {"server-round": 1, **told})
    return [b - a for a, b in zip(start, after, strict=True)], metrics


def length(arrays: list[NDArray[Any]]) -> float:
    return float(np.sqrt(sum(np.square(array).sum() for array in arrays)))


def test_a_torch_client_uses_the_weight_that_it_is_told() -> None:
    free, _ = fit({})
    told, _ = fit({"proximal-mu": 2.0})
    own, _ = fit({}, **{"train.proximal-mu": 2.0})
    overruled, _ = fit({"proximal-mu": 0.0}, **{"train.proximal-mu": 2.0})
    assert length(told) < 0.9 * length(free)
    for one, other in ((told, own), (overruled, free)):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_torch_client_takes_as_many_steps_as_it_is_told() -> None:
    told, metrics = fit({"local-steps": 3})
    own, _ = fit({}, **{"train.local-steps": 3})
    assert metrics["num-steps"] == 3.0
    assert metrics["num-samples"] == 96.0
    assert all(np.array_equal(a, b) for a, b in zip(told, own, strict=True))


def test_the_whole_app_is_fedprox() -> None:
    """The strategy's weight and the clients' own setting lead to the same model."""

    def final(**changes: ConfigValue) -> list[NDArray[Any]]:
        config = {**CONFIG, "train.local-steps": 4, **changes}
        settings = load_settings(config)
        devices = build_device_model(settings.simulation, seed=0)
        grid = VirtualGrid(torch_app, PARTITIONS, devices, run_config=config)
        arrays = first_arrays(settings, PARTITIONS)
        initial = pack_arrays({str(i): array for i, array in enumerate(arrays)})
        result = build_strategy(settings).start(grid, initial, 2)
        return [array.numpy() for array in result.arrays.values()]

    of_the_strategy = final(strategy="fedprox(proximal_mu=0.5)")
    of_the_clients = final(**{"train.proximal-mu": 0.5})
    neither = final()
    assert all(map(np.array_equal, of_the_strategy, of_the_clients))
    assert not any(map(np.array_equal, of_the_strategy, neither))


@pytest.mark.parametrize("mu", [-0.1, float("inf"), float("nan")])
def test_a_wrong_weight_is_refused(mu: float) -> None:
    with pytest.raises(ConfigError, match=f"proximal_mu = {mu} is not a number of at least 0"):
        CompressedFedProx(proximal_mu=mu)
