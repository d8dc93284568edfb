"""A dataset divided among clients, loaded once per process."""

from __future__ import annotations

import difflib
import threading
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from fl_opt.config import DataSettings, Settings
from fl_opt.data.digits import digits
from fl_opt.data.examples import ClientData, Examples, TaskInfo
from fl_opt.data.fashion_mnist import fashion_mnist
from fl_opt.data.hub import hub
from fl_opt.data.partition import partition
from fl_opt.data.shakespeare import shakespeare
from fl_opt.data.source import Source, ready
from fl_opt.data.synthetic import synthetic
from fl_opt.errors import ConfigError, DataError
from fl_opt.seeds import derive_seed

_HUB_PREFIX = "hub:"

DATASETS = ("digits", "fashion-mnist", "shakespeare", "synthetic")

# Clients whose data is kept ready for the next round; making it anew takes about as long as
# one training step.
_KEPT_CLIENTS = 16

_lock = threading.Lock()


class FederatedDataset:
    """The training examples of all clients and the central test set.

    The examples are stored once; a client's part is made when asked for, and kept while
    it is among the last few used.

    Parameters
    ----------
    source : Source
        All examples.
    settings : DataSettings
    num_clients : int
    seed : int
        The run's seed.

    Raises
    ------
    ConfigError, DataError
        As :func:`fl_opt.data.partition.partition`.

    Attributes
    ----------
    info : TaskInfo
    test : Examples
        The central test set, ready for evaluation.
    num_clients : int
    """

    def __init__(
        self, source: Source, settings: DataSettings, num_clients: int, seed: int
    ) -> None:
        self.info: TaskInfo = source.info
        self.test: Examples = ready(source.test)
        self.num_clients = num_clients
        self._train = source.train
        order = np.random.default_rng(derive_seed(seed, "examples"))
        rows = order.permutation(len(source.train))[: settings.max_examples or None]
        parts = partition(
            source, rows, settings.partition, num_clients, derive_seed(seed, "partition")
        )
        self._parts = [
            _split(part, settings.validation_fraction, derive_seed(seed, "validation", client))
            for client, part in enumerate(parts)
        ]
        self._kept = lru_cache(_KEPT_CLIENTS)(self._make)

    def client(self, partition_id: int) -> ClientData:
        """Return one client's part, ready for training.

        Parameters
        ----------
        partition_id : int
            In [0, num_clients).

        Raises
        ------
        DataError
            If there is no such client.
        """
        if not 0 <= partition_id < self.num_clients:
            raise DataError(
                f"there is no partition {partition_id}: {self.num_clients} clients are "
                f"numbered from 0 to {self.num_clients - 1}"
            )
        return self._kept(partition_id)

    def _make(self, partition_id: int) -> ClientData:
        train, validation = self._parts[partition_id]
        return ClientData(
            ready(self._train.subset(torch.from_numpy(train))),
            ready(self._train.subset(torch.from_numpy(validation))),
        )


def load_dataset(settings: Settings, num_clients: int) -> FederatedDataset:
    """Load the dataset of a run and divide it among clients.

    The result is kept: clients that share a process share one dataset.

    Parameters
    ----------
    settings : Settings
        ``dataset``, ``seed`` and the section ``data`` are used.
    num_clients : int
        At least 1.

    Raises
    ------
    ConfigError
        If the name or the partition is not known.
    DataError
        If the dataset is missing or too small.
    """
    with _lock:  # so that clients in threads do not load it more than once
        return _federated(settings.dataset, settings.data, num_clients, settings.seed)


@lru_cache(maxsize=2)
def _federated(
    name: str, settings: DataSettings, num_clients: int, seed: int
) -> FederatedDataset:
    return FederatedDataset(_source(name, settings.folder, seed), settings, num_clients, seed)


@lru_cache(maxsize=2)
def _source(name: str, folder: str, seed: int) -> Source:
    match name:
        case "digits":
            return digits()
        case "fashion-mnist":
            return fashion_mnist(folder)
        case "shakespeare":
            return shakespeare()
        case "synthetic":
            return synthetic(seed)
    if name.startswith(_HUB_PREFIX):
        return hub(name.removeprefix(_HUB_PREFIX))
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"unknown dataset {name!r}: use {', '.join(DATASETS)} or hub:<dataset-id>{hint}"
    )


def _split(
    rows: NDArray[np.int64], validation_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split a client's rows; at least one is for training."""
    held = min(round(len(rows) * validation_fraction), len(rows) - 1)
    shuffled = np.random.default_rng(seed).permutation(rows)
    return shuffled[held:], shuffled[:held]
