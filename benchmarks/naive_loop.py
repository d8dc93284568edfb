"""Federated averaging as it is often written: the baseline of ``reference_workload.py``.

Every client gets a deep copy of the model and a ``DataLoader`` over a Python dataset, trains
under bfloat16 autocast and sends its *weights*, of which each array keeps the largest fifth as
pairs of a 32-bit index and a 32-bit value. The server averages what it receives, zeros where
nothing was sent. Nothing here uses fl_opt but for data, model and loss, which both sides share.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fl_opt.data import Examples
from fl_opt.training import prediction_loss

KEPT = 0.2
LEARNING_RATE = 0.01
MOMENTUM = 0.9
BATCH_SIZE = 32
LOCAL_EPOCHS = 3
CLIP_NORM = 1.0

Pairs = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class NaiveResult:
    """What a run of the naive loop gave.

    Attributes
    ----------
    accuracy : float
        On the test set, after the last round.
    bytes_up : int
        Sent by all clients in all rounds.
    """

    accuracy: float
    bytes_up: int


class ListDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Examples as a list, one at a time."""

    def __init__(self, examples: Examples) -> None:
        self._items = list(zip(examples.inputs, examples.targets, strict=True))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._items[index]


def run_naive(
    model: nn.Module,
    clients: list[Examples],
    test: Examples,
    *,
    num_rounds: int,
    compress: bool,
    seed: int,
    loader_workers: int = 0,
) -> NaiveResult:
    """Train for some rounds, all clients in each; torch's global random state is used.

    Parameters
    ----------
    model : torch.nn.Module
        The initial model; trained in place.
    clients : list of Examples
        What each client trains on.
    test : Examples
    num_rounds : int
    compress : bool
        Send a fifth of the weights, or all of them as float32.
    seed : int
        Of the order of examples.
    loader_workers : int
        Processes of each ``DataLoader``, started anew for each epoch.
    """
    torch.manual_seed(seed)
    datasets = [ListDataset(examples) for examples in clients]
    bytes_up = 0
    accuracy = 0.0
    for _ in range(num_rounds):
        received = []
        for dataset in datasets:
            weights = train_client(copy.deepcopy(model), dataset, loader_workers)
            if compress:
                pairs = {name: _keep_largest(array) for name, array in weights.items()}
                bytes_up += sum(i.nbytes + v.nbytes for i, v in pairs.values())
                weights = {name: _restore(pairs[name], weights[name].shape) for name in pairs}
            else:
                bytes_up += sum(array.nbytes for array in weights.values())
            received.append((weights, len(dataset)))
        model.load_state_dict(_average(received))
        accuracy = _evaluate(model, ListDataset(test))
    return NaiveResult(accuracy, bytes_up)


def train_client(
    model: nn.Module, dataset: ListDataset, workers: int, *, autocast: bool = True
) -> dict[str, torch.Tensor]:
    """Train a model in place, and return a copy of its weights."""
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=workers)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    model.train()
    for _ in range(LOCAL_EPOCHS):
        for inputs, targets in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = prediction_loss(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            loss.item()
    return copy.deepcopy(model.state_dict())


def _keep_largest(array: torch.Tensor) -> Pairs:
    flat = array.flatten()
    kept = max(1, int(KEPT * flat.numel()))
    index = flat.abs().topk(kept).indices
    return index.to(torch.int32), flat[index]


def _restore(pairs: Pairs, shape: torch.Size) -> torch.Tensor:
    index, values = pairs
    flat = torch.zeros(shape.numel())
    flat[index.long()] = values
    return flat.reshape(shape)


def _average(received: list[tuple[dict[str, torch.Tensor], int]]) -> dict[str, torch.Tensor]:
    total = sum(count for _, count in received)
    names = received[0][0]
    return {
        name: sum(
            (weights[name] * (count / total) for weights, count in received),
            start=torch.zeros_like(names[name]),
        )
        for name in names
    }


@torch.no_grad()
def _evaluate(model: nn.Module, dataset: ListDataset) -> float:
    model.eval()
    right = 0
    for inputs, targets in DataLoader(dataset, batch_size=BATCH_SIZE):
        right += int((model(inputs).argmax(dim=1) == targets).sum())
    return right / len(dataset)
