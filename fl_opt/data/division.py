"""Which rows of a dataset each client holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_opt.config import DataSettings
from fl_opt.data.partition import partition
from fl_opt.data.source import Source
from fl_opt.seeds import derive_seed


@dataclass(frozen=True)
class Division:
    """The rows of all clients, one client after another.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Of each client first the rows to train on, then those for validation.
    ends : ndarray of int64, shape (num_clients, 2)
        Where in ``rows`` these two parts of each client end.
    """

    rows: NDArray[np.int64]
    ends: NDArray[np.int64]

    def client(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return a client's rows to train on, and those for validation."""
        begin = int(self.ends[index - 1, 1]) if index else 0
        middle, end = map(int, self.ends[index])
        return self.rows[begin:middle], self.rows[middle:end]


def divide(source: Source, settings: DataSettings, num_clients: int, seed: int) -> Division:
    """Divide the training examples among clients.

    Parameters
    ----------
    source : Source
    settings : DataSettings
        ``partition``, ``validation_fraction`` and ``max_examples`` are used.
    num_clients : int
    seed : int
        The run's seed.

    Raises
    ------
    ConfigError, DataError
        As :func:`fl_opt.data.partition.partition`.
    """
    order = np.random.default_rng(derive_seed(seed, "examples"))
    rows = order.permutation(len(source.train))[: settings.max_examples or None]
    parts = partition(
        source, rows, settings.partition, num_clients, derive_seed(seed, "partition")
    )
    split = [
        _split(part, settings.validation_fraction, derive_seed(seed, "validation", client))
        for client, part in enumerate(parts)
    ]
    lengths = [len(part) for pair in split for part in pair]
    return Division(
        np.concatenate([part for pair in split for part in pair]),
        np.cumsum(lengths, dtype=np.int64).reshape(-1, 2),
    )


def _split(
    rows: NDArray[np.int64], validation_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split a client's rows; at least one is for training."""
    held = min(round(len(rows) * validation_fraction), len(rows) - 1)
    shuffled = np.random.default_rng(seed).permutation(rows)
    return shuffled[held:], shuffled[:held]
