"""A federation to compute by hand: clients pull a vector towards their own targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fl_opt.config import SimulationSettings
from fl_opt.simulation import VirtualGrid, build_device_model
from fl_opt.simulation.faults import FaultPlan

SIZE = 40


def target(partition_id: int) -> NDArray[np.float32]:
    """Where a client wants the weights to be."""
    generator = np.random.default_rng(100 + partition_id)
    return generator.standard_normal(SIZE).astype(np.float32)


def initial_arrays() -> ArrayRecord:
    """A model of 40 weights and a counter."""
    return ArrayRecord(
        {"weight": Array(np.zeros((4, 10), np.float32)), "steps": Array(np.array(0))}
    )


class PullClient(NumPyClient):
    """Moves the weights half of the way to its target; has ``1 + partition`` examples."""

    def __init__(self, partition_id: int) -> None:
        self.partition_id = partition_id
        self.configs: list[dict[str, Any]] = []

    def fit(
        self, parameters: list[NDArray[Any]], config: dict[str, Any]
    ) -> tuple[list[NDArray[Any]], int, dict[str, Any]]:
        weight, steps = parameters
        self.configs.append(config)
        goal = target(self.partition_id).reshape(weight.shape)
        loss = float(np.square(weight - goal).mean())
        weight += (goal - weight) / 2  # in place, as careless clients do
        metrics = {"train-loss": loss, "num-samples": 10.0, "done": True}
        return [weight, np.asarray(steps + 1)], 1 + self.partition_id, metrics

    def evaluate(
        self, parameters: list[NDArray[Any]], config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        self.configs.append(config)
        goal = target(self.partition_id).reshape(parameters[0].shape)
        loss = float(np.square(parameters[0] - goal).mean())
        return loss, 1 + self.partition_id, {"accuracy": 1 / (1 + loss)}


def pull_client_fn(context: Context) -> NumPyClient:
    """Build the client of a partition."""
    return PullClient(int(context.node_config["partition-id"]))


def evaluate_message(message: Message, context: Context) -> Message:
    """Evaluate, as an app on Flower's message API does."""
    arrays = message.content.array_records["arrays"]
    client = PullClient(int(context.node_config["partition-id"]))
    loss, num_examples, metrics = client.evaluate([a.numpy() for a in arrays.values()], {})
    numbers = {"num-examples": num_examples, "loss": loss, **metrics}
    return Message(RecordDict({"metrics": MetricRecord(numbers)}), reply_to=message)


def message_app(mods: list[Any]) -> ClientApp:
    """The same client written on Flower's message API."""
    app = ClientApp(mods=mods)
    app.evaluate()(evaluate_message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content.array_records["arrays"]
        client = PullClient(int(context.node_config["partition-id"]))
        after, num_examples, metrics = client.fit([a.numpy() for a in arrays.values()], {})
        record = ArrayRecord({n: Array(a) for n, a in zip(arrays, after, strict=True)})
        numbers = {"num-examples": num_examples, "train-loss": metrics["train-loss"]}
        content = RecordDict({"model": record, "metrics": MetricRecord(numbers)})
        return Message(content, reply_to=message)

    return app


def first_arrays(context: Context) -> list[NDArray[Any]]:
    """The arrays of the first model, as a client builds them."""
    return [array.numpy() for array in initial_arrays().values()]


def toy_grid(
    app: ClientApp,
    num_clients: int = 4,
    faults: FaultPlan | None = None,
    spread: float = 0.0,
) -> VirtualGrid:
    """A virtual grid of equal devices; with a spread, of slower ones that are not equal."""
    settings = SimulationSettings(samples_per_second=10.0, spread=spread)
    devices = build_device_model(settings if spread else SimulationSettings(), seed=0)
    return VirtualGrid(app, num_clients, devices, faults=faults)
