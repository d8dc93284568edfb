"""Federated averaging through codecs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.base import CompressedStrategy
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

    def step(
        self, model: NDArray[np.float32], delta: NDArray[np.float32], server_round: int
    ) -> NDArray[np.float32]:
        """Return what the server optimizer makes of the model."""
        kept = self._optimizer_state or self.server_optimizer.init(model.size)
        optimizer = self.server_optimizer
        factor = self.server_schedule.factor(server_round)
        if factor != 1.0:
            optimizer = replace(optimizer, eta=optimizer.eta * factor)
        after, self._optimizer_state = optimizer.apply(model, delta, kept)
        return after

    def optimizer_state(self) -> dict[str, NDArray[np.float32]]:
        """Return the optimizer's vectors."""
        return self._optimizer_state

    def restore_optimizer(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        """Go on with the optimizer's vectors."""
        self._optimizer_state = {name: vector.copy() for name, vector in vectors.items()}
