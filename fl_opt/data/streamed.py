"""Examples that are made ready batch by batch, for what does not fit into memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch

from fl_opt.data.examples import Examples
from fl_opt.data.source import ready


@dataclass(frozen=True)
class StreamedExamples:
    """Rows of stored examples, in an order of their own.

    Only the rows that are asked for are read, so that the stored examples may be a memory map
    that is larger than memory (see :class:`~fl_opt.data.mapped.MappedExamples`).

    Attributes
    ----------
    stored : Examples
        As a :class:`~fl_opt.data.source.Source` has them.
    rows : torch.Tensor
        int64, shape ``(n,)``: positions in ``stored``.
    """

    stored: Examples
    rows: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, indices: torch.Tensor) -> Examples:
        """Make the rows at ``indices`` (int64, shape ``(k,)``) ready, in that order."""
        return ready(self.stored.subset(self.rows.index_select(0, indices)))

    def batch(self, start: int, stop: int) -> Examples:
        """Make the rows from ``start`` up to ``stop`` ready."""
        return ready(self.stored.subset(self.rows[start:stop]))

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take if they were ready at once."""
        return len(self) * self.batch(0, 1).nbytes


AnyExamples: TypeAlias = Examples | StreamedExamples
"""Both have ``len()``, ``subset(indices)``, ``batch(start, stop)`` and ``nbytes``."""


def in_memory(examples: AnyExamples) -> Examples:
    """Return all of the examples, ready."""
    return examples.batch(0, len(examples))


@dataclass(frozen=True)
class ClientData:
    """The part of a dataset that one client holds, in memory or streamed."""

    train: AnyExamples
    validation: AnyExamples
