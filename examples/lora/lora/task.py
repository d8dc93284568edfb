"""A frozen network with low-rank adapters (Hu et al. 2021): only adapters and head travel.

The frozen weights are the same on all clients, drawn from a seed; with a pretrained model they
would be loaded from its file. The state dict has the shape of one that peft writes.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

WIDTH, RANK, LAYERS = 256, 8, 2
Examples = tuple[Tensor, Tensor]


class AdaptedLinear(nn.Module):
    """A frozen layer W with a trainable product beside it: W x + B A x."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.base.requires_grad_(requires_grad=False)
        self.lora_A = nn.Parameter(torch.randn(RANK, inputs) / inputs**0.5)
        self.lora_B = nn.Parameter(torch.zeros(outputs, RANK))

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply both."""
        outputs: Tensor = self.base(inputs) + inputs @ self.lora_A.T @ self.lora_B.T
        return outputs


class Net(nn.Module):
    """Two adapted layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)  # stands for a pretrained model
            sizes = [64] + [WIDTH] * LAYERS
            self.layers = nn.ModuleList(AdaptedLinear(a, b) for a, b in pairwise(sizes))
            self.head = nn.Linear(WIDTH, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return a score for each class."""
        for layer in self.layers:
            inputs = torch.relu(layer(inputs))
        scores: Tensor = self.head(inputs)
        return scores

    def trainable_state(self) -> dict[str, Tensor]:
        """Return what is trained, and so what travels."""
        wanted = {name for name, array in self.named_parameters() if array.requires_grad}
        return {name: array for name, array in self.state_dict().items() if name in wanted}


def load(partition_id: int, num_partitions: int) -> tuple[Examples, Examples]:
    """Return a client's own images and labels, for training and for testing."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16.0, dtype=torch.float32)[partition_id::num_partitions]
    targets = torch.tensor(labels)[partition_id::num_partitions]
    cut = int(0.8 * len(targets))
    return (inputs[:cut], targets[:cut]), (inputs[cut:], targets[cut:])


def train(net: Net, data: Examples, learning_rate: float, epochs: int = 2) -> None:
    """Train adapters and head."""
    trained = [array for array in net.parameters() if array.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=learning_rate, momentum=0.9)
    for _ in range(epochs):
        for inputs, targets in zip(*(part.split(16) for part in data), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs), targets).backward()
            optimizer.step()


def test(net: Net, data: Examples) -> float:
    """Return the accuracy."""
    with torch.no_grad():
        return float((net(data[0]).argmax(dim=1) == data[1]).float().mean())
