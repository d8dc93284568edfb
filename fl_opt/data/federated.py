"""A dataset divided among clients, loaded once per process."""

from __future__ import annotations

import threading
from functools import cached_property, lru_cache

import torch

from fl_opt.config import DataSettings, Settings
from fl_opt.data.cache import ArrayCache
from fl_opt.data.catalogue import find_dataset
from fl_opt.data.division import Division
from fl_opt.data.examples import TaskInfo
from fl_opt.data.kept import Kept
from fl_opt.data.prepared import Prepared, build_cache, prepared_division, prepared_source
from fl_opt.data.source import Source, ready
from fl_opt.data.streamed import AnyExamples, ClientData, StreamedExamples, in_memory
from fl_opt.errors import DataError

# Clients whose data is kept ready for the next round; making it anew takes about as long as
# one training step.
_KEPT_CLIENTS = 16

_lock = threading.Lock()


class FederatedDataset:
    """The training examples of all clients and the central test set.

    The examples are stored once; a client's part is made when asked for, and kept while
    it is among the last few used and these fit into ``resident_limit_mb`` together.

    Parameters
    ----------
    source : Source
        All examples.
    division : Division
        Which of them each client holds.
    settings : DataSettings
        ``loading`` and ``resident_limit_mb`` are used.

    Attributes
    ----------
    info : TaskInfo
    num_clients : int
    """

    def __init__(self, source: Source, division: Division, settings: DataSettings) -> None:
        self.info: TaskInfo = source.info
        self.num_clients = len(division.ends)
        self._source = source
        self._division = division
        self._loading = settings.loading
        self._limit = settings.resident_limit_mb * 1_000_000
        self._kept: Kept[ClientData] = Kept(_KEPT_CLIENTS, self._limit)

    @cached_property
    def test(self) -> AnyExamples:
        """The central test set, ready for evaluation; clients never ask for it."""
        rows = torch.arange(len(self._source.test))
        streamed = StreamedExamples(self._source.test, rows)
        return ready(self._source.test) if self._fits(streamed) else streamed

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
        return self._kept.get(partition_id, lambda: self._make(partition_id))

    def _make(self, partition_id: int) -> tuple[ClientData, int]:
        """Return a client's part and the bytes of memory it takes."""
        train, validation = (
            StreamedExamples(self._source.train, torch.from_numpy(rows))
            for rows in self._division.client(partition_id)
        )
        if not self._fits(train, validation):
            return ClientData(train, validation), 0
        size = train.nbytes + validation.nbytes
        return ClientData(in_memory(train), in_memory(validation)), size

    def _fits(self, *parts: StreamedExamples) -> bool:
        """Say whether examples are to be in memory all at once."""
        if self._loading != "auto":
            return self._loading == "resident"
        return sum(part.nbytes for part in parts) <= self._limit


def load_dataset(settings: Settings, num_clients: int) -> FederatedDataset:
    """Load the dataset of a run and divide it among clients.

    The result is kept: clients that share a process share one dataset. What it took to make
    it is on disk for the next process (``data.cache-folder``), which maps it into memory. That
    of the hub's datasets is not: ``datasets`` has a cache of its own, and a hub may change.

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
    cache = build_cache(settings)
    prepared = _prepared(name, settings.folder, seed, cache)
    division = prepared_division(prepared, cache, settings, num_clients, seed)
    return FederatedDataset(prepared.source, division, settings)


@lru_cache(maxsize=2)
def _prepared(name: str, folder: str, seed: int, cache: ArrayCache) -> Prepared:
    return prepared_source(find_dataset(name, folder, seed), cache)
