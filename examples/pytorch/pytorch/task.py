"""Model, data and training: nothing of this knows that updates are compressed."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

Examples = tuple[Tensor, Tensor]


class Net(nn.Module):
    """A small network for images of 8x8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 128)
        self.output = nn.Linear(128, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return a score for each class."""
        scores: Tensor = self.output(torch.relu(self.hidden(inputs)))
        return scores


def load_data(partition_id: int, num_partitions: int) -> tuple[Examples, Examples]:
    """Return a client's own images and labels, for training and for testing."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16.0, dtype=torch.float32)[partition_id::num_partitions]
    targets = torch.tensor(labels)[partition_id::num_partitions]
    cut = int(0.8 * len(targets))
    return (inputs[:cut], targets[:cut]), (inputs[cut:], targets[cut:])


def train(net: Net, data: Examples, learning_rate: float, epochs: int = 2) -> float:
    """Train for some epochs and return the last loss."""
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate, momentum=0.9)
    last = 0.0
    for _ in range(epochs):
        for inputs, targets in zip(*(part.split(16) for part in data), strict=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
        last = loss.item()
    return last


def test(net: Net, data: Examples) -> float:
    """Return the accuracy."""
    inputs, targets = data
    with torch.no_grad():
        return float((net(inputs).argmax(dim=1) == targets).float().mean())
