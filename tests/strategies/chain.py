"""A federation of clients that learn a constant each, of a model that is a chain of layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fl_opt.client import numpy_client_app
from fl_opt.params import ParamSpec
from tests.strategies.federation import Recorder
from tests.toy import toy_grid

MODEL = {
    "hidden": np.random.default_rng(0).normal(0, 1, (8, 5)).astype(np.float32),
    "bias": np.zeros(8, np.float32),
    "output": np.random.default_rng(1).normal(0, 1, (3, 8)).astype(np.float32),
}
SPEC = ParamSpec.of(MODEL)


class ConstantClient(NumPyClient):
    """Adds ``1 + partition`` to all that it gets; has as many examples."""

    def __init__(self, partition_id: int) -> None:
        self.value = 1 + partition_id

    def fit(
        self, parameters: list[NDArray[Any]], config: dict[str, Any]
    ) -> tuple[list[NDArray[Any]], int, dict[str, Any]]:
        trained = [array + np.float32(self.value) for array in parameters]
        metrics = {"num-samples": 10.0, "num-steps": 1, "pruned": int(config.get("pruned", 0))}
        return trained, self.value, metrics

    def evaluate(
        self, parameters: list[NDArray[Any]], config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        assert [array.shape for array in parameters] == [a.shape for a in MODEL.values()]
        return 0.0, self.value, {"accuracy": 0.0}


def client_fn(context: Context) -> NumPyClient:
    return ConstantClient(int(context.node_config["partition-id"]))


def first_arrays(context: Context) -> list[NDArray[Any]]:
    return list(MODEL.values())


APP: ClientApp = numpy_client_app(client_fn, first_arrays)


def run_chain(
    strategy: Any, *, num_clients: int = 4, num_rounds: int = 1, app: Any = APP
) -> tuple[NDArray[np.float32], Recorder]:
    """Run a strategy; return the model's vector and the record."""
    recorder = Recorder()
    built = strategy(
        codec="none",
        feedback="none",
        min_train_nodes=1,
        min_evaluate_nodes=1,
        min_available_nodes=1,
        observers=[recorder],
    )
    initial = ArrayRecord({name: Array(array) for name, array in MODEL.items()})
    result = built.start(toy_grid(app, num_clients), initial, num_rounds)
    named = {name: array.numpy() for name, array in result.arrays.items()}
    return SPEC.flatten(named), recorder
