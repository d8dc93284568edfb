"""A client of the toy federation that trains in steps and says how many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fl_opt.client import numpy_client_app
from tests.toy import PullClient, first_arrays, target

RATE = 0.1
"""Of plain gradient descent on half the squared distance to the target."""


class SteppingClient(PullClient):
    """Takes ``steps`` steps, or as many as the server asks for; each one on ten samples."""

    def __init__(self, partition_id: int, steps: int) -> None:
        super().__init__(partition_id)
        self.steps = steps

    def fit(
        self, parameters: list[NDArray[Any]], config: dict[str, Any]
    ) -> tuple[list[NDArray[Any]], int, dict[str, Any]]:
        weight, counter = parameters
        goal = target(self.partition_id).reshape(weight.shape)
        loss = float(np.square(weight - goal).mean())
        steps = int(config.get("local-steps", self.steps))
        for _ in range(steps):
            weight = weight - RATE * (weight - goal)
        metrics = {"train-loss": loss, "num-steps": steps, "num-samples": 10.0 * steps}
        return [weight, np.asarray(counter + 1)], 1 + self.partition_id, metrics


def stepping_app(steps_of: Callable[[int], int]) -> ClientApp:
    """An app whose clients take so many steps by their partition."""

    def client_fn(context: Context) -> NumPyClient:
        partition = int(context.node_config["partition-id"])
        return SteppingClient(partition, steps_of(partition))

    return numpy_client_app(client_fn, first_arrays)


def learned(partition_id: int, steps: int, start: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a client's weights move by, worked out."""
    share = 1.0 - (1.0 - RATE) ** steps
    return np.asarray(share * (target(partition_id).astype(np.float64) - start), np.float64)
