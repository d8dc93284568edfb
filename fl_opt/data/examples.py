"""What training and evaluation see of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

TaskKind = Literal["tabular", "image", "text"]


@dataclass(frozen=True)
class TaskInfo:
    """What a model must take and give.

    Attributes
    ----------
    kind : {"tabular", "image", "text"}
        ``tabular``: float32 vectors. ``image``: float32 in [0, 1], channels first.
        ``text``: int64 character codes, one target for each character.
    input_shape : tuple of int
        Shape of one input: ``(features,)``, ``(channels, height, width)`` or ``(window,)``.
    num_classes : int
        Size of the last axis of the model's output: for text, of the vocabulary.
    """

    kind: TaskKind
    input_shape: tuple[int, ...]
    num_classes: int


@dataclass(frozen=True)
class Examples:
    """Inputs and targets that belong together row by row.

    Attributes
    ----------
    inputs : torch.Tensor
        Shape ``(n, *input_shape)``.
    targets : torch.Tensor
        Class of each example, shape ``(n,)``; for text the next character at each position,
        shape ``(n, window)``. int64 once ready for training.
    """

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: torch.Tensor) -> Examples:
        """Copy the rows at ``indices`` (int64, shape ``(k,)``) in that order."""
        return Examples(
            self.inputs.index_select(0, indices), self.targets.index_select(0, indices)
        )

    def to(self, device: torch.device) -> Examples:
        """Return the same examples on a device; without a copy where they are there already."""
        return Examples(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class ClientData:
    """The part of a dataset that one client holds."""

    train: Examples
    validation: Examples
