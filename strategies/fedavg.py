"""Federated averaging through codecs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import MetricRecord

from strategies.base import CompressedStrategy, Vector
from strategies.collection import Collection
from strategies.model import ExactArrays
from strategies.schedule import build_schedule
from strategies.server_optimizer import State, build_server_optimizer


class CompressedFedAvg(CompressedStrategy):
    """Federated averaging (McMahan et al. 2017) of coded updates.

    The next model is the model plus the mean of the clients' updates, weighted by their
    number of examples. With codec ``none`` this equals the weighted mean of their weights.

    Parameters
    ----------
    codec : str
        Spec of what clients send.
    server_optimizer : str
        Spec of what is done with the mean update; see :mod:`strategies.server_optimizer`. The
        default is to add it to the model; ``sgd(eta=1.0, momentum=0.9)`` makes this FedAvgM.
    server_schedule : str
        Spec of how the optimizer's ``eta`` changes; see :mod:`strategies.schedule`.
    **options
        Of :class:`~strategies.base.CompressedStrategy`.
    """

    def __init__(
        self,
        codec: str = "topk(0.02) | ternary",
        *,
        server_optimizer: str = "sgd",
        server_schedule: str = "constant",
        **options: Any,
    ) -> None:
        super().__init__(codec, **options)
        self.server_optimizer = build_server_optimizer(server_optimizer)
        self.server_schedule = build_schedule(server_schedule)
        self._optimizer_state: State = {}

    def aggregate(
        self, server_round: int, taken: Collection
    ) -> tuple[Vector, ExactArrays, MetricRecord]:
        """Take a step along the mean update."""
        delta, exact = self.mean(taken)
        with np.errstate(over="ignore", invalid="ignore"):
            vector = self.step(self._model.vector, delta, server_round)
        metrics = self.train_metrics_aggr_fn(taken.metrics, self.weighted_by_key)
        return vector, exact, metrics

    def mean(self, taken: Collection) -> tuple[Vector, ExactArrays]:
        """Return the mean update of a round, and that of the exact arrays."""
        return taken.total.mean()

    def step(self, model: Vector, delta: Vector, server_round: int) -> Vector:
        """Return the next model: what the server optimizer makes of it.

        Parameters
        ----------
        model : ndarray of float32, shape (size,)
            The model that clients started from; it is not to be changed.
        delta : ndarray of float32, shape (size,)
            The weighted mean of their updates; it may be overwritten.
        server_round : int
            From 1.
        """
        kept = self._optimizer_state or self.server_optimizer.init(model.size)
        optimizer = self.server_optimizer
        factor = self.server_schedule.factor(server_round)
        if factor != 1.0:
            optimizer = replace(optimizer, eta=optimizer.eta * factor)
        after, self._optimizer_state = optimizer.apply(model, delta, kept)
        return after

    def optimizer_state(self) -> dict[str, Vector]:
        """Return the optimizer's vectors."""
        return self._optimizer_state

    def restore_optimizer(self, vectors: dict[str, Vector]) -> None:
        """Go on with the optimizer's vectors."""
        self._optimizer_state = {name: vector.copy() for name, vector in vectors.items()}
