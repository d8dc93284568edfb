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

    def batch(self, start: int, stop: int) -> Examples:
        """Return the rows from ``start`` up to ``stop``, without a copy."""
        return Examples(self.inputs[start:stop], self.targets[start:stop])

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Examples:
        """Return the same examples on a device; without a copy where they are there already.

        With ``non_blocking`` a copy from pinned memory is only begun: what is asked of the
        device later waits for it, this process does not.
        """
        return Examples(
            self.inputs.to(device, non_blocking=non_blocking),
            self.targets.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Examples:
        """Copy to memory from which an accelerator copies by itself."""
        return Examples(self.inputs.pin_memory(), self.targets.pin_memory())

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return self.inputs.nbytes + self.targets.nbytes
