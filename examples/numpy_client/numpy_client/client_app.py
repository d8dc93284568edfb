"""A ``NumPyClient`` as it was, in a wrapper that gives it plain arrays."""

from __future__ import annotations

from typing import Any

import torch
from flwr.app import Context
from flwr.client import NumPyClient
from numpy.typing import NDArray
from torch import nn

from fl_opt.client import numpy_client_app
from numpy_client.task import build, load

Arrays = list[NDArray[Any]]


class DigitsClient(NumPyClient):
    """Trains and evaluates on its own part of the digits."""

    def __init__(self, partition_id: int, num_partitions: int, learning_rate: float) -> None:
        self.net = build()
        inputs, targets = load(partition_id, num_partitions)
        cut = int(0.8 * len(targets))
        self.train, self.test = (inputs[:cut], targets[:cut]), (inputs[cut:], targets[cut:])
        self.learning_rate = learning_rate

    def get_parameters(self, config: dict[str, Any]) -> Arrays:
        """Return the arrays of the model."""
        return [array.detach().numpy().copy() for array in self.net.state_dict().values()]

    def fit(
        self, parameters: Arrays, config: dict[str, Any]
    ) -> tuple[Arrays, int, dict[str, Any]]:
        """Train the model received for two epochs."""
        self._load(parameters)
        optimizer = torch.optim.SGD(self.net.parameters(), lr=self.learning_rate, momentum=0.9)
        for _ in range(2):
            for inputs, targets in zip(*(part.split(16) for part in self.train), strict=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(self.net(inputs), targets).backward()
                optimizer.step()
        return self.get_parameters({}), len(self.train[1]), {}

    def evaluate(
        self, parameters: Arrays, config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        """Evaluate the model received."""
        self._load(parameters)
        inputs, targets = self.test
        with torch.no_grad():
            scores = self.net(inputs)
        accuracy = float((scores.argmax(dim=1) == targets).float().mean())
        loss = float(nn.functional.cross_entropy(scores, targets))
        return loss, len(targets), {"accuracy": accuracy}

    def _load(self, parameters: Arrays) -> None:
        names = self.net.state_dict().keys()
        arrays = (torch.tensor(array) for array in parameters)
        self.net.load_state_dict(dict(zip(names, arrays, strict=True)))


def client_fn(context: Context) -> NumPyClient:
    """Return the client of a node."""
    config = context.node_config
    rate = float(context.run_config["learning-rate"])
    return DigitsClient(int(config["partition-id"]), int(config["num-partitions"]), rate)


app = numpy_client_app(client_fn)  # instead of: ClientApp(client_fn=client_fn)
